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
	"slices"
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

	// Together starts what fences many machines at once, where that is one device, or a few, for all, as
	// with power strips or a shared disk; it makes a Peer for each, of which only Params count. Where it is
	// nil each machine has a server of its own.
	Together func(t *testing.T, machines []*Machine) []Peer

	// Crowd says, for the table, what a hundred of are used at once, such as "ipmi_sims".
	Crowd string

	// Many is how many nodes are fenced at once where there cannot be a hundred, and Fewer why.
	Many  int
	Fewer string

	// Peer names what the method is tried against, for the table of results.
	Peer string

	// Theirs says that the method is somebody else's program, which has an exit code and no more: of
	// its errors nothing is asked but that they are not success.
	Theirs bool

	// Slow says that programs have to be run, which takes seconds where a packet takes none.
	Slow bool

	// Serial runs the cases one after another.
	Serial bool

	// hurry is what each of a hundred nodes is given instead, for the suite's own tests.
	hurry time.Duration

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

	// Nowhere makes, by case, parameters that name an outlet, port or slot that the device has not.
	Nowhere func(testing.TB) map[string]map[string]string
	// Foreign makes, by case, parameters that lead to a device of another kind or make.
	Foreign func(testing.TB) map[string]map[string]string
	// Refuse makes parameters that lead to a device that refuses all commands, where the machine's own
	// refusal says nothing.
	Refuse func(testing.TB) map[string]string
	// Forge has somebody else say that the machine is off, where that does not come by the wire.
	Forge func()
	// Running asks the machine whether it runs, where it is a real one and not the Machine.
	Running func() bool

	// Stream says that the wire is a wire.Stream: no stranger is heard on it.
	Stream bool
	// Sealed says that whatever is put into a connection ends it, as with TLS. A fault in every
	// answer then cannot be survived, only not be believed.
	Sealed bool
}

// patience is for what has to succeed: only a hang takes that long.
func (x *trial) patience() time.Duration {
	if x.harness.Slow {
		return time.Minute
	}
	return 20 * time.Second
}

// short is for what has to fail, which takes all of it.
func (x *trial) short() time.Duration {
	if x.harness.Slow {
		return 30 * time.Second // more than the 20 for which fence-agents wait for the power to go
	}
	return 2 * time.Second
}

// A trial is one case: a machine that is on, its device server and the device under test.
type trial struct {
	*testing.T
	harness Harness
	machine *Machine
	peer    Peer
	device  fencemethods.Device
}

// Run runs the suite; its subtests are the cases. Attributes of the tests say what test/conformance
// makes its table of.
func Run(t *testing.T, h Harness) {
	t.Attr("method", h.Method.Name)
	if h.Peer != "" {
		t.Attr("peer", h.Peer)
	}
	if h.Theirs {
		t.Attr("theirs", "yes")
	}
	for name := range h.Skip {
		if !slices.Contains(Cases(), name) {
			t.Errorf("no case %q to skip", name)
		}
	}
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			t.Attr("case", c.name)
			if why := h.Skip[c.name]; why != "" {
				(&trial{T: t}).Skip(why)
			}
			if c.place == beside && !h.Serial {
				t.Parallel()
			}
			if c.place == crowd {
				h.noteCrowd(t)
				c.run(&trial{T: t, harness: h})
				return
			}
			c.run(newTrial(t, h))
		})
	}
}

// Cases are the names of all cases, in the order in which a table has them.
func Cases() []string {
	var names []string
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// Skip says why, for the table too.
func (x *trial) Skip(why string) {
	x.Helper()
	x.Attr("reason", why)
	x.T.Skip(why)
}

func newTrial(t *testing.T, h Harness) *trial {
	x := &trial{T: t, harness: h, machine: newMachine(1)}
	x.peer = h.Start(t, x.machine)
	x.device = x.open(nil)
	return x
}

// open makes another device for the peer, some of whose parameters are others.
func (x *trial) open(others map[string]string) fencemethods.Device {
	x.Helper()
	params := maps.Clone(x.peer.Params)
	maps.Copy(params, others)
	d, err := x.harness.Method.Open(x.machine.Target(), params)
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
		x.Attr("lie", "yes")
		x.Error("FALSE SUCCESS: the machine was never off")
	}
	return err
}

func (x *trial) mustOff() {
	x.Helper()
	if err := x.off(x.device, x.patience()); err != nil {
		x.Fatal(err)
	}
}

func (x *trial) mustStatus(want fencemethods.State) {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), x.patience())
	defer cancel()
	state, err := x.device.Status(ctx)
	if state != want || err != nil {
		x.Fatalf("Status = %v, %v; want %v", state, err, want)
	}
}

// mustNotFence fences in vain: the error has to be of that kind, or of any.
func (x *trial) mustNotFence(d fencemethods.Device, kind error) {
	x.Helper()
	right := func(err error) bool { return err == nil || x.harness.Theirs || x.isKind(err, kind) }
	x.mustFail(EnoughTime(x.T, x.short(), right, func(ctx context.Context) error { return x.offContext(ctx, d) }), kind)
}

// isKind tells whether an error is of that kind. A program that is killed at the deadline had not answered.
func (x *trial) isKind(err, kind error) bool {
	killed := x.harness.Slow && kind == fencemethods.ErrNotOff && errors.Is(err, fencemethods.ErrTimeout)
	return kind == nil || errors.Is(err, kind) || killed
}

// mustFail checks what is true of every error: its kind, that it says what to do, fits the wire,
// has a number, and gives no secret away. A nil kind stands for any.
func (x *trial) mustFail(err, kind error) {
	x.Helper()
	if err == nil {
		want := "an error"
		if kind != nil {
			want = kind.Error()
		}
		x.Errorf("no error, want: %s", want)
		return
	}
	if x.harness.Theirs {
		return
	}
	if !x.isKind(err, kind) {
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
