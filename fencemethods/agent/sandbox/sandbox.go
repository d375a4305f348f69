// SPDX-License-Identifier: GPL-2.0-only

// Package sandbox runs programs whose memory nobody can bound, fence agents, so that they at least
// have some of their own and cannot take that of others (R22.3).
//
// A program runs in a jail: a control group (cgroup v2) with guaranteed memory, a limit of memory and
// of processes, and namespaces of its own for mounts, processes and System V IPC, in which all file
// systems are read-only but /tmp, /var/tmp and /dev/shm. It keeps the network. A process that has
// entered the jail waits there before the program is wanted. At the deadline the whole group is
// killed at once, so that nothing a program has started can outlive it.
//
// What it does not do is make a program safe from deadlock. The program is read from disk, and
// started, when it is wanted; system calls made on its behalf allocate outside its guarantee.
//
// The jails belong to a process of their own, the Server. The bridge cannot start programs itself:
// its children would inherit PF_MEMALLOC, by which they could use up the reserve that is there for
// the bridge, and no limit of a control group would hold for them. A Jail is its client, which needs
// no more than a connected socket and a buffer.
package sandbox

import (
	"errors"
	"time"
)

// Socket is where the server usually listens, CGroup its usual control group.
const (
	Socket = "/run/o2fence/sandbox.sock"
	CGroup = "/sys/fs/cgroup/o2fence"
)

// What can go wrong before a program runs, for errors.Is.
var (
	ErrNoServer  = errors.New("no sandbox to run it in")
	ErrNoCGroup  = errors.New("no cgroup v2 to confine it with")
	ErrRefused   = errors.New("the sandbox refuses")
	ErrMalformed = errors.New("the sandbox's answer is malformed")
)

// Limits are what a jail may have.
type Limits struct {
	MinKiB    int // memory that nobody else can take; of all jails together the machine must have it
	MaxKiB    int // memory after which the program is killed
	Processes int // processes and threads at a time
}

// An End is how a program has ended.
type End string

// The ends of a program.
const (
	Exited   End = "exited"   // Code is its exit code
	Signaled End = "signaled" // Code is the signal's number
	Deadline End = "deadline" // it was killed when its time was over
	Memory   End = "memory"   // it was killed because it wanted more than its limit
	Stopped  End = "stopped"  // it was killed because nobody wants to know any more
	Broken   End = "broken"   // it could not be run; Stderr says why
)

// A Result is what a program has left.
type Result struct {
	End            End
	Code           int
	Stdout, Stderr []byte // at most the last OutputMax bytes of each
}

// OutputMax is how many bytes are kept of each of a program's outputs.
const OutputMax = 8 << 10

// InputMax is how many bytes a program can get on its standard input.
const InputMax = 16 << 10

// packetMax is the longest message in bytes.
const packetMax = 256 + 2*OutputMax + InputMax

// killTime is how long the death of what is killed may take. What is stuck in the kernel does not
// die; it is left alone.
const killTime = 2 * time.Second
