// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// A Budget is what a daemon declares that it will need while it must not wait for memory. It is
// the bound that R19 asks for, and what the kernel's reserve has to be raised by.
type Budget struct {
	// HeapKiB is what may be allocated between two calls of Collect, stacks of goroutines
	// included: they live in the same heap.
	HeapKiB int

	// Threads is how many goroutines may be blocked in system calls at a time. Each then needs an
	// operating system thread, which is made of kernel memory.
	Threads int
}

// Lock allocates all working memory, locks it, and keeps it. Call it once, after Enter and after
// the daemon's own memory has been allocated, and before it offers its service. It needs root, or
// CAP_IPC_LOCK and CAP_SYS_RESOURCE. After an error the daemon must not serve. The steps:
//
//   - oom_score_adj -1000: memory that is short for all must not be won by killing the daemon that
//     is needed to free it.
//   - No core dumps (PR_SET_DUMPABLE 0, RLIMIT_CORE 0): the locked memory holds passwords, and a
//     dump is a large write in a bad moment. It also keeps ptrace of other users away.
//   - mlockall(MCL_CURRENT|MCL_FUTURE): no page of program, libraries, stacks or heap is ever
//     given up or read in again; pages mapped later are populated by the mmap itself. Not
//     MCL_ONFAULT: the first touch would ask for the page on the path.
//   - Threads are started beforehand, as many as can be blocked and running at a time. Go's runtime
//     keeps idle ones for ever.
//   - The collector runs when Collect is called, and never by itself: GOGC and GOMEMLIMIT of the
//     environment are overruled. No limit takes their place that could start it on the path, or
//     end the daemon there; the bound is what the daemon declares.
//   - The heap grows to hold the budget, and never shrinks; Collect says why.
func Lock(b Budget) error {
	if err := shield(); err != nil {
		return err
	}
	return occupy(b)
}

func shield() error {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		return fmt.Errorf("memsafe: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("memsafe: PR_SET_DUMPABLE: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("memsafe: RLIMIT_CORE: %w", err)
	}
	return nil
}

func occupy(b Budget) error {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		return fmt.Errorf("memsafe: mlockall: %w", err)
	}
	startThreads(b.Threads + runtime.GOMAXPROCS(0))
	growHeap(b.HeapKiB)
	return nil
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
