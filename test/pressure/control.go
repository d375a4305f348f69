// SPDX-License-Identifier: GPL-2.0-only

package pressure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/o2fence/o2fence/test/pressure/wire"
)

// A Control is the host's end of the line to the measuring process.
type Control struct {
	conn   net.PacketConn
	spares map[string]*spare
	watch  func(wire.Report) // called with each report, once

	mu      sync.Mutex
	phase   string
	last    int // number of the last report
	samples []wire.Sample
	fences  []wire.Fence
	done    map[string]bool
	stack   string
	err     error
	more    chan struct{} // closed and replaced with each report
}

func newControl(spares map[string]*spare, watch func(wire.Report)) (*Control, error) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &Control{conn: conn, spares: spares, watch: watch, phase: wire.Idle, done: map[string]bool{}, more: make(chan struct{})}
	go c.serve()
	return c, nil
}

func (c *Control) port() int { return c.conn.LocalAddr().(*net.UDPAddr).Port }

func (c *Control) serve() {
	for buf := make([]byte, 1<<16); ; {
		n, from, err := c.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var r wire.Report
		if err := json.Unmarshal(buf[:n], &r); err != nil {
			continue
		}
		reply, err := json.Marshal(c.take(r))
		if err == nil {
			_, _ = c.conn.WriteTo(reply, from) // what is lost is asked for again
		}
	}
}

// take takes a report, once: it may come again because the answer was lost.
func (c *Control) take(r wire.Report) wire.Reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Seq != c.last {
		c.last = r.Seq
		c.add(r)
		if c.watch != nil {
			c.watch(r)
		}
		close(c.more)
		c.more = make(chan struct{})
	}
	return wire.Reply{Seq: r.Seq, Phase: c.phase}
}

func (c *Control) add(r wire.Report) {
	switch {
	case r.Sample != nil:
		c.samples = append(c.samples, *r.Sample)
	case r.Stack != "":
		c.stack = r.Stack
	case r.Power != "":
		c.err = errors.Join(c.err, c.spare(r.Power, (*spare).ready))
	case r.Fence != nil:
		f := *r.Fence
		c.err = errors.Join(c.err, c.spare(f.Fencer, func(m *spare) error {
			f.Device = m.taken()
			if on, _ := m.On(); f.OK && on {
				return fmt.Errorf("%s: FALSE SUCCESS: the machine is on", f.Fencer)
			}
			return nil
		}))
		c.fences = append(c.fences, f)
	case r.Done != "":
		c.done[r.Done] = true
	case r.Error != "":
		c.err = errors.Join(c.err, errors.New(r.Error))
	}
}

func (c *Control) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = errors.Join(c.err, err)
	close(c.more)
	c.more = make(chan struct{})
}

func (c *Control) spare(fencer string, do func(*spare) error) error {
	m, ok := c.spares[fencer]
	if !ok {
		return fmt.Errorf("no such fencer: %q", fencer)
	}
	return do(m)
}

// Ask says what is wanted next.
func (c *Control) Ask(phase string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase = phase
}

// Fences are those that have ended in a phase.
func (c *Control) Fences(phase string) []wire.Fence {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []wire.Fence
	for _, f := range c.fences {
		if f.Phase == phase {
			all = append(all, f)
		}
	}
	return all
}

// Samples are all that were taken, and Stack is where one of those waits that are stuck.
func (c *Control) Samples() []wire.Sample {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.samples[:len(c.samples):len(c.samples)]
}

// Stack is where a task waits that reclaims memory and is stuck in it; empty when none was seen.
func (c *Control) Stack() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stack
}

// Await returns the first sample from now on that is as wanted.
func (c *Control) Await(ctx context.Context, what string, wanted func(wire.Sample) bool) (wire.Sample, error) {
	var found wire.Sample
	from := len(c.Samples())
	err := c.await(ctx, what, func() bool {
		for _, s := range c.samples[from:] {
			if wanted(s) {
				found = s
				return true
			}
		}
		return false
	})
	return found, err
}

// AwaitDone waits for the end of a phase.
func (c *Control) AwaitDone(ctx context.Context, phase string) error {
	return c.await(ctx, "the end of phase "+phase, func() bool { return c.done[phase] })
}

// await waits until a report makes something true.
func (c *Control) await(ctx context.Context, what string, is func() bool) error {
	for {
		c.mu.Lock()
		ok, more, err := is(), c.more, c.err
		c.mu.Unlock()
		if err != nil || ok {
			return err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last of all: %+v", what, context.Cause(ctx), c.lastSample())
		}
	}
}

func (c *Control) lastSample() wire.Sample {
	if all := c.Samples(); len(all) > 0 {
		return all[len(all)-1]
	}
	return wire.Sample{}
}

// Close ends it.
func (c *Control) Close() error { return c.conn.Close() }
