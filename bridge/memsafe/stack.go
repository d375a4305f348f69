// SPDX-License-Identifier: GPL-2.0-only

package memsafe

const frameBytes = 1 << 10

// GrowStack grows the calling goroutine's stack by at least kib KiB, for good when Enter has started
// the program. A call, however deep within that, cannot wait for memory because the stack is there. It
// begins with 8 KiB or what the runtime has found usual, and to grow is to allocate twice as much and
// copy: from the heap, which is prepared, but a bound that depends on who calls whom is none. And
// the collector would shrink what was grown; hence gcshrinkstackoff.
//
// A goroutine of the path calls it before it serves. The stack becomes the next power of two, and
// what it was is garbage: count four times kib in Budget.HeapKiB for each.
func GrowStack(kib int) { descend(kib << 10 / frameBytes) }

//go:noinline
func descend(frames int) byte {
	var frame [frameBytes]byte
	if frames > 0 {
		frame[frames%frameBytes] = descend(frames - 1)
	}
	return frame[frames/2%frameBytes]
}
