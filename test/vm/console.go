// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"sync"
	"time"

	"github.com/o2fence/o2fence/test/ktap"
)

// A Line is one line of a serial console. The Time is the host's, when the line was complete.
type Line struct {
	Time time.Time
	Text string
}

// A Console keeps all that a machine ever printed on its serial port, over all its boots, and
// writes it to a log with the seconds since the machine's epoch. Safe for concurrent use.
type Console struct {
	epoch time.Time

	mu      sync.Mutex
	log     io.Writer
	partial []byte
	lines   []Line
	faults  []string
	grown   chan struct{} // closed and replaced with every line
}

func newConsole(log io.Writer, epoch time.Time) *Console {
	return &Console{epoch: epoch, log: log, grown: make(chan struct{})}
}

// Write takes the console's output as it comes; only QEMU's reader and the harness call it.
func (c *Console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partial = append(c.partial, b...)
	for {
		line, rest, found := bytes.Cut(c.partial, []byte("\n"))
		if !found {
			return len(b), nil
		}
		c.partial = rest
		c.add(string(bytes.Trim(line, "\r")))
	}
}

// note adds a line of the harness's own, after whatever the machine left unfinished.
func (c *Console) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.partial) > 0 {
		c.add(string(c.partial))
		c.partial = nil
	}
	c.add(fmt.Sprintf("--- "+format, args...))
}

func (c *Console) add(text string) {
	l := Line{Time: time.Now(), Text: text}
	c.lines = append(c.lines, l)
	if ktap.Fault(text) {
		c.faults = append(c.faults, text)
	}
	// A log that cannot be written must not stop the machine; the lines are still in memory.
	_, _ = fmt.Fprintf(c.log, "%10.3f %s\n", l.Time.Sub(c.epoch).Seconds(), text)
	close(c.grown)
	c.grown = make(chan struct{})
}

// Len is the number of lines so far: the position of the next one.
func (c *Console) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lines)
}

// Lines returns the lines from position from on.
func (c *Console) Lines(from int) []Line {
	lines, _ := c.since(from)
	return lines
}

func (c *Console) since(from int) ([]Line, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.lines)
	return c.lines[min(from, n):n:n], c.grown
}

// Await returns the first line at or after position from that pattern matches, and the position
// after it. When ctx ends first the error wraps ctx's.
func (c *Console) Await(ctx context.Context, from int, pattern *regexp.Regexp) (Line, int, error) {
	for {
		lines, grown := c.since(from)
		for i, l := range lines {
			if pattern.MatchString(l.Text) {
				return l, from + i + 1, nil
			}
		}
		from += len(lines)
		select {
		case <-grown:
		case <-ctx.Done():
			return Line{}, from, fmt.Errorf("console: nothing matches %s: %w", pattern, ctx.Err())
		}
	}
}

func (c *Console) kernelFaults() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.faults[:len(c.faults):len(c.faults)]
}

func (c *Console) clearFaults() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// tail is the last n lines, as in the log.
func (c *Console) tail(n int) string {
	lines := c.Lines(max(0, c.Len()-n))
	var b bytes.Buffer
	for _, l := range lines {
		fmt.Fprintf(&b, "%10.3f %s\n", l.Time.Sub(c.epoch).Seconds(), l.Text)
	}
	return b.String()
}
