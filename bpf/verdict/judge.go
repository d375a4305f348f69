// SPDX-License-Identifier: GPL-2.0-only

package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/o2fence/o2fence/bpf"
	"github.com/o2fence/o2fence/bpf/symbol"
)

// Class is what is thought of an event, and of a whole audit.
type Class int

// The classes, in the order in which one outweighs another: what was seen to be forbidden stays so
// when events were lost as well.
const (
	None      Class = iota // nothing was asked for
	Aside                  // of an event only: not judged, Why says why
	Bounded                // from the reserve: it cannot wait, and it is counted
	Unknown                // of an audit only: something may have been missed
	Forbidden              // it may wait for memory, or its memory cannot be bounded
)

var classes = [...]string{"none", "aside", "bounded", "unknown", "forbidden"}

func (c Class) String() string { return classes[c] }

// MarshalText makes it a string in JSON.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

var kinds = map[bpf.Kind]string{
	bpf.Pages: "page allocation", bpf.Slab: "slab allocation", bpf.Fault: "page fault",
	bpf.Map: "mmap or brk", bpf.File: "file access", bpf.Reclaim: "direct reclaim", bpf.Wait: "long wait",
	bpf.Thread: "new thread", bpf.Fork: "fork", bpf.Exec: "exec",
}

// waiting are amd64's system calls whose purpose is to wait: for another thread, for the time, or for
// what somebody sends.
var waiting = map[int]string{
	0: "read", 7: "poll", 23: "select", 34: "pause", 35: "nanosleep", 43: "accept", 45: "recvfrom",
	47: "recvmsg", 61: "wait4", 128: "rt_sigtimedwait", 130: "rt_sigsuspend", 202: "futex",
	219: "restart_syscall", 230: "clock_nanosleep", 232: "epoll_wait", 247: "waitid", 270: "pselect6",
	271: "ppoll", 281: "epoll_pwait", 288: "accept4", 299: "recvmmsg", 441: "epoll_pwait2", 449: "futex_waitv",
}

// judge is the class of one event, and the reason in a few words.
//
// An allocation of a task in PF_MEMALLOC mode, or with __GFP_MEMALLOC, never enters reclaim: it is
// served from the reserve or fails at once. All others are forbidden, those included that cannot wait
// but are of a task that is not flagged: they fail when it matters. In an interrupt a task works for
// somebody else, and nothing there can wait. So it does in a softirq for a network card's driver, at the
// end of a system call of its own: the kernel takes the flag away for as long as that lasts.
//
// A fault means that a page was not locked; it may have to be read from a disk. A sleep that cannot
// be interrupted is one for a lock or a disk, except for a kernel thread that waits for work. One
// that can be is judged by its system call: waiting for an answer is what a fence does, waiting for
// room to write to a log is not.
func judge(e *bpf.Event, kernel []symbol.Frame, gfp *bpf.GFP) (c Class, why string) {
	flagged := e.Flags&bpf.FlagMemalloc != 0
	switch e.Kind {
	case bpf.Pages, bpf.Slab:
		switch {
		case slices.ContainsFunc(kernel, interrupt):
			return Aside, "in an interrupt, for somebody else"
		case received(kernel):
			return Aside, "in a softirq, for what a network card has received"
		case gfp.Reserve(e.GFP, flagged):
			return Bounded, "from the reserve"
		case flagged:
			return Bounded, "at first without the reserve: it fails rather than waits"
		case gfp.MayWait(e.GFP, flagged):
			return Forbidden, "not flagged: it may wait for memory"
		}
		return Forbidden, "not flagged: it fails when memory is short"
	case bpf.Fault:
		return Forbidden, "the page was not locked in memory"
	case bpf.Map:
		return Forbidden, "memory has to be there before"
	case bpf.File:
		return Forbidden, "it may wait for a disk, or a file system that waits for the fence"
	case bpf.Reclaim:
		return Forbidden, "it waits for memory"
	case bpf.Thread, bpf.Fork:
		return Forbidden, "a stack and a task have to be allocated"
	case bpf.Exec:
		return Forbidden, "a program is loaded, and its memory cannot be bounded"
	}
	return judgeWait(e)
}

func judgeWait(e *bpf.Event) (Class, string) {
	if e.Flags&bpf.FlagKernelThread != 0 && e.State&bpf.StateIdle != 0 {
		return Aside, "a thread of the kernel waits for work"
	}
	if e.State&bpf.StateUninterruptible != 0 {
		return Forbidden, "for a lock or a disk"
	}
	if call, ok := waiting[e.Syscall]; ok {
		return Aside, "in " + call + ", which is there to wait"
	}
	return Forbidden, fmt.Sprintf("in %s", syscallName(e.Syscall))
}

// received tells whether it is for packets that a network card's driver has taken in, of whoever. What
// comes by the loopback (process_backlog) may be the thread's own.
func received(kernel []symbol.Frame) bool {
	is := func(name string) bool {
		return slices.ContainsFunc(kernel, func(f symbol.Frame) bool { return f.Func == name })
	}
	return is("net_rx_action") && !is("process_backlog")
}

// interrupt tells the entries of interrupts. A softirq that a thread runs at the end of its own system
// call is not one: there it may work for itself, as on the loopback.
func interrupt(f symbol.Frame) bool {
	for _, entry := range []string{"asm_common_interrupt", "asm_sysvec_", "asm_exc_nmi", "irq_exit_rcu"} {
		if strings.HasPrefix(f.Func, entry) {
			return true
		}
	}
	return false
}
