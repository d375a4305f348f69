// SPDX-License-Identifier: GPL-2.0-only

// Package fencemethods is what every way to fence a node has in common: the Method that describes
// it to a configuration, the Device that acts for one node, its parameters, secrets and errors.
//
// A method never lies: fenced means that the device was read back as off. Unknown is not off, a
// timeout is not success, and an answer to another question is no answer.
//
// The path of a fence (Off, Status) runs while memory may be short. Whatever it needs is taken when
// the Device is made: buffers, sockets, secrets. It starts no goroutine and no timer, resolves no
// name and opens no file; its only deadline is the context's. (R19)
package fencemethods

import (
	"context"
	"os"
	"time"
)

// A State is what a device says about its node's power, or about its way to the disks.
type State int

// Unknown is the zero value: nothing that was not read counts as off.
const (
	Unknown State = iota
	Off
	On
)

// String returns "unknown", "off" or "on".
func (s State) String() string {
	switch s {
	case Off:
		return "off"
	case On:
		return "on"
	default:
		return "unknown"
	}
}

// A Device fences one node. Every operation ends by its context's deadline, give or take a tenth,
// and fails with an *Error that errors.Is tells apart by the Err values of this package.
//
// A Device that Method.Open returned may be used by several goroutines; its operations then wait
// for each other. One that a method's own constructor returned serves one goroutine at a time.
type Device interface {
	// Off cuts the node off. It returns nil only after the device was read as off, at once when it
	// is off already. A node that comes back on by itself after that stays fenced: what it held in
	// memory is gone. One that was back on before it could be read as off does not count.
	Off(ctx context.Context) error

	// On undoes Off: it restores power, or lets the node back in. ErrUnsupported where the method
	// has no way back.
	On(ctx context.Context) error

	// Status asks the device. Unknown with a nil error means that the device itself cannot tell.
	Status(ctx context.Context) (State, error)

	// Check proves, without changing anything, that the device can be reached and that the
	// credentials suffice for Off.
	Check(ctx context.Context) error

	// Close gives back what the Device holds and wipes its secrets. After it, all else fails with
	// os.ErrClosed.
	Close() error
}

// A Target is the node that a Device fences.
type Target struct {
	Cluster string
	Node    uint8 // number in the cluster, 0..254
	Name    string

	// Member says that this machine is a node of the cluster itself, with the number From.
	Member bool
	From   uint8
}

// A Method is one way to fence. Package catalog lists them all. (R18)
type Method struct {
	Name    string
	Summary string // one line, for people who choose
	Params  []Param

	// Verify looks at parameters that only fit together, once each is valid by itself. It returns
	// a *ParamError that names one of them, without Method; nil takes anything.
	Verify func(Values) *ParamError

	// Blind says that Status is always Unknown: the method waits for something, and there is nothing to
	// read afterwards. So it cannot be one of several that have all to be read as off in the end.
	Blind bool

	// MemoryKiB is the Go heap in KiB that one Device may take in a minute of one operation; each
	// method's tests measure it. The bridge sets that much aside for every Device. (R21)
	MemoryKiB int

	// KernelKiB is what the kernel may hold at a time on behalf of one Device, in KiB: the buffers of
	// its sockets as SO_RCVBUF and SO_SNDBUF bound them, requests to a disk. The reserve is raised by
	// that much for every Device. 0 counts as DefaultKernelKiB. (R19.3, R21)
	KernelKiB int

	// Registers says that each node has to register itself, with the Device that has Target.From for
	// its Node, before it uses its disks. That Device's On does it, and Check tells whether it is done.
	Registers bool

	// New makes a Device from values that Parse has approved. Callers want Open.
	New func(Target, Values) (Device, error)
}

// DefaultKernelKiB is for a method that declares no KernelKiB: one UDP socket whose buffers are the
// kernel's defaults (net.core.rmem_default, wmem_default: 208 KiB each), and what is around it.
const DefaultKernelKiB = 512

// ReserveKiB is KernelKiB, or the default for it.
func (m Method) ReserveKiB() int {
	if m.KernelKiB == 0 {
		return DefaultKernelKiB
	}
	return m.KernelKiB
}

// Open makes the Device that fences target with these parameters. Parameters that do not fit give a
// *ParamError; secrets are read here, and never again.
func (m Method) Open(target Target, given map[string]string) (Device, error) {
	values, err := m.Parse(given)
	if err != nil {
		return nil, err
	}
	d, err := m.New(target, values)
	if err != nil {
		return nil, m.wrap(target, "open", err)
	}
	return &device{method: m, target: target, turn: make(chan struct{}, 1), own: d}, nil
}

// A device stands before a method's own Device: it lets one operation in at a time, refuses what
// has no deadline, and wraps errors, so that no method needs to.
type device struct {
	method Method
	target Target
	own    Device
	turn   chan struct{}
	closed bool // who has the turn may look
}

func (d *device) Off(ctx context.Context) error {
	return d.do(ctx, "off", d.own.Off)
}

func (d *device) On(ctx context.Context) error {
	return d.do(ctx, "on", d.own.On)
}

func (d *device) Check(ctx context.Context) error {
	return d.do(ctx, "check", d.own.Check)
}

func (d *device) Status(ctx context.Context) (State, error) {
	if err := d.enter(ctx); err != nil {
		return Unknown, d.method.wrap(d.target, "status", err)
	}
	defer d.leave()
	state, err := d.own.Status(ctx)
	if err != nil {
		return Unknown, d.method.wrap(d.target, "status", err)
	}
	return state, nil
}

// Close waits for the operation under way: that one has a deadline.
func (d *device) Close() error {
	d.turn <- struct{}{}
	defer d.leave()
	if d.closed {
		return nil
	}
	d.closed = true
	return d.own.Close()
}

func (d *device) do(ctx context.Context, op string, f func(context.Context) error) error {
	if err := d.enter(ctx); err != nil {
		return d.method.wrap(d.target, op, err)
	}
	defer d.leave()
	if err := f(ctx); err != nil {
		return d.method.wrap(d.target, op, err)
	}
	return nil
}

// enter waits for the turn.
func (d *device) enter(ctx context.Context) error {
	deadline, ok := ctx.Deadline()
	switch {
	case !ok:
		return ErrNoDeadline
	case ctx.Err() != nil:
		return ctx.Err()
	case time.Until(deadline) <= 0:
		return ErrTimeout
	}
	if err := d.wait(ctx); err != nil {
		return err
	}
	if d.closed {
		d.leave()
		return os.ErrClosed
	}
	return nil
}

// wait does not touch ctx.Done, which allocates a channel, in the common case: nobody is there.
func (d *device) wait(ctx context.Context) error {
	select {
	case d.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *device) leave() { <-d.turn }
