// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/fencemethods/catalog"
)

const (
	// ownKernelKiB is for what is not a device's: 2.5 MiB that may wait in the bridge's own socket
	// (kernel.OpenBridge has the sum), an answer of at most 2 KiB with its bookkeeping for each of
	// 255 nodes, and a dump of the nodes when power is restored.
	ownKernelKiB = 4096

	// ownHeapKiB is the same for Go's heap: a node powered on again, messages on standard error.
	ownHeapKiB = 2048

	// stackKiB is how deep a worker's stack is from the start. The deepest methods are those that
	// do TLS. One that needs more grows once, in the heap, and never again.
	stackKiB = 32
	// A stack that has grown to the next power of two leaves its smaller ones behind.
	heapPerStack = 4

	// threads may be blocked in system calls at a time: the one that receives, one that answers, one
	// that asks whether a node is settled, one that logs.
	threads = 4
)

// budget is what the configured nodes need when all of them are fenced at once. It is static: the
// kernel asks for one attempt for each node at a time, and each method declares what one Device
// may take. (R19.3)
func budget(cfg *config.Config) (memsafe.Budget, error) {
	b := memsafe.Budget{KernelKiB: ownKernelKiB, HeapKiB: ownHeapKiB, Threads: threads}
	for _, c := range cfg.Clusters {
		for _, n := range c.Nodes {
			b.HeapKiB += stackKiB * heapPerStack
			for _, s := range n.Steps { // each member of a level has a goroutine
				b.HeapKiB += len(s.Members) * stackKiB * heapPerStack
			}
			for _, s := range n.Devices() {
				if setup.IsKernel(s.Method) {
					continue
				}
				m, err := catalog.Find(s.Method)
				if err != nil {
					return b, err
				}
				b.HeapKiB += m.MemoryKiB
				b.KernelKiB += m.ReserveKiB()
			}
		}
	}
	return b, nil
}
