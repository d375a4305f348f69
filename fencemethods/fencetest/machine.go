// SPDX-License-Identifier: GPL-2.0-only

package fencetest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// cluster is that of all machines.
const cluster = "c"

// A Machine is the node behind a device: a pretended one that can be made to misbehave, and knows
// whether it really went off. It satisfies bmc.Power.
type Machine struct {
	node uint8

	mu       sync.Mutex
	manners  Manners
	on       bool
	commands int
	offs     int  // how often it has gone off
	shown    bool // what it says of itself while it is stale
}

// Manners are how a Machine takes commands. The zero value is a machine that obeys at once.
type Manners struct {
	Deaf      bool          // takes commands and does nothing
	Slow      time.Duration // does it so much later
	Restless  bool          // comes back on by itself before anybody can look
	Refuse    bool          // refuses every command, and says so
	Stale     bool          // goes on saying what was true when these manners began
	Unknown   bool          // cannot tell whether it is on
	Commanded func()        // called for each command, before it is carried out
}

func newMachine(node uint8) *Machine { return &Machine{node: node, on: true} }

// Node is its number in the cluster.
func (m *Machine) Node() uint8 { return m.node }

// Target is whom its devices are opened for.
func (m *Machine) Target() fencemethods.Target {
	return fencemethods.Target{Cluster: cluster, Node: m.node, Name: fmt.Sprint("node", m.node)}
}

// On says whether the machine is on.
func (m *Machine) On() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.manners.Unknown {
		return false, errors.New("power state unknown")
	}
	if m.manners.Stale {
		return m.shown, nil
	}
	return m.on, nil
}

// SetOn is the command to go on or off.
func (m *Machine) SetOn(on bool) error {
	m.mu.Lock()
	manners := m.manners
	m.commands++
	m.mu.Unlock()
	if manners.Commanded != nil {
		manners.Commanded()
	}
	switch {
	case manners.Refuse:
		return errors.New("command refused")
	case manners.Deaf:
	case manners.Slow > 0:
		time.AfterFunc(manners.Slow, func() { m.turn(on, false) })
	default:
		m.turn(on, manners.Restless)
	}
	return nil
}

// Reset restarts the machine.
func (m *Machine) Reset() error {
	m.turn(false, true)
	return nil
}

func (m *Machine) turn(on, back bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.on && !on {
		m.offs++
	}
	m.on = on || back
}

// behave sets the machine's manners.
func (m *Machine) behave(manners Manners) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.manners, m.shown = manners, m.on
}

// A record is what tells a true "fenced" from a false one.
type record struct {
	on             bool
	commands, offs int
}

func (m *Machine) record() record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return record{m.on, m.commands, m.offs}
}
