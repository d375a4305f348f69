// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"github.com/o2fence/o2fence/test/guest/wire"
)

// A Command is a program to run in a guest.
type Command struct {
	Args  []string // Args[0] is looked up in the guest's PATH
	Env   []string // added to the guest's environment
	Dir   string
	Stdin []byte
	// Stdout and Stderr get the output as it comes, nil discards it. They must not block: all of the
	// machine's commands share one line.
	Stdout, Stderr io.Writer
}

// A Process is a program running in a guest.
type Process struct {
	machine string
	args    []string
	agent   *agent
	call    *call
}

// An ExitError is the failure of a program that ran.
type ExitError struct {
	Machine string
	Args    []string
	Code    int            // -1 when a signal ended it
	Signal  syscall.Signal // 0 when it exited
	Stderr  string         // what Run has seen of it
}

func (e *ExitError) Error() string {
	how := fmt.Sprintf("exit code %d", e.Code)
	if e.Signal != 0 {
		how = e.Signal.String()
	}
	text := fmt.Sprintf("%s: %s: %s", e.Machine, strings.Join(e.Args, " "), how)
	if e.Stderr != "" {
		text += ": " + strings.TrimSpace(e.Stderr)
	}
	return text
}

// Start starts a program once the guest is up. It does not wait for the program, nor to learn
// whether it could be started: Wait tells.
func (m *VM) Start(ctx context.Context, c Command) (*Process, error) {
	a, err := m.readyAgent(ctx)
	if err != nil {
		return nil, err
	}
	request := wire.Request{Start: &wire.Process{Args: c.Args, Env: c.Env, Dir: c.Dir, Stdin: c.Stdin}}
	call, err := a.begin(request, orDiscard(c.Stdout), orDiscard(c.Stderr))
	if err != nil {
		return nil, m.errorf("%s: %w", strings.Join(c.Args, " "), err)
	}
	return &Process{machine: m.cfg.Name, args: c.Args, agent: a, call: call}, nil
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// Wait waits for the program's end; it may be called again, after a ctx that ended too early for
// example. The error is nil for exit code 0, an *ExitError for another or a signal, ErrOff when the
// machine went off under it.
func (p *Process) Wait(ctx context.Context) error {
	if err := p.call.wait(ctx); err != nil {
		return fmt.Errorf("%s: %s: %w", p.machine, strings.Join(p.args, " "), err)
	}
	if r := p.call.reply; r.Code != 0 || r.Signal != 0 {
		return &ExitError{Machine: p.machine, Args: p.args, Code: r.Code, Signal: r.Signal}
	}
	return nil
}

// Signal sends a signal to the program and all its children that stayed in its process group. It
// does nothing when the program has ended.
func (p *Process) Signal(s syscall.Signal) error {
	return p.agent.send(wire.Request{ID: p.call.id, Signal: s})
}

// Run runs a program to its end and returns its standard output. When ctx ends first, the program
// is killed.
func (m *VM) Run(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	p, err := m.Start(ctx, Command{Args: args, Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return "", err
	}
	err = p.Wait(ctx)
	if ctx.Err() != nil {
		// Its output may still be coming in.
		_ = p.Signal(syscall.SIGKILL)
		return "", err
	}
	if exit, ok := err.(*ExitError); ok {
		exit.Stderr = stderr.String()
	}
	return stdout.String(), err
}

// WriteFile writes a file in the guest, and the directories it is in.
func (m *VM) WriteFile(ctx context.Context, path string, data []byte, mode fs.FileMode) error {
	a, err := m.readyAgent(ctx)
	if err != nil {
		return err
	}
	if err := a.do(ctx, wire.Request{Write: &wire.File{Path: path, Mode: mode, Data: data}}); err != nil {
		return m.errorf("%w", err)
	}
	return nil
}
