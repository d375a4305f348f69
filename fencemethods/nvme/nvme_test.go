// SPDX-License-Identifier: GPL-2.0-only

package nvme

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/fencemethods/reserve"
)

const (
	space1 = "uuid.123e4567-e89b-12d3-a456-426614174000"
	space2 = "eui.0025385b71b0e2a1"
)

func newHost(number uint8, spaces ...*fake) *host {
	h := &host{number: number, spaces: map[string]*fake{}}
	for _, f := range spaces {
		h.spaces[f.wwid] = f
	}
	return h
}

func (h *host) open(name string) ([]bus, error) {
	if f := h.spaces[name]; f != nil {
		return []bus{&handle{host: h, space: f}}, nil
	}
	return nil, nil
}

func (h *host) device(t *testing.T, node uint8, persist string) fencemethods.Device {
	t.Helper()
	var names []string
	for name := range h.spaces {
		names = append(names, name)
	}
	d, err := method(h.open).Open(
		fencemethods.Target{Cluster: "web", Node: node, Name: "victim", Member: true, From: h.number},
		map[string]string{"namespaces": strings.Join(names, ","), "persist": persist})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func (h *host) writes() bool {
	for _, f := range h.spaces {
		if f.writes(h) {
			return true
		}
	}
	return false
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func pair(t *testing.T, spaces ...*fake) (a, b *host) {
	t.Helper()
	a, b = newHost(1, spaces...), newHost(2, spaces...)
	for _, h := range []*host{a, b} {
		if err := h.device(t, h.number, "yes").On(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

func wantError(t *testing.T, err, kind error, text string) {
	t.Helper()
	e, ok := errors.AsType[*fencemethods.Error](err)
	if !ok || !errors.Is(err, kind) || !strings.Contains(err.Error(), text) || e.Advice == "" {
		t.Errorf("%v; want %v with %q", err, kind, text)
	}
}

func wantState(t *testing.T, d fencemethods.Device, want fencemethods.State) {
	t.Helper()
	if got, err := d.Status(within(t, 2*time.Second)); got != want {
		t.Errorf("Status = %v, %v; want %v", got, err, want)
	}
}

func TestAFencedNodeWritesNoMore(t *testing.T) {
	a, b := pair(t, &fake{wwid: space1, wide: true}, &fake{wwid: space2})
	d := a.device(t, 2, "yes")
	if err := d.Check(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	wantState(t, d, fencemethods.On)
	if err := d.Off(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if b.writes() || !a.writes() {
		t.Fatalf("FALSE SUCCESS: the fenced node writes %v, the other one %v", b.writes(), a.writes())
	}
	if n := a.spaces[space1].aborted; n != 1 {
		t.Errorf("its commands were ended %d times", n)
	}
	wantState(t, d, fencemethods.Off)
	wantError(t, d.On(within(t, time.Minute)), fencemethods.ErrUnsupported, "by itself")
	wantError(t, b.device(t, 1, "yes").Off(within(t, time.Minute)), fencemethods.ErrRefused, "was fenced itself")
	if err := b.device(t, 2, "yes").On(within(t, time.Minute)); err != nil || !b.writes() {
		t.Errorf("back: %v; it writes: %v", err, b.writes())
	}
}

// Such as that of the same node under another Host Identifier: it has that key still, and writes.
func TestAKeyOfWhoKnowsWhomProvesNothing(t *testing.T) {
	f := &fake{wwid: space1}
	a, b := pair(t, f)
	f.hosts = append(f.hosts, registered{b, 7})
	d := a.device(t, 2, "yes")
	wantError(t, d.Check(within(t, time.Minute)), fencemethods.ErrRefused, "keys that are none of this cluster's")
	wantError(t, d.Off(within(t, time.Minute)), fencemethods.ErrRefused, "keys that are none of this cluster's")
	if !b.writes() {
		t.Error("the fake is wrong")
	}
	wantState(t, d, fencemethods.Unknown)
}

// A host that has another key there, of an earlier cluster, gets ours.
func TestAKeyOfBeforeIsReplaced(t *testing.T) {
	f := &fake{wwid: space1}
	a := newHost(1, f)
	f.hosts = []registered{{a, 7}}
	if err := a.device(t, 1, "yes").On(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if f.hosts[0].key != reserve.KeyOf("web", 1) {
		t.Errorf("its key is %v", f.hosts[0].key)
	}
}

// As two machines of one image: the key of the second would take the place of the first one's, which would be
// fenced then at once, and go on writing.
func TestTwoNodesWithOneIdentifierAreFound(t *testing.T) {
	f := &fake{wwid: space1}
	a := newHost(1, f)
	if err := a.device(t, 1, "yes").On(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	b := &host{number: 2, spaces: a.spaces}
	d, err := method(a.open).Open(
		fencemethods.Target{Cluster: "web", Node: 2, Name: "web2", Member: true, From: 2}, map[string]string{"namespaces": space1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	wantError(t, d.On(within(t, time.Minute)), fencemethods.ErrRefused, "as node 1")
	if f.hosts[0].key != reserve.KeyOf("web", 1) {
		t.Errorf("its key is %v", f.hosts[0].key)
	}
	if err := b.device(t, 2, "yes").On(within(t, time.Minute)); err != nil { // with an identifier of its own
		t.Error(err)
	}
}

func TestAKeyThatIsMissingProvesNothingWithoutAReservation(t *testing.T) {
	f := &fake{wwid: space1}
	a, b := pair(t, f)
	f.hosts, f.kind = f.hosts[:1], 0
	d := a.device(t, 2, "yes")
	wantState(t, d, fencemethods.On)
	wantError(t, d.Off(within(t, time.Minute)), fencemethods.ErrRefused, "no reservation")
	if !b.writes() {
		t.Error("the fake is wrong")
	}
	for kind := byte(1); kind <= 6; kind++ {
		if f.kind = kind; kind != allRegistrants {
			wantState(t, d, fencemethods.Unknown)
			wantError(t, d.Off(within(t, time.Minute)), fencemethods.ErrRefused, "not Write Exclusive - All Registrants")
		}
	}
}

func TestWhatTheStorageCannotDoIsSaid(t *testing.T) {
	f := &fake{wwid: space1, noPersist: true}
	a := newHost(1, f)
	wantError(t, a.device(t, 1, "yes").On(within(t, time.Minute)), fencemethods.ErrRefused, "does not keep reservations")
	if err := a.device(t, 1, "no").On(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	wantError(t, a.device(t, 2, "yes").Off(within(t, time.Minute)), fencemethods.ErrRefused, "end with the storage's power")
	if err := a.device(t, 2, "no").Off(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	a.fault = func(c *command) (status, bool) { return statusOpcode, c.opcode == opReport }
	wantError(t, a.device(t, 2, "no").Off(within(t, time.Minute)), fencemethods.ErrRefused, "does not know reservations")
}

func TestAnotherNamespaceIsRefused(t *testing.T) {
	f := &fake{wwid: space1}
	a, b := pair(t, f)
	d := a.device(t, 2, "yes")
	f.wwid = space2
	wantError(t, d.Off(within(t, time.Minute)), fencemethods.ErrRefused, "another namespace")
	if !b.writes() {
		t.Error("the node was fenced by a namespace that is not its own")
	}
}

func TestOffIsProven(t *testing.T) {
	var mu sync.Mutex
	hosts := map[string]*host{}
	m := method(func(name string) ([]bus, error) {
		mu.Lock()
		defer mu.Unlock()
		return hosts[name].open(name)
	})
	open := m.New
	m.New = func(t fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
		t.Member = true // node 0
		return open(t, v)
	}
	start := func(machines []*fencetest.Machine) (peers []fencetest.Peer) {
		mu.Lock()
		defer mu.Unlock()
		f := &fake{wwid: fmt.Sprintf("eui.%016x", len(hosts)+1), kind: allRegistrants, lasting: true}
		own := newHost(0, f)
		hosts[f.wwid] = own
		f.hosts = []registered{{own, reserve.KeyOf("c", 0)}}
		owner := map[reserve.Key]*fencetest.Machine{}
		for _, each := range machines {
			h, key := newHost(each.Node(), f), reserve.KeyOf("c", each.Node())
			f.hosts, owner[key] = append(f.hosts, registered{h, key}), each
			peers = append(peers, fencetest.Peer{Params: map[string]string{"namespaces": f.wwid}, Running: h.writes})
		}
		f.deaf = func(theirs reserve.Key) bool {
			_ = owner[theirs].SetOn(false)
			on, err := owner[theirs].On()
			return on || err != nil
		}
		f.broken = func() bool {
			broken := false
			f.hosts = slices.DeleteFunc(f.hosts, func(r registered) bool {
				machine := owner[r.key]
				if machine == nil {
					return false
				}
				on, err := machine.On()
				broken = broken || err != nil
				return err == nil && !on
			})
			return broken
		}
		return peers
	}
	fencetest.Run(t, fencetest.Harness{
		Method: m,
		Peer:   "a namespace of the tests' own",
		Skip:   map[string]string{"off and on again": "only the node itself can register again: TestAFencedNodeWritesNoMore"},
		Start: func(_ *testing.T, machine *fencetest.Machine) fencetest.Peer {
			return start([]*fencetest.Machine{machine})[0]
		},
		Together: func(_ *testing.T, machines []*fencetest.Machine) []fencetest.Peer { return start(machines) },
		Crowd:    "registrations with one namespace",
	})
}

func TestBadParametersAreRefused(t *testing.T) {
	for _, c := range []struct{ key, value, text string }{
		{"namespaces", "/dev/nvme0n1", "is no disk"},
		{"namespaces", "eui.0025", "is no disk"},
		{"namespaces", "uuid.123e4567-e89b-12d3-a456-42661417400", "is no disk"},
		{"namespaces", "uuid.123e4567e89b-12d3-a456-4266-14174000", "is no disk"},
		{"namespaces", space2 + "," + space2, "twice"},
		{"persist", "1", "yes, no"},
		{"namespace", space1, `did you mean "namespaces"?`},
	} {
		p := map[string]string{"namespaces": space1}
		p[c.key] = c.value
		_, err := Method().Parse(p)
		e, ok := errors.AsType[*fencemethods.ParamError](err)
		if !ok || e.Key != c.key || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
	}
}

// openStill opens a device whose one path is a namespace that answers from fixed texts.
func openStill(t *testing.T, f *still) fencemethods.Device {
	t.Helper()
	f.id = identification(space1)
	f.reports = [2][]byte{reportOf(1), reportOf(1, 2)}
	d, err := method(func(string) ([]bus, error) { return []bus{f}, nil }).Open(
		fencemethods.Target{Cluster: "web", Node: 2, Member: true, From: 1}, map[string]string{"namespaces": space1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestAFenceAllocatesNothing(t *testing.T) {
	f := &still{}
	d, ctx := openStill(t, f), within(t, time.Minute)
	if n := testing.AllocsPerRun(100, func() {
		f.theirs = true
		if err := d.Off(ctx); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("a fence allocates %v times", n)
	}
}

// A namespace that takes every order and does not obey costs a failure with each try.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	d := openStill(t, &still{theirs: true, deaf: true})
	_ = d.Off(within(t, 200*time.Millisecond)) // which has costs that do not come again
	fencetest.WithinBudget(t, Method(), 0, 2*time.Second, d.Off)
}

// A still is a namespace that answers from fixed texts, without allocating.
type still struct {
	data    [bufferLen]byte
	id      []byte
	reports [2][]byte
	theirs  bool
	deaf    bool // takes orders, and does not obey
}

func (f *still) name() string   { return "nvme0n1" }
func (f *still) buffer() []byte { return f.data[:] }
func (f *still) close() error   { return nil }

func (f *still) send(c *command) (status, error) {
	switch {
	case c.opcode == opIdentify:
		copy(c.data, f.id)
	case c.opcode == opAcquire:
		f.theirs = f.deaf
	case f.theirs:
		copy(c.data, f.reports[1])
	default:
		copy(c.data, f.reports[0])
	}
	return statusGood, nil
}

// reportOf is the report of 128-bit hosts on which these nodes are registered.
func reportOf(nodes ...uint8) []byte {
	f := &fake{kind: allRegistrants, lasting: true, wide: true}
	for _, n := range nodes {
		f.hosts = append(f.hosts, registered{nil, reserve.KeyOf("web", n)})
	}
	c := &command{opcode: opReport, dw11: extended, data: make([]byte, 64*(1+len(nodes)))}
	f.report(c)
	return c.data
}

func FuzzDecode(f *testing.F) {
	f.Add(identification(space1), true)
	f.Add(reportOf(1, 2), true)
	f.Add(make([]byte, 24), false)
	f.Fuzz(func(t *testing.T, p []byte, long bool) {
		isNamespace(p, space1)
		table, ok := readReport(p, long, reserve.KeyOf("web", 1), reserve.KeyOf("web", 2))
		if !ok && table != (reserve.Table{}) || table.Right && !table.Held || 24*(table.Mine+table.Theirs+table.Foreign) > len(p) {
			t.Errorf("%+v, %v of %x", table, ok, p)
		}
	})
}

// A namespace that no controller leads to cannot be opened: that is one that is missing, and keeps nobody
// from starting.
func TestANamespaceThatIsDeadAtTheStartIsMissing(t *testing.T) {
	root := t.TempDir()
	const wwid = "uuid.5e0f0000-0000-4000-8000-000000000001"
	for name, text := range map[string]string{"wwid": wwid + "\n", "dev": "259:0\n"} {
		file := filepath.Join(root, "sys/block/nvme0n1", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644), os.MkdirAll(root+"/dev", 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	socket, err := net.Listen("unix", root+"/dev/nvme0n1") // to open it is refused as that of a dead one
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if found, err := (sysfs{root}).open(wwid); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
}
