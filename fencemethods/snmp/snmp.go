// SPDX-License-Identifier: GPL-2.0-only

// Package snmp fences by the outlets of a power strip (PDU) that is switched by SNMP: those of APC,
// Eaton and Tripp Lite.
//
// All outlets of a node are switched at once, and all have to be read as off. Before anything is
// believed or commanded, the device has to say that it is of the make configured (sysObjectID): on
// another one the same numbers may mean anything, or nothing. "No such outlet" is an error and
// never off.
package snmp

import (
	"context"
	"fmt"
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/link"
	"github.com/o2fence/o2fence/fencemethods/snmp/agent"
)

// Method describes this method.
func Method() fencemethods.Method {
	return fencemethods.Method{
		Name:      "snmp",
		Summary:   "switch off outlets of an APC, Eaton or Tripp Lite power strip, by SNMP",
		MemoryKiB: 4096,
		KernelKiB: link.KernelKiB,
		New:       New,
		Verify:    verify,
		Params: append(
			agent.Params(),
			fencemethods.Param{
				Name: "model", Required: true, Validate: fencemethods.OneOf(tableNames()...),
				Help: "kind of power strip: " + strings.Join(tableNames(), ", "),
			},
			fencemethods.Param{
				Name: "outlets", Required: true, Identity: true, List: true, Validate: validOutlets,
				Help: "outlets of the node, such as 3 or 3,4; 2:3 is outlet 3 of the second device of a chain",
			},
		),
	}
}

func verify(v fencemethods.Values) *fencemethods.ParamError {
	if err := agent.Verify(v); err != nil {
		return err
	}
	return verifyOutlets(v)
}

// New makes the device and its socket; it sends nothing.
func New(_ fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	t, ok := findTable(v["model"])
	if !ok {
		return nil, fmt.Errorf("no model %q", v["model"])
	}
	numbers, err := parseOutlets(v["outlets"])
	if err != nil {
		return nil, err
	}
	o := &outlets{
		table: t, numbers: numbers, states: make([]fencemethods.State, len(numbers)),
		identity: agent.Identity{Model: t.name, Made: t.made, SysName: v["sysname"]},
	}
	o.objects = o.identity.Objects()
	for _, number := range numbers {
		state, command := t.objects(number)
		o.objects = append(o.objects, state)
		o.on = append(o.on, agent.Assignment{Name: command, Value: t.setOn})
		o.off = append(o.off, agent.Assignment{Name: command, Value: t.setOff})
	}
	a, err := agent.New(v)
	if err != nil {
		return nil, err
	}
	return agent.NewDevice(a, o), nil
}

// outlets are those of one node. They satisfy agent.Switch.
type outlets struct {
	table    table
	identity agent.Identity
	numbers  []outlet
	objects  []string           // whose values are read: the identity's, and each outlet's state
	on, off  []agent.Assignment // commands, one for each outlet

	states []fencemethods.State // of each outlet, as last read
}

// Read asks how the outlets are, all in one message.
func (o *outlets) Read(ctx context.Context, a *agent.Agent, want fencemethods.State) (fencemethods.State, *agent.Failure) {
	values, f := a.Get(ctx, o.objects...)
	if f != nil {
		return fencemethods.Unknown, f
	}
	if f := o.identity.Verify(ctx, a, values); f != nil {
		return fencemethods.Unknown, f
	}
	values = values[len(o.identity.Objects()):]
	for i, value := range values {
		if agent.Missing(value) {
			return fencemethods.Unknown, noOutlet(o.numbers[i])
		}
		o.states[i] = o.table.read(value)
	}
	return together(o.states, want), nil
}

func noOutlet(o outlet) *agent.Failure {
	return &agent.Failure{
		Kind: fencemethods.ErrRefused, Detail: fmt.Sprintf("the device has no outlet %d", o.number),
		Advice: "check outlets and model",
	}
}

// together is the state of all outlets. The node is not off as long as one is on, and, for who wants
// it on, not on as long as one is off.
func together(states []fencemethods.State, want fencemethods.State) fencemethods.State {
	all, other := fencemethods.Off, fencemethods.On
	if want == fencemethods.On {
		all, other = other, all
	}
	for _, s := range states {
		if s == other {
			return other
		}
		if s != all {
			all = fencemethods.Unknown
		}
	}
	return all
}

// Command switches all outlets with one message. A device that does not obey, or declines, then gets
// one message for each: some look at nothing but a message's first object.
func (o *outlets) Command(ctx context.Context, a *agent.Agent, want fencemethods.State, n int) *agent.Failure {
	commands := o.off
	if want == fencemethods.On {
		commands = o.on
	}
	if n == 0 || len(commands) == 1 {
		f := a.Set(ctx, commands...)
		if f == nil || f.Kind != fencemethods.ErrRefused || len(commands) == 1 {
			return f
		}
	}
	var last *agent.Failure
	for i, command := range commands {
		if o.states[i] == want {
			continue
		}
		if f := a.Set(ctx, command); f != nil {
			last = f
		}
	}
	return last
}

// MayCommand asks whether each outlet's command may be given.
func (o *outlets) MayCommand(ctx context.Context, a *agent.Agent) *agent.Failure {
	for _, command := range o.off {
		if f := a.MayWrite(ctx, command.Name); f != nil {
			return f
		}
	}
	return nil
}
