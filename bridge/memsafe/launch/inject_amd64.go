// SPDX-License-Identifier: GPL-2.0-only

package launch

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// code64 is the code segment of 64-bit processes; others have other numbers for system calls.
const code64 = 0x33

// syscallInstruction is what x86-64 calls the kernel with.
var syscallInstruction = [2]byte{0x0f, 0x05}

// lockStopped has the child, which asked to be traced and is about to stop at the end of its exec, call
// mlockall, and lets it go. What it was about to execute is replaced by a system call for one
// step, and put back as it was, with all registers.
func lockStopped(pid int) error {
	if err := stopped(pid); err != nil {
		return err
	}
	var before unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &before); err != nil {
		return fmt.Errorf("ptrace: registers: %w", err)
	}
	if before.Cs != code64 {
		return fmt.Errorf("it is no 64-bit program: %w", unix.ENOEXEC)
	}
	at := uintptr(before.Rip)
	var text [len(syscallInstruction)]byte
	if _, err := unix.PtracePeekText(pid, at, text[:]); err != nil {
		return fmt.Errorf("ptrace: reading its code: %w", err)
	}
	errno, err := call(pid, at, before)
	if err != nil {
		return err
	}
	if _, err := unix.PtracePokeText(pid, at, text[:]); err != nil {
		return fmt.Errorf("ptrace: restoring its code: %w", err)
	}
	if err := unix.PtraceSetRegs(pid, &before); err != nil {
		return fmt.Errorf("ptrace: restoring its registers: %w", err)
	}
	if errno != 0 {
		return fmt.Errorf("mlockall: %w", errno)
	}
	if err := unix.PtraceDetach(pid); err != nil {
		return fmt.Errorf("ptrace: letting it go: %w", err)
	}
	return nil
}

func call(pid int, at uintptr, regs unix.PtraceRegs) (unix.Errno, error) {
	regs.Orig_rax = ^uint64(0) // it is in no system call that would have to be restarted
	regs.Rax, regs.Rdi = unix.SYS_MLOCKALL, unix.MCL_CURRENT|unix.MCL_FUTURE
	if err := unix.PtraceSetRegs(pid, &regs); err != nil {
		return 0, fmt.Errorf("ptrace: registers: %w", err)
	}
	if _, err := unix.PtracePokeText(pid, at, syscallInstruction[:]); err != nil {
		return 0, fmt.Errorf("ptrace: writing its code: %w", err)
	}
	if err := unix.PtraceSingleStep(pid); err != nil {
		return 0, fmt.Errorf("ptrace: step: %w", err)
	}
	if err := stopped(pid); err != nil {
		return 0, err
	}
	if err := unix.PtraceGetRegs(pid, &regs); err != nil {
		return 0, fmt.Errorf("ptrace: registers: %w", err)
	}
	return unix.Errno(-regs.Rax), nil
}

// stopped waits for the trap after exec, or after a step. Any other end of the wait is a failure: who
// sends signals to a program in its first microsecond has to try again.
func stopped(pid int) error {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case !status.Stopped():
			return fmt.Errorf("it ended before its first instruction: %w", unix.ESRCH)
		case status.StopSignal() != unix.SIGTRAP:
			return fmt.Errorf("it got %v before its first instruction: %w", status.StopSignal(), unix.EINTR)
		}
		return nil
	}
}
