// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// A Budget is what a daemon declares that it will need while it must not wait for memory: the bound
// that R19 asks for.
type Budget struct {
	// KernelKiB is what the kernel may have to allocate at a time on the daemon's behalf: buffers of
	// its sockets, requests to its disks. The reserve is raised by it.
	KernelKiB int

	// HeapKiB is what may be allocated between two calls of Collect, stacks of goroutines
	// included: they live in the same heap. It is allocated beforehand, not reserved.
	HeapKiB int

	// Threads is how many goroutines may be blocked in system calls at a time. Each then needs an
	// operating system thread, which is made of kernel memory.
	Threads int
}

// Lock takes all steps that come after Enter, in their order, and is called once: SpareFromOOM,
// NoDump, LockMemory, StartThreads, GrowHeap, RealTime. After an error the daemon must not serve.
//
// The daemon's own memory is best allocated before, and its service offered afterwards. Nothing of it
// has to be undone at exit: all but the reserve is a property of the process and ends with it.
func Lock(b Budget, overrun func()) error {
	if b.HeapKiB < 0 || b.Threads < 0 {
		return step(ErrBudget, "declare how much is needed", fmt.Errorf("%d KiB of heap, %d threads", b.HeapKiB, b.Threads))
	}
	for _, take := range []func() error{SpareFromOOM, NoDump, LockMemory} {
		if err := take(); err != nil {
			return err
		}
	}
	// Since 1.25 Go looks once a second whether its share of the processors has changed, by system
	// calls that allocate. It does not when it was told a number.
	runtime.GOMAXPROCS(runtime.NumCPU())
	StartThreads(b.Threads)
	GrowHeap(b.HeapKiB)
	return RealTime(overrun)
}

// SpareFromOOM sets oom_score_adj to -1000. The daemon cannot wait for the memory of a process that
// the OOM killer ends because that process is never this one: memory that is short for all must not be
// won by killing the daemon that is needed to free it. Processes that it starts inherit it. It needs
// CAP_SYS_RESOURCE; the error is ErrOOM.
func SpareFromOOM() error {
	return step(ErrOOM, "run it as root, with CAP_SYS_RESOURCE, or set OOMScoreAdjust=-1000 in its unit",
		os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0))
}

// NoDump makes the process undumpable (PR_SET_DUMPABLE 0, RLIMIT_CORE 0). Its end cannot wait for
// memory because no core is written: that would be a write of all its memory, to a disk that may be
// stuck, while the kernel waits to be told that the daemon is gone. The locked memory holds
// passwords, too, and ptrace of other users is kept away. The error is ErrDump.
func NoDump() error {
	err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		err = fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	} else if err = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		err = fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	return step(ErrDump, "let it call prctl and setrlimit", err)
}

// LockMemory is mlockall(MCL_CURRENT|MCL_FUTURE). An access cannot wait for memory because every page
// of program, libraries, stacks and heap is there, is never given up, and pages mapped later are
// populated by the mmap itself, which fails rather than leaving some out. It is not MCL_ONFAULT: then
// the first touch would ask for the page, on the path. The stacks of Go's threads are in its heap, but
// for the first thread's, of which Go uses 64 KiB at most and the kernel maps twice that at exec.
//
// The memory has no huge pages that were not there at the start (PR_SET_THP_DISABLE): to make one
// of small ones, khugepaged takes them away for as long as it copies them. Migration for the sake of
// others does the same with single pages (vm.compact_unevictable_allowed, kernel.numa_balancing):
// then an access may wait until one page is copied, to memory that the migration has already.
//
// It needs CAP_IPC_LOCK, or RLIMIT_MEMLOCK without a limit. The error is ErrLock.
func LockMemory() error {
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		return step(ErrLock, "let it call prctl", fmt.Errorf("PR_SET_THP_DISABLE: %w", err))
	}
	err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE)
	if err != nil {
		err = fmt.Errorf("mlockall: %w", err)
	}
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EAGAIN) {
		return step(ErrLock, "raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity), or add memory", err)
	}
	return step(ErrLock, "run it as root, with CAP_IPC_LOCK", err)
}

// spareThreads are those that the runtime starts for itself: one takes signals, one starts threads
// on behalf of others that are locked.
const spareThreads = 2

// StartThreads starts as many operating system threads as there will be when n goroutines are blocked
// in system calls. A call that blocks cannot wait for memory because the thread that carries on with
// the other goroutines exists: the runtime takes an idle one before it makes one (startm in
// runtime/proc.go), and never ends one that is idle. A new one would be clone(2): a kernel stack, a
// task_struct and more. An m that is made has its stacks, for Go code and for signals, in the heap.
//
// The number of threads that run Go code at a time is fixed to what it is: since 1.25 the runtime
// would read the cgroup's limit again every second, and might start more. The collector's own workers
// are goroutines, which the first collection starts (GrowHeap makes several).
func StartThreads(n int) {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	startThreads(n + runtime.GOMAXPROCS(0) + spareThreads)
}

// A goroutine that is locked to its thread keeps it while it waits, so n of them need n threads.
func startThreads(n int) {
	var started, ended sync.WaitGroup
	release := make(chan struct{})
	for range n {
		started.Add(1)
		ended.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			started.Done()
			<-release
		})
	}
	started.Wait()
	close(release)
	ended.Wait()
}
