// SPDX-License-Identifier: GPL-2.0-only

package service

import "runtime/metrics"

// A Sweeper collects garbage when nothing is under way, and when there is any. To collect takes the
// processor for many times as long as a fence, and an order that comes meanwhile waits for it: nodes
// often die one shortly after the other. The dispatcher itself leaves no garbage, so that with
// methods that allocate nothing there is nothing to collect.
//
// What the runtime counts is short of what was allocated from memory that it has set aside for small
// objects already: that needs no more of the heap, which is what the budget is about.
type Sweeper struct {
	leftKiB   uint64
	collect   func()
	allocated [1]metrics.Sample
	before    uint64 // what allocated was after the last collection
}

// NewSweeper makes one that leaves up to leftKiB KiB be. It reads once, for the first time takes memory
// of its own.
func NewSweeper(leftKiB int, collect func()) *Sweeper {
	s := &Sweeper{leftKiB: uint64(leftKiB), collect: collect}
	s.allocated[0].Name = "/gc/heap/allocs:bytes"
	s.before = s.read()
	return s
}

func (s *Sweeper) read() uint64 {
	metrics.Read(s.allocated[:])
	return s.allocated[0].Value.Uint64()
}

// Sweep is for dispatch.Options.Idle, which calls it from one goroutine.
func (s *Sweeper) Sweep() {
	if s.read()-s.before < s.leftKiB<<10 {
		return
	}
	s.collect()
	s.before = s.read()
}
