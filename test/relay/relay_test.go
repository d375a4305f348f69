// SPDX-License-Identifier: GPL-2.0-only

// Package relay tests a fencing node: OCFS2 nodes that cannot reach their BMCs, and a machine of its
// own that can, mounts nothing, and fences for them.
package relay

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/rig"
	"github.com/o2fence/o2fence/test/vm"
)

// window is for how long the relay is watched: several times what a fence takes. What it takes of the
// reserve adds up meanwhile, and is given back.
const window = 40 * time.Second

// testTime is more than the test takes; one that hangs has to end too.
const testTime = 4 * time.Minute

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNodesThatCannotReachTheirBMCsAreFencedByARelay(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	const nodes = 3
	var like vm.Config
	c := vm.TestCluster(t, vm.ClusterConfig{Nodes: nodes, Machine: func(_ int, c *vm.Config) { like = *c }})
	fencer := newFencer(ctx, t, like)
	r := newRig(ctx, t, c, fencer.Address())

	booted := make(chan error, 1)
	go func() { booted <- fencer.Boot(ctx) }()
	check(t, c.Start(ctx))
	check(t, <-booted)
	startRelay(ctx, t, r, fencer)

	var events []*rig.Events
	check(t, c.All(func(m *vm.VM) error { return r.Protect(ctx, m) }))
	for _, m := range c.Nodes {
		check(t, r.Watched(ctx, m, 0, 1, 2))
		cutOff(ctx, t, m)
		e, err := r.Follow(ctx, m)
		check(t, err)
		events = append(events, e)
	}
	if out, err := r.Ctl(ctx, c.Nodes[0], "check"); err != nil {
		t.Errorf("the relay does not check: %v\n%s", err, out)
	}

	node := watch(ctx, t, r, c.Nodes[0], "--comm", "o2fenced", "--claim", "64", "--within", "2m")
	relay := watch(ctx, t, r, fencer, "--comm", "o2fence-relay", "--claim", "256", "--for", window.String())
	began := time.Now()
	fencesAHungNode(ctx, t, r, events[0])
	if time.Since(began) > window {
		t.Error("the relay was not watched until the fence")
	}
	node.isBounded(ctx, t)
	tellsWhatWentWrong(ctx, t, r, events[0])
	relay.isBounded(ctx, t)
}

// newFencer makes the machine that is none of the cluster's: on its network, without its disk.
func newFencer(ctx context.Context, t *testing.T, like vm.Config) *vm.VM {
	t.Helper()
	like.Name, like.Disks = "fencer", nil
	like.Address = netip.MustParsePrefix("10.77.0.5/24")
	m, err := vm.New(ctx, like)
	check(t, err)
	t.Cleanup(func() {
		m.Close()
		for _, fault := range m.KernelFaults() {
			t.Errorf("%s: kernel fault: %s", m.Name(), fault)
		}
	})
	return m
}

func newRig(ctx context.Context, t *testing.T, c *vm.Cluster, relay netip.Addr) *rig.Rig {
	t.Helper()
	dir := filepath.Join(filepath.Dir(c.Nodes[0].LogPath()), "bmc")
	check(t, os.MkdirAll(dir, 0o755))
	r, err := rig.New(ctx, c, dir, rig.Config{
		Missed: 3, Cluster: "\tthen = off\n", Fence: "\ttimeout_ms = 8000\n", Relay: relay,
	})
	check(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

// startRelay starts the relay twice: without the module, where it says which rule it cannot keep, and
// with it, to stay.
func startRelay(ctx context.Context, t *testing.T, r *rig.Rig, m *vm.VM) {
	t.Helper()
	check(t, r.InstallRelay(ctx, m))
	without, err := r.StartRelay(ctx, m)
	check(t, err)
	if said := without.Said(); !strings.Contains(said, "all memory rules are kept but PF_MEMALLOC") {
		t.Errorf("without the module it says\n%s", said)
	}
	keepsTheRules(ctx, t, m, false)
	check(t, without.Signal(syscall.SIGTERM))
	if err := without.Wait(ctx); err != nil {
		t.Errorf("told to end: %v\n%s", err, without.Said())
	}
	check(t, r.LoadCore(ctx, m))
	with, err := r.StartRelay(ctx, m)
	check(t, err)
	if said := with.Said(); strings.Contains(said, "PF_MEMALLOC") {
		t.Errorf("with the module it says\n%s", said)
	}
	keepsTheRules(ctx, t, m, true)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the relay said\n%s", with.Said())
		}
	})
}

// keepsTheRules looks at the relay's process.
func keepsTheRules(ctx context.Context, t *testing.T, m *vm.VM, flagged bool) {
	t.Helper()
	const look = `
		pid=$(pidof o2fence-relay)
		for task in /proc/$pid/task/*; do
			flags=$(sed 's/.*) //' $task/stat | cut -d' ' -f7)
			[ $((flags & 0x800)) != 0 ] && echo flagged || echo plain
		done | sort -u
		awk '/^VmLck/ { print ($2 > 0) ? "locked" : "unlocked" }' /proc/$pid/status
		cat /proc/$pid/oom_score_adj`
	want := "plain\nlocked\n-1000\n"
	if flagged {
		want = "flagged\nlocked\n-1000\n"
	}
	got, err := m.Run(ctx, "sh", "-c", look)
	check(t, err)
	if got != want {
		t.Errorf("the relay is\n%swant\n%s", got, want)
	}
}

// cutOff takes from a node its way to the BMCs, which are on the host.
func cutOff(ctx context.Context, t *testing.T, m *vm.VM) {
	t.Helper()
	_, err := m.Run(ctx, "ip", "link", "set", "eth1", "down")
	check(t, err)
	if out, err := m.Run(ctx, "ip", "route", "get", vm.HostAddress); err == nil {
		t.Fatalf("%s still reaches the BMCs: %s", m.Name(), out)
	}
}

func fencesAHungNode(ctx context.Context, t *testing.T, r *rig.Rig, events *rig.Events) {
	t.Helper()
	check(t, r.Nodes[2].Pause(ctx))
	initiated, err := events.Await(ctx, "initiated", 2)
	check(t, err)
	if initiated.Method != "relay" {
		t.Errorf("initiated by %s", initiated.Method)
	}
	fenced, err := events.Await(ctx, "fenced", 2)
	check(t, err)
	if fenced.Method != "relay" || fenced.Attempt != 1 || r.Nodes[2].PowerState() != vm.Off {
		t.Fatalf("fenced by %s, attempt %d; the node is %s", fenced.Method, fenced.Attempt, r.Nodes[2].PowerState())
	}
	exit, err := r.Nodes[2].Wait(ctx)
	check(t, err)
	notice, err := events.Await(ctx, "notice", 2)
	check(t, err)
	if exit.Time.After(fenced.HostTime) || exit.Time.After(notice.HostTime) {
		t.Errorf("the power went off at %v, FENCED at %v, notice at %v", exit.Time, fenced.HostTime, notice.HostTime)
	}
	t.Logf("%v from INITIATED to FENCED, through the relay", fenced.HostTime.Sub(initiated.HostTime))
}

// tellsWhatWentWrong has the relay meet a BMC that is gone.
func tellsWhatWentWrong(ctx context.Context, t *testing.T, r *rig.Rig, events *rig.Events) {
	t.Helper()
	check(t, r.BMCs[1].Close())
	check(t, r.Nodes[1].Pause(ctx))
	failed, err := events.Await(ctx, "attempt_failed", 1)
	check(t, err)
	if failed.Method != "relay" || !strings.Contains(failed.Errmsg, "unreachable: ipmi: ") {
		t.Errorf("%s failed with %q", failed.Method, failed.Errmsg)
	}
	if got := r.Nodes[1].PowerState(); got != vm.Paused {
		t.Errorf("node1 is %s", got)
	}
}
