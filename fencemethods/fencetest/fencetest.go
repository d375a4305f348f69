// SPDX-License-Identifier: GPL-2.0-only

// Package fencetest is the conformance suite that every method passes, against a real device server
// that is made to fail in all the ways devices do. What it is about is one sentence: no method ever
// says that a node is off which is not. Besides, errors are told apart, say what to do, and come in
// time.
package fencetest

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/test/bmc/wire"
)

// A Harness is what the suite needs to try a method.
type Harness struct {
	Method fencemethods.Method

	// Start starts a device server that switches m; it ends with the test.
	Start func(t *testing.T, m *Machine) Peer

	// Many is how many servers there are when many nodes are fenced at once.
	Many int

	// Skip has, by name, the cases that the device cannot be in, with the reason.
	Skip map[string]string
}

// A Peer is a running device server, reached through a wire that can fail. What a method does not
// have is nil, and the cases that need it are skipped.
type Peer struct {
	Params   map[string]string            // that lead to it, with patience for a lossy network
	Secret   string                       // what must not show in any text
	Wrong    map[string]map[string]string // by case: parameters that give wrong credentials
	Absent   map[string]string            // parameters that lead where nothing listens
	SetFault func(wire.Fault)             // makes its wire faulty
	Restart  func() error                 // restarts it; it forgets its sessions

	// Stream says that the wire is a wire.Stream: no stranger is heard on it.
	Stream bool
	// Sealed says that whatever is put into a connection ends it, as with TLS. A fault in every
	// answer then cannot be survived, only not be believed.
	Sealed bool
}

const (
	patience = 20 * time.Second // for what has to succeed: only a hang takes that long
	short    = 2 * time.Second  // for what has to fail, which takes all of it
)

// A trial is one case: a machine that is on, its device server and the device under test.
type trial struct {
	*testing.T
	harness Harness
	machine *Machine
	peer    Peer
	device  fencemethods.Device
}

// Run runs the suite; its subtests are the cases.
func Run(t *testing.T, h Harness) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			if why := h.Skip[c.name]; why != "" {
				t.Skip(why)
			}
			if !c.alone {
				t.Parallel()
			}
			c.run(newTrial(t, h))
		})
	}
}

func newTrial(t *testing.T, h Harness) *trial {
	x := &trial{T: t, harness: h, machine: newMachine()}
	x.peer = h.Start(t, x.machine)
	x.device = x.open(nil)
	return x
}

// open makes another device for the peer, some of whose parameters are others.
func (x *trial) open(others map[string]string) fencemethods.Device {
	x.Helper()
	params := maps.Clone(x.peer.Params)
	maps.Copy(params, others)
	d, err := x.harness.Method.Open(fencemethods.Target{Cluster: "c", Node: 1, Name: "node1"}, params)
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(func() { d.Close() })
	return d
}

// off fences the node. Whatever the case is about, a nil error is believed only of a machine that
// was off meanwhile.
func (x *trial) off(d fencemethods.Device, timeout time.Duration) error {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), timeout)
	defer cancel()
	return x.offContext(ctx, d)
}

func (x *trial) offContext(ctx context.Context, d fencemethods.Device) error {
	x.Helper()
	before := x.machine.record()
	err := d.Off(ctx)
	if after := x.machine.record(); err == nil && before.on && after.offs == before.offs {
		x.Error("FALSE SUCCESS: the machine was never off")
	}
	return err
}

func (x *trial) mustOff() {
	x.Helper()
	if err := x.off(x.device, patience); err != nil {
		x.Fatal(err)
	}
}

func (x *trial) mustStatus(want fencemethods.State) {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), patience)
	defer cancel()
	state, err := x.device.Status(ctx)
	if state != want || err != nil {
		x.Fatalf("Status = %v, %v; want %v", state, err, want)
	}
}

// mustFail checks what is true of every error: its kind, that it says what to do, fits the wire,
// has a number, and gives no secret away. A nil kind stands for any.
func (x *trial) mustFail(err, kind error) {
	x.Helper()
	if err == nil {
		x.Fatalf("no error, want %v", kind)
	}
	if kind != nil && !errors.Is(err, kind) {
		x.Errorf("%v: want %v", err, kind)
	}
	if e, ok := errors.AsType[*fencemethods.Error](err); !ok || e.Method == "" || e.Advice == "" {
		x.Errorf("%v: does not say who failed, or what to do", err)
	}
	if len(err.Error()) > 255 {
		x.Errorf("%v: %d bytes do not fit the wire", err, len(err.Error()))
	}
	if fencemethods.Errno(err) == 0 {
		x.Errorf("%v: has no errno", err)
	}
	if x.peer.Secret != "" && strings.Contains(err.Error(), x.peer.Secret) {
		x.Errorf("%v: gives the secret away", err)
	}
}
