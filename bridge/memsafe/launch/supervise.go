// SPDX-License-Identifier: GPL-2.0-only

package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Adopt makes the calling process the parent of what its children leave behind when they end, so that
// Wait can wait for all: programs that put themselves into the background by forking are still under
// the rules, and still use the reserve.
func Adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_CHILD_SUBREAPER: %w", err)
	}
	return nil
}

// Wait waits until the program and all that it has started and left to us are gone, and returns how the
// program itself has ended. The caller must have no other children.
func (p *Process) Wait() (unix.WaitStatus, error) {
	var own unix.WaitStatus
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err == unix.ECHILD:
			return own, nil
		case err != nil:
			return own, fmt.Errorf("wait: %w", err)
		case pid == p.PID:
			own = status
		}
	}
}

// Signal passes a signal on to the program, and when that has ended, to what it has left to us. One that
// is gone meanwhile needs no signal.
func (p *Process) Signal(s unix.Signal) error {
	err := unix.PidfdSendSignal(p.pidfd, s, nil, 0)
	if err != unix.ESRCH {
		return err
	}
	children, err := children()
	if err != nil {
		return err
	}
	for _, pid := range children {
		if err := unix.Kill(pid, s); err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

// children are the calling process's, whichever of its threads they belong to.
func children() (pids []int, err error) {
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended, and its children are another's
		}
		for _, word := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
