// SPDX-License-Identifier: GPL-2.0-only

// Package cluster tests o2fence on real OCFS2: machines that share a disk, die, hang and come back,
// and BMCs that switch them off.
package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/rig"
	"github.com/o2fence/o2fence/test/vm"
)

// A protected cluster, up and watched.
type cluster struct {
	*rig.Rig
	t      *testing.T
	events []*rig.Events // of each node
}

// testTime is more than any of the tests takes; one that hangs has to end too.
const testTime = 3 * time.Minute

// start brings up n nodes with o2fence in all of them.
func start(t *testing.T, n int, cfg rig.Config) *cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	c := vm.TestCluster(t, vm.ClusterConfig{Nodes: n})
	dir := filepath.Join(filepath.Dir(c.Nodes[0].LogPath()), "bmc")
	check(t, os.MkdirAll(dir, 0o755))
	r, err := rig.New(ctx, c, dir, cfg)
	check(t, err)
	t.Cleanup(func() { r.Close() })
	check(t, c.Start(ctx))
	check(t, c.All(func(m *vm.VM) error { return r.Protect(ctx, m) }))
	cl := &cluster{Rig: r, t: t}
	for _, m := range c.Nodes {
		check(t, r.Watched(ctx, m, numbers(n)...))
		e, err := r.Follow(ctx, m)
		check(t, err)
		cl.events = append(cl.events, e)
	}
	return cl
}

func numbers(n int) []uint32 {
	var all []uint32
	for i := range n {
		all = append(all, uint32(i))
	}
	return all
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await returns node by's event of that name about node of.
func (c *cluster) await(by int, event string, of uint32) rig.Event {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), testTime)
	defer cancel()
	e, err := c.events[by].Await(ctx, event, of)
	check(c.t, err)
	return e
}

// evicted waits until stock OCFS2 in a node has dropped another.
func (c *cluster) evicted(by, of int) vm.Line {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), testTime)
	defer cancel()
	pattern := regexp.MustCompile(fmt.Sprintf("o2dlm has evicted node %d ", of))
	line, _, err := c.Nodes[by].Console().Await(ctx, 0, pattern)
	check(c.t, err)
	return line
}

// evictedAfter fails the test when stock OCFS2 has dropped the node before it was fenced.
func (c *cluster) evictedAfter(fenced rig.Event, nodes ...int) {
	c.t.Helper()
	for _, by := range nodes {
		if line := c.evicted(by, int(fenced.Node)); line.Time.Before(fenced.HostTime) {
			c.t.Errorf("node%d evicted node%d before it was fenced", by, fenced.Node)
		}
	}
}

// fencedNobody fails the test when a node has made a request.
func (c *cluster) fencedNobody(nodes ...int) {
	c.t.Helper()
	for _, n := range nodes {
		if i := slices.IndexFunc(c.events[n].All(), func(e rig.Event) bool { return e.Request != 0 }); i >= 0 {
			c.t.Errorf("node%d has fenced: %+v", n, c.events[n].All()[i])
		}
	}
}

// powered tells whether a node's power is as it should be.
func (c *cluster) powered(n int, want vm.PowerState) {
	c.t.Helper()
	if got := c.Nodes[n].PowerState(); got != want {
		c.t.Errorf("node%d is %s, want %s", n, got, want)
	}
}

// off leaves a fenced node off, so that a test can look at it.
const off = "\tthen = off\n"

func TestAHungNodeIsPoweredOffBeforeItsLocksAreRecovered(t *testing.T) {
	c := start(t, 3, rig.Config{Missed: 3, Cluster: off})
	check(t, c.Nodes[2].Pause(t.Context()))
	c.await(0, "silent", 2)
	initiated := c.await(0, "initiated", 2)
	if initiated.Method != "ipmi" {
		t.Errorf("initiated by %s", initiated.Method)
	}
	fenced := c.await(0, "fenced", 2)
	c.powered(2, vm.Off)
	exit, err := c.Nodes[2].Wait(t.Context())
	check(t, err)
	if exit.Time.After(fenced.HostTime) {
		t.Errorf("FENCED at %v, the power went off at %v", fenced.HostTime, exit.Time)
	}
	c.await(0, "notice", 2)
	for _, by := range []int{0, 1} {
		if line := c.evicted(by, 2); line.Time.Before(fenced.HostTime) {
			t.Errorf("node%d evicted node2 before it was fenced", by)
		}
	}
	c.fencedNobody(1)
}

func TestACleanLeaveFencesNobody(t *testing.T) {
	c := start(t, 3, rig.Config{Missed: 3, Cluster: off})
	check(t, c.Unmount(t.Context(), c.Nodes[2]))
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	for _, m := range c.Nodes[:2] {
		check(t, c.Watched(ctx, m, 0, 1))
	}
	// As long again as it takes to find a node silent: now it would have been.
	c.beats(0, 5)
	c.fencedNobody(0, 1, 2)
	c.powered(2, vm.Running)
	if s, err := c.Status(ctx, c.Nodes[2]); err != nil || len(s.Regions) != 0 {
		t.Errorf("the node that left still watches: %+v, %v", s, err)
	}
	if _, err := c.Ctl(ctx, c.Nodes[2], "leave"); err != nil {
		t.Error(err)
	}
}

func TestTheNextNodeFinishesWhenTheFencerDies(t *testing.T) {
	c := start(t, 4, rig.Config{Missed: 3, Cluster: off, Slow: true})
	check(t, c.Nodes[3].Pause(t.Context()))
	c.await(0, "initiated", 3) // node 3's BMC takes its time, and before it has answered …
	c.Nodes[0].PowerOff()
	c.release()
	for _, dead := range []uint32{0, 3} {
		c.await(1, "notice", dead)
		c.powered(int(dead), vm.Off)
	}
	c.evicted(2, 0)
	c.evicted(2, 3)
	c.fencedNobody(2)
}

func TestAnUnreachableBMCLeavesItToTheWatchdog(t *testing.T) {
	// The BMC is given a day, of which it gets what is left until the watchdog can be believed.
	c := start(t, 3, rig.Config{Cluster: off + "\ttimeout_ms = 86400000\n\tuntil = watchdog\n"})
	check(t, c.BMCs[2].Close())
	// It powers itself off, and its BMC with it: what a power cut looks like.
	c.Nodes[2].PowerOff()
	failed := c.await(0, "attempt_failed", 2)
	if failed.Method != "ipmi" || failed.Errno == 0 {
		t.Errorf("the failed attempt is %+v", failed)
	}
	fenced := c.await(0, "fenced", 2)
	if fenced.Method != "watchdog" || fenced.Attempt != 2 {
		t.Errorf("fenced by %s, attempt %d", fenced.Method, fenced.Attempt)
	}
	silent := c.await(0, "silent", 2)
	// Not before the node's own limit: 62 s from its last heartbeat, of which 5 periods had passed.
	if took := fenced.HostTime.Sub(silent.HostTime); took < 48*time.Second {
		t.Errorf("the watchdog believed in the node's end after %v", took)
	}
	c.await(0, "notice", 2)
	c.evictedAfter(fenced, 0, 1)
}

// Stock OCFS2 buries a node 62 to 66 s after its last heartbeat, by when both looked last. This fence is
// to end after that, and within half of missed x period_ms: 20 s until the node is silent, and 47 s more.
func TestTheGateHoldsRecoveryUntilTheFence(t *testing.T) {
	c := start(t, 3, rig.Config{Missed: 10, Cluster: off + "\ttimeout_ms = 47000\n"})
	check(t, c.BMCs[2].Close())
	c.Nodes[2].PowerOff()
	c.await(0, "gate_held", 2)
	fenced := c.await(0, "fenced", 2)
	c.await(0, "gate_released", 2)
	c.evictedAfter(fenced, 0, 1)
}

func TestTwoNodesThatDieAtOnceAreBothFenced(t *testing.T) {
	c := start(t, 4, rig.Config{Missed: 3, Cluster: off})
	for _, n := range []int{2, 3} {
		check(t, c.Nodes[n].Pause(t.Context()))
	}
	for _, n := range []uint32{2, 3} {
		c.await(0, "notice", n)
		c.powered(int(n), vm.Off)
		c.evicted(1, int(n))
	}
	c.fencedNobody(1)
}

func TestANodeThatIsAloneIsProtected(t *testing.T) {
	c := start(t, 1, rig.Config{Cluster: off})
	c.fencedNobody(0)
}

func TestAMinorityFencesNobody(t *testing.T) {
	c := start(t, 3, rig.Config{Missed: 3, Cluster: off})
	for _, n := range []int{0, 1} {
		check(t, c.Nodes[n].Pause(t.Context()))
	}
	for _, n := range []uint32{0, 1} {
		c.await(2, "not_ours", n)
	}
	c.beats(2, 3)
	c.fencedNobody(2)
	for _, n := range []int{0, 1} {
		c.powered(n, vm.Paused)
	}
}

func TestOfTwoNodesTheHigherOneWaitsBeforeItFences(t *testing.T) {
	c := start(t, 2, rig.Config{Missed: 3, Cluster: off + "\tfence_delay_ms = 4000\n"})
	check(t, c.Nodes[0].Pause(t.Context()))
	// Three heartbeats make it silent; the delay is two more of 2 s.
	if e := c.await(1, "started", 0); !strings.HasPrefix(e.Reason, "missed 5 heartbeats") {
		t.Errorf("it was fenced because it %s", e.Reason)
	}
	c.await(1, "notice", 0)
	c.powered(0, vm.Off)
}

func TestANodeThatCameBackIsNotFenced(t *testing.T) {
	c := start(t, 3, rig.Config{Missed: 3, Cluster: off, Slow: true})
	ctx := t.Context()
	check(t, c.Nodes[2].Pause(ctx))
	c.await(0, "initiated", 2)
	// It resets itself while its BMC has not yet carried the command out: another incarnation.
	check(t, c.Nodes[2].Reset(ctx))
	check(t, c.Nodes[2].Ready(ctx))
	check(t, c.Online(ctx, c.Nodes[2]))
	check(t, c.Mount(ctx, c.Nodes[2]))
	obsolete := c.await(0, "obsolete", 2)
	if obsolete.Errmsg != "a new incarnation is there" {
		t.Errorf("obsolete because %q", obsolete.Errmsg)
	}
	c.release()
	c.powered(2, vm.Running)
	if slices.ContainsFunc(c.events[0].All(), func(e rig.Event) bool { return e.Event == "fenced" }) {
		t.Error("it was fenced")
	}
}

func TestANodeIsPoweredOnAgainAfterItsFence(t *testing.T) {
	c := start(t, 3, rig.Config{Missed: 3, Cluster: "\tthen_delay_ms = 1000\n"})
	check(t, c.Nodes[2].Pause(t.Context()))
	c.await(0, "notice", 2)
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	check(t, c.PoweredOn(ctx, c.Nodes[2]))
}

// beats waits until a node has written so many heartbeats more.
func (c *cluster) beats(by, n int) {
	c.t.Helper()
	const script = `dd if=/dev/vda bs=512 count=1 skip=$1 iflag=direct status=none | od -An -tu8 -N8`
	ctx, cancel := context.WithTimeout(c.t.Context(), testTime)
	defer cancel()
	regions, err := c.Nodes[by].Run(ctx, "sh", "-c", "cat /sys/kernel/config/cluster/*/heartbeat/*/start_block /sys/kernel/config/cluster/*/heartbeat/*/block_bytes")
	check(c.t, err)
	var block, size int
	_, err = fmt.Sscan(regions, &block, &size)
	check(c.t, err)
	last := ""
	for n > 0 {
		seq, err := c.Nodes[by].Run(ctx, "sh", "-c", script, "sh", fmt.Sprint(block*size/512+by*size/512))
		check(c.t, err)
		if last != "" && seq != last {
			n--
		}
		last = seq
		time.Sleep(200 * time.Millisecond)
	}
}

// release lets the slow BMCs carry out what they were told.
func (c *cluster) release() { c.Rig.Release() }

func TestABridgeThatDiesMovesItsFenceOnAndComesBack(t *testing.T) {
	c := start(t, 3, rig.Config{Missed: 3, Cluster: off, Slow: true, Fence: "\tmethod = manual\n"})
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	node0 := c.Nodes[0]
	check(t, c.Nodes[2].Pause(ctx))
	c.await(0, "initiated", 2)
	_, err := node0.Run(ctx, "pkill", "-KILL", "-x", "o2fenced")
	check(t, err)
	failed := c.await(0, "attempt_failed", 2)
	if failed.Errmsg != "the bridge is gone" {
		t.Errorf("the attempt failed with %q", failed.Errmsg)
	}

	// The next method asks an administrator, and only for as long as he has not answered.
	_, err = c.Ctl(ctx, node0, "confirm", "node2", "--reason", "it is frozen, and I hold its plug")
	check(t, err)
	c.Nodes[2].PowerOff()
	fenced := c.await(0, "fenced", 2)
	if fenced.Method != "manual" || fenced.Errmsg != "root@node0: it is frozen, and I hold its plug" {
		t.Errorf("fenced by %s: %q", fenced.Method, fenced.Errmsg)
	}
	c.await(0, "notice", 2)
	if _, err := c.Ctl(ctx, node0, "confirm", "node2", "--reason", "again"); err == nil {
		t.Error("a second confirmation is taken")
	}

	// A new bridge binds the methods again and carries the next fence.
	c.release()
	_, err = c.StartBridge(ctx, node0)
	check(t, err)
	check(t, c.Nodes[1].Pause(ctx))
	if e := c.await(0, "fenced", 1); e.Method != "ipmi" {
		t.Errorf("node1 is fenced by %s", e.Method)
	}
	c.powered(1, vm.Off)
}
