// SPDX-License-Identifier: GPL-2.0-only

package ktap

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// A Printer writes one flat KTAP stream. It is for test programs that run inside a guest; the
// stream's reader is Run on the host. Not safe for concurrent use.
type Printer struct {
	w       io.Writer
	printed int
	failed  bool
	planned int
}

// NewPrinter writes the version line and the plan.
func NewPrinter(w io.Writer, planned int) *Printer {
	fmt.Fprintf(w, "KTAP version 1\n1..%d\n", planned)
	return &Printer{w: w, planned: planned}
}

// Skip is the result of a test that cannot run here, for the reason it holds.
type Skip string

// Error returns the reason.
func (s Skip) Error() string { return string(s) }

// Result writes the next result: ok for nil, SKIP when err is or wraps a Skip, and otherwise
// "not ok" after err's text as a diagnostic. A name must not contain '#', which begins a
// directive.
func (p *Printer) Result(name string, err error) {
	p.printed++
	var skip Skip
	switch {
	case err == nil:
		fmt.Fprintf(p.w, "ok %d %s\n", p.printed, name)
	case errors.As(err, &skip):
		fmt.Fprintf(p.w, "ok %d %s # SKIP %s\n", p.printed, name, oneLine(string(skip)))
	default:
		p.failed = true
		p.Diagnose("%v", err)
		fmt.Fprintf(p.w, "not ok %d %s\n", p.printed, name)
	}
}

// Diagnose writes diagnostic lines, which belong to the next result.
func (p *Printer) Diagnose(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Fprintf(p.w, "# %s\n", strings.TrimRight(line, "\n"))
	}
}

// ExitCode is what the program should exit with: 0 when as many results as planned were written
// and none failed, otherwise 1, as kselftest has it.
func (p *Printer) ExitCode() int {
	if p.failed || p.printed != p.planned {
		return 1
	}
	return 0
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }
