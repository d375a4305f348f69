// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// A report is what of the audit's JSON the tests look at.
type report struct {
	Verdict  string
	Reasons  []string
	Lost     int
	TakenKiB int `json:"taken_kib"`
	Sites    []site
}

type site struct {
	Class, Kind, Blame, Thread, Text string
	KernelThread                     bool `json:"kernel_thread"`
	Memalloc                         bool
	Stack                            []struct{ Func string }
}

// within tells whether a function of the kernel's was called.
func (s *site) within(name string) bool {
	return slices.ContainsFunc(s.Stack, func(f struct{ Func string }) bool { return f.Func == name })
}

// An audit is a run of the program under test.
type audit struct {
	cmd    *exec.Cmd
	out    bytes.Buffer
	errs   *bufio.Scanner
	stderr strings.Builder
}

// begin starts an audit, and returns when it watches.
func (s *suite) begin(args ...string) (*audit, error) {
	a := &audit{cmd: exec.Command(s.program(), append([]string{"--json"}, args...)...)}
	a.cmd.Stdout = &a.out
	errs, err := a.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	a.errs = bufio.NewScanner(errs)
	for a.errs.Scan() {
		fmt.Fprintln(&a.stderr, a.errs.Text())
		if strings.Contains(a.errs.Text(), "watching") {
			return a, nil
		}
	}
	return nil, fmt.Errorf("it does not watch: %w: %s", a.cmd.Wait(), a.stderr.String())
}

// end waits for an audit's end and reads its report.
func (a *audit) end(code int) (*report, error) {
	for a.errs.Scan() {
		fmt.Fprintln(&a.stderr, a.errs.Text())
	}
	if err := expect(a.cmd.Wait(), code); err != nil {
		err = fmt.Errorf("%w: %s%s", err, a.stderr.String(), summary(a.out.Bytes()))
		r := new(report)
		if json.Unmarshal(a.out.Bytes(), r) == nil && r.Lost > 0 {
			err = fmt.Errorf("%w: %w", errLost, err)
		}
		return nil, err
	}
	r := new(report)
	return r, json.Unmarshal(a.out.Bytes(), r)
}

// errLost is for an audit that has missed something, as on a busy machine: what was seen is not all.
var errLost = errors.New("events were lost")

// expect fails unless a program has ended with that code.
func expect(err error, code int) error {
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		return err
	}
	if got != code {
		return fmt.Errorf("exit code %d, want %d", got, code)
	}
	return nil
}

// summary is what a failure shows of a report: each site on a line.
func summary(text []byte) string {
	r := new(report)
	if err := json.Unmarshal(text, r); err != nil {
		return string(text)
	}
	lines := []string{r.Verdict + ": " + strings.Join(r.Reasons, "; ")}
	for _, s := range r.Sites {
		lines = append(lines, fmt.Sprintf("%s %s %s %s, memalloc %t, %s", s.Class, s.Kind, s.Text, s.Thread, s.Memalloc, s.Blame))
		if s.Class != "forbidden" {
			continue
		}
		for _, frame := range s.Stack {
			lines = append(lines, "    "+frame.Func)
		}
	}
	return strings.Join(slices.Compact(lines), "\n")
}

// refused runs an audit that must not come to watch anything: it says why, and ends with a code.
func (s *suite) refused(code int, want string, cmd *exec.Cmd) error {
	cmd.Stdout = io.Discard
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := expect(cmd.Run(), code); err != nil {
		return fmt.Errorf("%w: %s", err, stderr.String())
	}
	if !strings.Contains(stderr.String(), want) {
		return fmt.Errorf("it says %q, without %q", stderr.String(), want)
	}
	return nil
}
