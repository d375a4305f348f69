// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/fencemethods/catalog"
)

func TestTheBudgetIsForAllNodesAtOnce(t *testing.T) {
	ipmi, err := catalog.Find("ipmi")
	if err != nil {
		t.Fatal(err)
	}
	node := config.Node{Steps: []config.Step{{Method: "ipmi"}, {Method: "ipmi"}, {Method: "watchdog"}}}
	cluster := &config.Cluster{Nodes: []config.Node{node, node}}
	got, err := budget(&config.Config{Clusters: []*config.Cluster{cluster, cluster}})
	if err != nil {
		t.Fatal(err)
	}
	const nodes, devices = 4, 8
	want := memsafe.Budget{
		KernelKiB: ownKernelKiB + devices*ipmi.ReserveKiB(),
		HeapKiB:   ownHeapKiB + nodes*stackKiB*heapPerStack + devices*ipmi.MemoryKiB,
		Threads:   threads,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
