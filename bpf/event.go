// SPDX-License-Identifier: GPL-2.0-only

package bpf

import (
	"fmt"
	"time"
	"unsafe"
)

// Kind is what an event is about. Those from Born on are notices, and have no stacks.
type Kind uint32

// The kinds, with what Value means.
const (
	Pages    = Kind(auditKindKIND_PAGES)    // from the page allocator; bytes
	Slab     = Kind(auditKindKIND_SLAB)     // from a slab; bytes, as the slab has them
	Fault    = Kind(auditKindKIND_FAULT)    // a page was not there; the address
	Map      = Kind(auditKindKIND_MAP)      // mmap or mremap: bytes; brk: the address
	File     = Kind(auditKindKIND_FILE)     // a regular file is opened (Text: which), read, written or written back
	Reclaim  = Kind(auditKindKIND_RECLAIM)  // the thread itself looks for memory, or compacts it; the order
	Wait     = Kind(auditKindKIND_WAIT)     // longer than the bound; ns inside the window
	Thread   = Kind(auditKindKIND_THREAD)   // a thread was made; its number
	Fork     = Kind(auditKindKIND_FORK)     // a process was made; its number
	Exec     = Kind(auditKindKIND_EXEC)     // a program was executed; Text is its path
	Born     = Kind(auditKindKIND_BORN)     // a process is followed as well: Value; PID is its parent
	Replaced = Kind(auditKindKIND_REPLACED) // a followed process runs another program now
	Exited   = Kind(auditKindKIND_EXITED)   // a followed process has ended
)

// Task flags of the kernel, in Event.Flags.
const (
	FlagMemalloc     = 0x00000800 // PF_MEMALLOC: may use the reserve, and never waits for memory
	FlagKernelThread = 0x00200000 // PF_KTHREAD
)

// StateUninterruptible and StateIdle are bits of a wait's state: it can not be interrupted, and it is
// not counted as load, which is how the kernel's threads wait for work.
const (
	StateUninterruptible = 0x0002
	StateIdle            = 0x0400
)

// An Event is one thing that a thread has asked of the kernel.
type Event struct {
	Kind     Kind
	At       time.Duration // CLOCK_MONOTONIC
	Value    uint64
	Window   uint32 // which one it belongs to, counted from 1; 0 before any fence
	PID, TID int
	Flags    uint32 // the task's
	GFP      uint32 // Pages, Slab, Reclaim
	State    uint32 // Wait
	Syscall  int    // the one that the thread is in, -1 for none
	Comm     string
	Text     string

	// The stacks, innermost first; at most 64 frames. Go is the goroutine's when the thread is on a stack
	// of the runtime: where it left its own, then the word at its stack pointer, then its callers.
	Kernel, User, Go []uint64
}

const wordBytes = 8

func (e *Event) decode(raw []byte) error {
	var a auditEvent
	// The layout is the compiler's on both sides: bpf2go has checked that they agree.
	if to := unsafe.Slice((*byte)(unsafe.Pointer(&a)), unsafe.Sizeof(a)); copy(to, raw) != len(to) {
		return fmt.Errorf("an event of %d bytes", len(raw))
	}
	*e = a.event()
	return nil
}

func (a *auditEvent) event() Event {
	e := Event{
		Kind: Kind(a.Kind), At: time.Duration(a.At), Value: a.Value, Window: a.Window,
		PID: int(a.Tgid), TID: int(a.Tid), Flags: a.Flags, GFP: a.Gfp, Syscall: int(a.Syscall),
		Kernel: frames(a.Kernel[:], a.KernelBytes), User: frames(a.User[:], a.UserBytes),
		Go: frames(a.Go[:], a.GoFrames*wordBytes),
	}
	if e.Kind < Born { // notices have no more than that
		e.Comm, e.Text = text(a.Comm[:]), text(a.Text[:])
	}
	if e.Kind == Wait {
		e.State, e.GFP = a.Gfp, 0
	}
	return e
}

// frames are the first bytes' worth; an error of the kernel's, which is negative, is none.
func frames(all []uint64, bytes int32) []uint64 {
	n := max(int(bytes), 0) / wordBytes
	return append([]uint64(nil), all[:min(n, len(all))]...)
}

func text(chars []int8) string {
	var b []byte
	for _, c := range chars {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}
