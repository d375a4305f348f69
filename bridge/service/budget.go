// SPDX-License-Identifier: GPL-2.0-only

package service

import (
	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/fencemethods/catalog"
)

const (
	// stackKiB is how deep a worker's stack is from the start. The deepest methods are those that
	// do TLS. One that needs more grows once, in the heap, and never again.
	stackKiB = 32
	// A stack that has grown to the next power of two leaves its smaller ones behind.
	heapPerStack = 4
)

// Budget adds to what a daemon needs for itself what the configured nodes need when all of them are
// fenced at once. It is static: there is one attempt for each node at a time, and each method declares
// what one Device may take. (R19.3)
func Budget(own memsafe.Budget, cfg *config.Config) (memsafe.Budget, error) {
	b := own
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
				m, err := catalog.Methods().Find(s.Method)
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
