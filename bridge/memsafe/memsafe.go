// SPDX-License-Identifier: GPL-2.0-only

// Package memsafe keeps a daemon from ever waiting for memory.
//
// A daemon that the kernel needs in order to write out dirty pages (a fencing bridge, an iSCSI or a
// FUSE daemon) must not itself wait for pages to be written out: that is a deadlock. Its rules are
// those of requirement R19: all working memory is allocated and locked beforehand, nothing is
// loaded or started on the path, and what cannot be excluded by reading the code may use the
// kernel's reserve (PF_MEMALLOC), which is raised by as much (R21).
//
// Each step is a function whose doc comment has the argument for it, "this cannot wait for memory
// because ...", and fails with a *StepError that says what an administrator has to do. Prepare takes
// them all in the right order:
//
//	budget := memsafe.Budget{KernelKiB: 1024, HeapKiB: 4096, Threads: 4}
//	reserve := memsafe.SystemReserve()
//	err := memsafe.Prepare(ctx, memsafe.Plan{
//		Name: "mydaemon", Budget: budget, Reserve: reserve, Flag: flag, Open: open,
//	})
//	if err != nil { ... }
//	defer reserve.Release(ctx)
//	// serve; whenever nothing is under way: memsafe.Collect()
//
// What remains for the caller to keep: on the path start no goroutine that blocks in a system call
// beyond Budget.Threads, allocate no more than Budget.HeapKiB between two collections, write no
// files and above all call no fsync, for the kernel warns when a PF_MEMALLOC task writes back.
//
// Programs for Linux 5.6 and newer, linked without cgo: the stacks of cgo's threads are not Go's.
package memsafe
