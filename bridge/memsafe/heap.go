// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"math"
	"runtime"
	"runtime/debug"
)

const (
	pageBytes     = 8 << 10  // of Go's heap
	smallMaxBytes = 32 << 10 // larger objects have spans of their own
	spanMaxBytes  = 80 << 10 // of the spans that small objects share
	pointerBytes  = 8
)

// GrowHeap leaves at least kib KiB of free heap behind, and some 12 MiB more that making the runtime
// ready takes. An allocation within that cannot wait for memory because the kernel is not asked: the
// collector runs when Collect is called and never by itself, not even after its two minutes (which
// the runtime leaves out when the collector is off), and what is free stays with the program (see
// Collect). GOGC and GOMEMLIMIT of the environment are overruled. No limit takes their place that could
// start the collector on the path, or end the daemon there; the bound is what the daemon declares.
//
// It is called once, after LockMemory: then nothing needs to be touched, for the mmap that grows the
// heap populates it. Without that it has no effect worth having.
//
// What the runtime keeps about the heap has to grow as well, to where it can need no more: a span
// for each page; for each size of object lists of spans, which begin when a span is full; and two
// bits for each object, of which there are most when all are single pointers. Lists take turns from
// one collection to the next, bits live through three: four rounds see them all.
func GrowHeap(kib int) {
	runtime.MemProfileRate = 0 // a profile takes memory of its own for each new call path
	debug.SetMemoryLimit(math.MaxInt64)
	debug.SetGCPercent(-1)
	for range 4 {
		for size := pointerBytes; size <= smallMaxBytes; size = nextSize(size) {
			litter(size, spanMaxBytes/size+1)
		}
		litter(pointerBytes, kib<<10/pointerBytes/2)
		Collect()
	}
}

// nextSize is the next larger size of object that the allocator has.
func nextSize(size int) int { return cap(append([]byte(nil), make([]byte, size+1)...)) }

// litter allocates n objects of a size without pointers and n full of pointers, and drops them.
func litter(size, n int) {
	var plain []byte
	var pointers []*byte
	for range n {
		plain = make([]byte, size)
		pointers = make([]*byte, max(size/pointerBytes-1, 1)) // large ones have a hidden header
	}
	runtime.KeepAlive(plain)
	runtime.KeepAlive(pointers)
}

// Collect frees what the daemon has dropped. Call it after Lock, whenever nothing is under way, and
// often enough that no more than Budget.HeapKiB is allocated in between. It stops the program, for
// a time that grows with the budget and with what is live: some milliseconds.
//
// The freed memory stays with the program. The runtime's scavenger would give it back, from a locked
// mapping by unmapping it, and the kernel would be asked for it again. But it leaves the heap alone
// as long as that is no larger than what was in use at the last collection and a tenth more
// (the rule is at the top of runtime/mgcscavenge.go; with the collector off its two goals are
// equal). So the heap is filled up before it is collected. The collector itself may now and then
// map a page or two for lists of its own.
func Collect() {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	kept := stats.HeapSys - stats.HeapReleased
	var page []byte
	for used := stats.HeapInuse; used < kept/16*15; used += pageBytes {
		page = make([]byte, pageBytes)
	}
	runtime.KeepAlive(page)
	runtime.GC()
}
