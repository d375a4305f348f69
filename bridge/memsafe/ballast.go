// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sliceKiB is how much of a ballast is taken at a time: so little that the reserve does not miss it
	// until kswapd has made up for it.
	sliceKiB = 256

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

	mu     sync.Mutex
	memory []byte
	held   int // bytes of it that are there, from the beginning
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
		b.take()
	}
	return b, nil
}

// take touches the pages of the next slice.
func (b *Ballast) take() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for end := min(b.held+sliceKiB<<10, len(b.memory)); b.held < end; b.held += os.Getpagesize() {
		b.memory[b.held] = 1
	}
}

// Drop gives all of it back. It cannot wait for memory because the kernel only takes the pages out of
// the page tables; the mapping stays as it is.
func (b *Ballast) Drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = unix.Madvise(b.memory, madvDontNeedLocked) // it did not fail at first
	b.held = 0
	select {
	case b.dropped <- struct{}{}:
	default:
	}
}

// Held is how much there is to drop, in KiB.
func (b *Ballast) Held() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held >> 10
}

func (b *Ballast) full() bool { return b.Held() == len(b.memory)>>10 }

// Refill takes the ballast again after it was dropped and this time has passed, slowly, and never of the
// reserve: as long as no more is free than that, memory is still short, and it waits as long again. It
// returns when ctx ends. It is not on the path.
func (b *Ballast) Refill(ctx context.Context, after time.Duration) {
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
			if b.isThere() {
				b.take()
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
