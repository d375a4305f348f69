// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sliceKiB is how much of a ballast is taken at a time: so little that the reserve does not miss it
	// until kswapd has made up for it.
	sliceKiB = 256

	// dropPages is how many pages are dropped at a time. The kernel gathers what it frees in a list on its
	// stack, of eight (MMU_GATHER_BUNDLE), and asks for a page for the next list when that is all but full.
	dropPages = 6

	refillEvery = 100 * time.Millisecond

	// madvDontNeedLocked drops the pages of locked memory too (madvise(2), since Linux 5.18).
	madvDontNeedLocked = 24
)

// A Ballast is memory that a daemon holds only to drop it when others must not wait for memory either.
// OCFS2's recovery starts a kernel thread. When kthreadd has no memory for it, it reclaims some, and
// may then wait for a lock that only this recovery frees, for ever, although the node has long been
// fenced. With the ballast's pages free it need not reclaim. That is no guarantee: whoever comes
// first gets them. But those who want memory are mostly stuck by then.
type Ballast struct {
	reserve Reserve
	dropped chan struct{} // holds one

	memory []byte
	held   atomic.Int64 // bytes of it that are there, from the beginning
}

// TakeBallast takes kib KiB, for as long as the process lives. Refill has to run, in a goroutine of its
// own.
func TakeBallast(kib int, r Reserve) (*Ballast, error) {
	memory, err := unix.Mmap(-1, 0, kib<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		err = unix.Madvise(memory, madvDontNeedLocked) // as it will be: better to know now
	}
	if err != nil {
		return nil, fmt.Errorf("memsafe: a ballast of %d KiB: %w", kib, err)
	}
	b := &Ballast{reserve: r, dropped: make(chan struct{}, 1), memory: memory}
	for !b.full() {
		b.take(func() bool { return false })
	}
	return b, nil
}

// take touches the pages of the next slice, one after another, until somebody is busy or has dropped all.
func (b *Ballast) take(busy func() bool) {
	held := b.held.Load()
	page := int64(os.Getpagesize())
	for end := min(held+sliceKiB<<10, int64(len(b.memory))); held < end && !busy(); held += page {
		b.memory[held] = 1
		if !b.held.CompareAndSwap(held, held+page) {
			return
		}
	}
}

// Drop gives all of it back. It cannot wait for memory because the kernel only takes the pages out of
// the page tables; the mapping stays as it is. Nor does it wait for Refill, which may be touching a page.
func (b *Ballast) Drop() {
	held := int(b.held.Swap(0))
	if held == 0 {
		return // nor is the kernel asked to look for what is not there
	}
	page := os.Getpagesize()
	held = min(held+page, len(b.memory)) // with the one that is being touched
	for at := 0; at < held; at += dropPages * page {
		_ = unix.Madvise(b.memory[at:min(at+dropPages*page, held)], madvDontNeedLocked) // it did not fail at first
	}
	select {
	case b.dropped <- struct{}{}:
	default:
	}
}

// Held is how much there is to drop, in KiB.
func (b *Ballast) Held() int { return int(b.held.Load() >> 10) }

func (b *Ballast) full() bool { return b.Held() == len(b.memory)>>10 }

// Refill takes the ballast again after it was dropped and this time has passed, slowly, and never of the
// reserve: as long as no more is free than that, memory is still short, and it waits as long again. It
// asks for nothing while a fence is under way, which busy tells. It returns when ctx ends.
func (b *Ballast) Refill(ctx context.Context, after time.Duration, busy func() bool) {
	for {
		select {
		case <-b.dropped:
		case <-ctx.Done():
			return
		}
		pause := after
		for !b.full() {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			pause = after
			if !busy() && b.isThere() {
				b.take(busy)
				pause = refillEvery
			}
		}
	}
}

// isThere tells whether a slice can be taken without touching the reserve.
func (b *Ballast) isThere() bool {
	reserved, err := b.reserve.read()
	var info unix.Sysinfo_t
	if err != nil || unix.Sysinfo(&info) != nil {
		return false
	}
	return info.Freeram*uint64(info.Unit)>>10 >= uint64(reserved+2*sliceKiB)
}
