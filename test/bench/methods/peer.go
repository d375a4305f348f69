// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"github.com/o2fence/o2fence/fencemethods"
)

// A pair is a device of ours and an agent of theirs, for the same machine.
type pair struct {
	ours        fencemethods.Device
	theirs      agent
	closeServer func() error
}

func (p *pair) close() {
	p.ours.Close()
	_ = p.closeServer()
}

// closed closes the server of a pair that came to nothing.
func closed(err error, closeServer func() error) error { return errors.Join(err, closeServer()) }

// An agent is one of Debian's fence agents (fence-agents' FenceAgentAPI), with its parameters, or
// another program that fences, with its arguments.
type agent struct {
	program string
	params  map[string]string
	args    []string
}

// off runs the agent as a cluster manager does: parameters on standard input, 0 means fenced.
func (a agent) off(ctx context.Context) error {
	var in bytes.Buffer
	fmt.Fprintln(&in, "action=off")
	for key, value := range a.params {
		fmt.Fprintf(&in, "%s=%s\n", key, value)
	}
	cmd := exec.CommandContext(ctx, a.program, a.args...)
	cmd.Stdin = &in
	cmd.Env = append(os.Environ(), "MIBS=") // none to load: it takes what is fastest
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// A machine obeys at once. It is a bmc.Power, and, as a number, an outlet or a port: 1 on, 2 off.
type machine struct {
	before func() error // is called before each fence, when it is not nil

	mu sync.Mutex
	on bool
}

// On says whether it is on.
func (m *machine) On() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on, nil
}

// SetOn switches it.
func (m *machine) SetOn(on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on = on
	return nil
}

// Reset restarts it.
func (m *machine) Reset() error { return m.SetOn(true) }

func (m *machine) number() any {
	if on, _ := m.On(); on {
		return 1
	}
	return 2
}

func (m *machine) order(n int) error {
	switch n {
	case 1, 2:
		return m.SetOn(n == 1)
	default:
		return os.ErrInvalid
	}
}
