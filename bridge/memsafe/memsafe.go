// SPDX-License-Identifier: GPL-2.0-only

// Package memsafe keeps a daemon from ever waiting for memory.
//
// A daemon that the kernel needs in order to write out dirty pages (a fencing bridge, an iSCSI or a
// FUSE daemon) must not itself wait for pages to be written out: that is a deadlock. Its rules are
// those of requirement R19: all working memory is allocated and locked beforehand, nothing is
// loaded or started on the path, and what cannot be excluded by reading the code may use the
// kernel's reserve (PF_MEMALLOC).
//
// A daemon's main begins like this; each step's argument is in its doc comment:
//
//	if err := memsafe.Enter(flag); err != nil { ... }   // every thread may use the reserve
//	// read the configuration, open the sockets
//	if err := memsafe.Lock(memsafe.Budget{...}); err != nil { ... }
//	// serve; whenever nothing is under way: memsafe.Collect()
//
// What remains for the caller to keep: on the path start no goroutine that blocks in a system call
// beyond Budget.Threads, allocate no more than Budget.HeapKiB between two collections, write no
// files and above all call no fsync, for the kernel warns when a PF_MEMALLOC task writes back.
package memsafe
