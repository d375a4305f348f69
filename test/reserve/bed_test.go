// SPDX-License-Identifier: GPL-2.0-only

// Package reserve tests the methods that reserve disks, in virtual machines: one serves the disks, over
// iSCSI by tgt and by the kernel's own target (LIO), over NVMe/TCP by the kernel's nvmet, to two others.
package reserve

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods/reserve"
	"github.com/o2fence/o2fence/test/vm"
)

// testTime is more than all of it takes; one that hangs has to end too.
const testTime = 3 * time.Minute

const await = `
	await() { n=0; until "$@"; do n=$((n+1)); [ $n -lt 600 ] || { echo "never: $*" >&2; return 1; }; sleep 0.1; done; }
	ip link set lo up
`

// machines are a storage and two nodes, which boot.
func machines(t *testing.T) (c *vm.Cluster, storage, a, b *machine) {
	t.Helper()
	c = vm.TestCluster(t, vm.ClusterConfig{Nodes: 3})
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	for _, m := range c.Nodes {
		if err := m.PowerOn(ctx); err != nil { // they boot meanwhile
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "guest")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var all []*machine
	for i, m := range c.Nodes {
		all = append(all, &machine{t, m, ctx, program, i})
	}
	return c, all[0], all[1], all[2]
}

type machine struct {
	*testing.T
	*vm.VM
	ctx   context.Context
	guest string // the program
	node  int
}

// of is the machine for a subtest.
func (m *machine) of(t *testing.T) *machine { return &machine{t, m.VM, m.ctx, m.guest, m.node} }

func (m *machine) sh(script string) string {
	m.Helper()
	return vm.Sh(m.ctx, m.T, m.VM, script)
}

// A bed is two nodes and a kind of disks that they share.
type bed struct {
	*testing.T
	a, b   *machine
	method string
	params []string
	disks  []string // a device file of each, the same on both nodes
	paths  int      // to each disk, of each node
	// opinion asks another program which keys are registered and what the reservation is.
	opinion func(disk string) (keys, kind string)
	kind    string // what it calls the right reservation
	forgets bool   // the storage does not keep a reservation whose maker is fenced
}

// operate has a node do something with the other one's device, or with its own.
func (s *bed) operate(m *machine, operation string, node int) (string, error) {
	s.Helper()
	args := append([]string{m.guest, s.method, operation, strconv.Itoa(m.node), strconv.Itoa(node)}, s.params...)
	out, err := m.VM.Run(m.ctx, args...)
	return strings.TrimSpace(out), err
}

func (s *bed) must(m *machine, operation string, node int) string {
	s.Helper()
	out, err := s.operate(m, operation, node)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

func (s *bed) mustFail(m *machine, operation string, node int, text string) {
	s.Helper()
	if _, err := s.operate(m, operation, node); err == nil || !strings.Contains(err.Error(), text) {
		s.Errorf("%s of node %d: %v; want %q", operation, node, err, text)
	}
}

// registered asks for a second opinion: whether the nodes are registered, by all paths to all disks.
func (s *bed) registered(a, b bool) {
	s.Helper()
	for _, disk := range s.disks {
		keys, kind := s.opinion(disk)
		for node, is := range map[int]bool{s.a.node: a, s.b.node: b} {
			want := 0
			if is {
				want = s.paths
			}
			key := strings.TrimPrefix(reserve.KeyOf(vm.ClusterName, uint8(node)).String(), "0x")
			if got := strings.Count(keys, key); got != want {
				s.Errorf("%s: there are %d registrations of node %d, want %d:\n%s", disk, got, node, want, keys)
			}
		}
		if !strings.Contains(kind, s.kind) {
			s.Errorf("%s: another reservation:\n%s", disk, kind)
		}
	}
}

// A writer writes to a disk until that fails.
type writer struct {
	process *vm.Process
	out     bytes.Buffer
	disk    string
}

// write has the second node write to all disks, and waits until the first sees it.
func (s *bed) write() []*writer {
	s.Helper()
	var all []*writer
	for _, disk := range s.disks {
		w := &writer{disk: disk}
		s.a.sh("dd if=/dev/zero of=" + disk + " bs=4096 count=1 oflag=direct status=none")
		var err error
		if w.process, err = s.b.Start(s.b.ctx, vm.Command{Args: []string{s.b.guest, "write", disk}, Stdout: &w.out}); err != nil {
			s.Fatal(err)
		}
		for s.read(disk) == 0 {
		}
		all = append(all, w)
	}
	return all
}

func (s *bed) read(disk string) uint64 {
	s.Helper()
	n, err := strconv.ParseUint(s.a.sh(s.a.guest+" read "+disk), 10, 64)
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// fence is the point of it all: once it is said that the node is fenced, nothing of it is written.
func (s *bed) fence() {
	s.Helper()
	writers := s.write()
	s.must(s.a, "off", s.b.node)
	var then []uint64
	for _, w := range writers {
		then = append(then, s.read(w.disk))
	}
	for i, w := range writers {
		if err := w.process.Wait(s.b.ctx); err != nil {
			s.Fatal(err)
		}
		var last uint64
		var why string
		// EBADE is a reservation conflict, EIO a write that was under way and was ended.
		if _, err := fmt.Sscan(w.out.String(), &last, &why); err != nil || why != "EBADE" && why != "EIO" {
			s.Errorf("%s: the writer says %q", w.disk, w.out.String())
		}
		if now := s.read(w.disk); now != then[i] || now < last {
			s.Errorf("FALSE SUCCESS: %s: %d when it was fenced, %d later, %d was taken", w.disk, then[i], now, last)
		}
		s.Logf("%s: %d writes were taken, the next was declined", w.disk, last)
	}
}

func (s *bed) run() {
	s.mustFail(s.a, "check", s.b.node, "has no key there")
	s.must(s.a, "on", s.a.node)
	s.must(s.b, "on", s.b.node)
	s.registered(true, true)
	s.must(s.a, "check", s.b.node)
	if state := s.must(s.a, "status", s.b.node); state != "on" {
		s.Errorf("a node that is registered is %s", state)
	}
	s.fence()
	s.registered(true, false)
	if state := s.must(s.a, "status", s.b.node); state != "off" {
		s.Errorf("a node that is fenced is %s", state)
	}
	s.must(s.a, "off", s.b.node)
	s.mustFail(s.b, "off", s.a.node, "was fenced itself")
	s.registered(true, false)
	s.must(s.b, "on", s.b.node)
	s.registered(true, true)
	if s.forgets {
		return
	}
	// The reservation outlives the one that has made it.
	s.must(s.b, "off", s.a.node)
	s.registered(false, true)
	s.must(s.a, "on", s.a.node)
	s.registered(true, true)
	s.fence()
}
