// SPDX-License-Identifier: GPL-2.0-only

package service

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/fencemethods/catalog"
)

func TestTheBudgetIsForAllNodesAtOnce(t *testing.T) {
	ipmi, err := catalog.Methods().Find("ipmi")
	if err != nil {
		t.Fatal(err)
	}
	own := memsafe.Budget{KernelKiB: 1, HeapKiB: 2, Threads: 3}
	step := config.Step{Method: "ipmi"}
	node := config.Node{Steps: []config.Step{
		step, {Method: "ipmi+ipmi", Level: config.All, Members: []config.Step{step, step}}, {Method: "watchdog"},
	}}
	cluster := &config.Cluster{Nodes: []config.Node{node, node}}
	got, err := Budget(own, &config.Config{Clusters: []*config.Cluster{cluster, cluster}})
	if err != nil {
		t.Fatal(err)
	}
	const nodes, devices, members = 4, 12, 8
	want := memsafe.Budget{
		KernelKiB: own.KernelKiB + devices*ipmi.ReserveKiB(),
		HeapKiB:   own.HeapKiB + (nodes+members)*stackKiB*heapPerStack + devices*ipmi.MemoryKiB,
		Threads:   own.Threads,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
