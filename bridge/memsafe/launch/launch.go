// SPDX-License-Identifier: GPL-2.0-only

// Package launch starts a program that knows nothing of the memory rules, so that it keeps those that
// can be kept from outside, and stays with it until its end.
//
// What is done, and why it works:
//
//   - The flag and PR_SET_IO_FLUSHER are set on the thread that forks. Both are inherited by fork and
//     kept by exec, so all that the program starts, threads and processes, has them.
//   - Its memory is locked by itself: at its very first instruction it is made to call
//     mlockall(MCL_CURRENT|MCL_FUTURE), by ptrace. There is no other way. Locks are not inherited by
//     fork, and do not survive exec; no system call locks another process's memory; and what
//     process_madvise(2) offers can read pages in, but not keep them.
//   - RLIMIT_MEMLOCK is lifted for it, so that no later mmap fails, even when it has dropped root.
//   - Transparent huge pages are off, for the reason that memsafe.LockMemory gives.
//   - Its sockets are looked for again and again, and marked; its OOM score is put back in the same way,
//     for some programs set their own.
//
// What this cannot give:
//
//   - A process that the program forks has the flag, but its memory is not locked. A program that
//     executes another one, as a shell script does, loses the lock at that moment.
//   - A program may allocate, open files and start processes whenever it likes: it is locked when
//     it has got its memory, and asks for it with access to the reserve, but by no bound that
//     anybody has read. The budget is a promise of whoever declared it.
//   - A socket is marked some time after it was opened, not before its first packet.
//   - The kernel warns, once, of what a flagged task should not do: write back file data, by fsync say
//     (ext4, xfs), or wait for a worker that may need memory itself, as for closing an inotify
//     descriptor, which multipathd does when it ends. With kernel.panic_on_warn that is a panic.
package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/memsafe"
)

// A Program is what Start starts, with the environment and the files 0 to 2 of the caller.
type Program struct {
	Path string
	Args []string // the first is its name

	// Flag asks the kernel to put the calling thread into PF_MEMALLOC mode. The thread is not used
	// for anything else afterwards.
	Flag func() error

	// Unlocked leaves its memory as it is, for a program that locks it by itself.
	Unlocked bool
}

// A Process is a program that was started. The caller has to Wait for it.
type Process struct {
	PID   int
	pidfd int // the number may become another's once it was waited for, this does not
}

// Start starts it. When it returns, the program has not executed an instruction of its own that was
// not under the rules. The error is memsafe.ErrFlag or memsafe.ErrLock when one of these is not
// possible, ErrExec when the program cannot be executed; then nothing is left running.
//
// The caller has set what is inherited besides: memsafe.SpareFromOOM.
func Start(p Program) (*Process, error) {
	type result struct {
		process *Process
		err     error
	}
	started := make(chan result, 1)
	go func() {
		// Never unlocked: a thread with the flag must not carry other goroutines, and it ends here.
		// It is also the only one that the kernel lets trace the child.
		runtime.LockOSThread()
		process, err := p.start()
		started <- result{process, err}
	}()
	r := <-started
	return r.process, r.err
}

// ErrExec says that the program cannot be executed. The cause is an errno.
var ErrExec = errors.New("it cannot be executed")

func (p Program) start() (*Process, error) {
	if err := p.prepare(); err != nil {
		return nil, err
	}
	return p.spawn(0, 1, 2)
}

func (p Program) spawn(files ...uintptr) (*Process, error) {
	pid, err := syscall.ForkExec(p.Path, p.Args, &syscall.ProcAttr{
		Env: os.Environ(), Files: files,
		Sys: &syscall.SysProcAttr{Ptrace: !p.Unlocked},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", p.Path, ErrExec, err)
	}
	process, err := p.adopt(pid)
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	return process, err
}

func (p Program) adopt(pid int) (*Process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open: %w", err)
	}
	if p.Unlocked {
		return &Process{pid, pidfd}, nil
	}
	if err := lockStopped(pid); err != nil {
		unix.Close(pidfd)
		return nil, &memsafe.StepError{
			Step: memsafe.ErrLock, Err: err,
			Remedy: "if the program locks its memory by itself, say so (--unlocked)",
		}
	}
	return &Process{pid, pidfd}, nil
}

// prepare sets what the child inherits.
func (p Program) prepare() error {
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		return lockError(fmt.Errorf("PR_SET_THP_DISABLE: %w", err))
	}
	forever := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &forever); err != nil {
		return lockError(fmt.Errorf("RLIMIT_MEMLOCK: %w", err))
	}
	err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0)
	if err != nil {
		err = fmt.Errorf("PR_SET_IO_FLUSHER: %w", err)
	} else {
		err = p.Flag()
	}
	if err != nil {
		return &memsafe.StepError{
			Step: memsafe.ErrFlag, Err: err,
			Remedy: "load the module o2fence, and run it as root, with CAP_NET_ADMIN and CAP_SYS_RESOURCE",
		}
	}
	return nil
}

func lockError(err error) error {
	return &memsafe.StepError{Step: memsafe.ErrLock, Err: err, Remedy: "run it as root, with CAP_SYS_RESOURCE"}
}

// SpareFromOOM keeps the OOM killer away from a program that has set its own score: iscsid sets -17, which
// an older interface took for "never" and this one for "hardly less". The error is fs.ErrNotExist or
// unix.ESRCH when the program has ended.
func (p *Process) SpareFromOOM() error {
	file, err := os.OpenFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.PID), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	// Opened while the program lives, it is the program's.
	if err := unix.PidfdSendSignal(p.pidfd, 0, nil, 0); err != nil {
		return err
	}
	var score [16]byte
	n, err := file.Read(score[:])
	if err != nil || strings.TrimSpace(string(score[:n])) == never {
		return err
	}
	_, err = file.WriteString(never)
	return err
}

// never is the score of processes that the OOM killer leaves alone.
const never = "-1000"

// MarkSockets marks the program's open sockets, but for those whose inode is in done already, to which it
// adds them. The error is fs.ErrNotExist or unix.ESRCH when the program has ended.
func (p *Process) MarkSockets(ctx context.Context, m memsafe.Marker, done map[string]bool) error {
	sockets, err := memsafe.Sockets(p.PID)
	if err != nil {
		return err
	}
	for fd, inode := range sockets {
		if done[inode] {
			continue
		}
		if err := mark(ctx, m, p.pidfd, fd); err != nil {
			return fmt.Errorf("socket %d of process %d: %w", fd, p.PID, err)
		}
		done[inode] = true
	}
	return nil
}

// mark borrows a descriptor of the program for as long as that takes.
func mark(ctx context.Context, m memsafe.Marker, pidfd, fd int) error {
	ours, err := unix.PidfdGetfd(pidfd, fd, 0)
	if errors.Is(err, unix.EBADF) {
		return nil // closed meanwhile
	}
	if err != nil {
		return fmt.Errorf("pidfd_getfd: %w", err)
	}
	defer unix.Close(ours)
	return m.MarkSocket(ctx, ours)
}
