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
const testTime = 6 * time.Minute

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
