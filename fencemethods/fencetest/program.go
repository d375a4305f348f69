// SPDX-License-Identifier: GPL-2.0-only

package fencetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// TheirsVar is the environment variable that has the suite run on other people's programs.
const TheirsVar = "O2FENCE_THEIRS"

// Theirs skips a test that runs the suite on other people's programs, unless that is wished: they
// fail it, and take minutes.
func Theirs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(err)
	}
	if os.Getenv(TheirsVar) == "" {
		t.Skip("of other people's programs, for make conformance alone")
	}
}

// A Program is a fence agent of somebody else's, or another program that fences.
type Program struct {
	Name string   // as the table shows it
	Args []string // with which it is started; the first is the program

	// Input makes what it is told on its standard input, but for the action, of the parameters that
	// the method would have had.
	Input func(fencemethods.Values) map[string]string
	// Line makes further arguments, for programs that are told so; it may be nil.
	Line func(action string, v fencemethods.Values) []string

	Off string // the action that shall fence; "" is off
}

// Method makes a method of the program. It has the parameters of the method whose place it takes, so
// that both are tried on the same device.
func (p Program) Method(ours fencemethods.Method) fencemethods.Method {
	if p.Off == "" {
		p.Off = "off"
	}
	ours.Name = p.Name
	ours.Verify = nil
	ours.New = func(_ fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
		return &program{p, v}, nil
	}
	return ours
}

// A program runs as the cluster managers run it: parameters on its standard input, its exit code
// counts, and it is killed with all that it has started when its time is over.
type program struct {
	Program
	values fencemethods.Values
}

func (p *program) Off(ctx context.Context) error { return p.obey(ctx, p.Program.Off) }

func (p *program) On(ctx context.Context) error { return p.obey(ctx, "on") }

func (p *program) Check(ctx context.Context) error { return p.obey(ctx, "monitor") }

func (p *program) Close() error { return nil }

// Status goes by the exit code, as FenceAgentAPI.md has it: 0 is on, 2 is off.
func (p *program) Status(ctx context.Context) (fencemethods.State, error) {
	err := p.obey(ctx, "status")
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return fencemethods.On, nil
	case ok && exit.ExitCode() == 2:
		return fencemethods.Off, nil
	}
	return fencemethods.Unknown, err
}

func (p *program) obey(ctx context.Context, action string) error {
	args := slices.Clone(p.Args)
	if p.Line != nil {
		args = append(args, p.Line(action, p.values)...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	if p.Input != nil {
		var in bytes.Buffer
		fmt.Fprintf(&in, "action=%s\n", action)
		for key, value := range p.Input(p.values) {
			fmt.Fprintf(&in, "%s=%s\n", key, value)
		}
		cmd.Stdin = &in
	}
	cmd.Env = append(os.Environ(), "MIBS=") // for net-snmp: none to load
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%w: %s", err, lastLine(out))
	}
	return nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// Text reads the file that a parameter names: other people's programs are given the secret itself.
func Text(v fencemethods.Values, param string) string {
	text, _ := os.ReadFile(v[param])
	return strings.TrimSpace(string(text))
}
