// SPDX-License-Identifier: GPL-2.0-only

package pressure

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/pressure/wire"
	"github.com/o2fence/o2fence/test/vm"
)

const testTime = 4 * time.Minute

func TestAFenceEndsTheDeadlock(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	c := vm.TestCluster(t, vm.ClusterConfig{Nodes: Nodes, Machine: Machine})
	s, err := New(ctx, c, Config{Dir: filepath.Dir(c.Nodes[0].LogPath()), Files: 3000})
	check(t, err)
	t.Cleanup(func() { s.Close() })
	check(t, s.Start(ctx))
	check(t, s.Measure(ctx))
	check(t, s.Work(ctx))
	check(t, s.Freeze(ctx))
	stuck, err := s.AwaitStuck(ctx)
	check(t, err)
	t.Logf("stuck: %+v\n%s", stuck, s.Stack())
	if s.Victim.PowerState() != vm.Paused {
		t.Fatal("the victim is off too early")
	}

	// Only now does the victim's BMC obey, and only that ends it.
	s.Release()
	err = s.AwaitFree(ctx)
	for _, m := range s.Samples() {
		t.Logf("%+v", m)
	}
	check(t, err)
	if s.Victim.PowerState() != vm.Off {
		t.Error("it has ended, and the victim is not off")
	}
	for _, fault := range Faults(s.Survivor) {
		t.Error(fault)
	}
	s.Survivor.ClearKernelFaults()
	s.Ask(wire.End)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
