// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pfMemalloc is the kernel's PF_MEMALLOC, as field 9 of /proc/PID/stat shows it.
const pfMemalloc = 0x800

// entered is set, to the process's own number, across the exec of Enter and removed after it.
const entered = "MEMSAFE_ENTERED"

var errNotKept = errors.New("the PF_MEMALLOC flag was not kept across exec")

// Enter brings every thread of the process into PF_MEMALLOC mode. It is the first thing that main
// does: nothing that was opened or started before is there afterwards.
//
// Only a thread itself can set its own flag, and Go's runtime has started several before main
// begins. But the flag is inherited by clone and kept by execve. So Enter locks its goroutine to its
// thread, calls flag, which must ask the kernel for the flag from the calling thread, and executes
// the program once more with the same arguments and environment: then every thread descends from
// a flagged one. In the second run Enter finds all threads flagged, as it reads from /proc and
// does not take from the environment, and returns nil.
//
// The same exec hands down PR_SET_IO_FLUSHER, which needs CAP_SYS_RESOURCE: should the reserve be
// empty and a thread reclaim memory after all, it will not start I/O to do so, nor be throttled
// for pages that others have dirtied (R20).
//
// It hands down GODEBUG=gcshrinkstackoff=1 as well, which the runtime reads only when it starts: see
// GrowStack. For that alone it executes a program that was started flagged.
//
// The error is ErrFlag, and then the process is as it was, except that the calling thread may be
// flagged.
func Enter(flag func() error) error {
	return step(ErrFlag, remedyFlag, enter(pfMemalloc, func() error {
		if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("PR_SET_IO_FLUSHER: %w", err)
		}
		return flag()
	}))
}

const remedyFlag = "load the module o2fence, and run it as root, with CAP_NET_ADMIN and CAP_SYS_RESOURCE"

func enter(mask uint64, flag func() error) error {
	again := os.Getenv(entered) == strconv.Itoa(os.Getpid())
	if err := os.Unsetenv(entered); err != nil {
		return err
	}
	flagged, err := allFlagged(mask)
	switch {
	case err != nil:
		return err
	case flagged && again:
		return restoreName()
	case flagged && strings.Contains(os.Getenv(debugEnv), stacksStay):
		return nil
	case again:
		return errNotKept // and not once more, for ever
	}
	return flagAndExec(flag)
}

func flagAndExec(flag func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	if err := flag(); err != nil {
		return err
	}
	// This very file, even if an upgrade has replaced it meanwhile.
	err := unix.Exec("/proc/self/exe", os.Args, environment())
	return fmt.Errorf("exec: %w", err)
}

const (
	debugEnv   = "GODEBUG"
	stacksStay = "gcshrinkstackoff=1"
)

// environment is that of the second run. Of two variables of one name the runtime reads the first.
func environment() []string {
	settings := stacksStay
	if before := os.Getenv(debugEnv); before != "" {
		settings = before + "," + stacksStay
	}
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, debugEnv+"=") })
	return append(env, debugEnv+"="+settings, entered+"="+strconv.Itoa(os.Getpid()))
}

// The exec by way of /proc has left "exe" where ps and pidof expect the program's name.
func restoreName() error {
	name := filepath.Base(os.Args[0])
	return os.WriteFile("/proc/self/comm", []byte(name), 0)
}

func allFlagged(mask uint64) (bool, error) {
	stats, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil || len(stats) == 0 {
		return false, fmt.Errorf("no threads in /proc/self/task: %w", os.ErrNotExist)
	}
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return false, err
		}
		flags, err := taskFlags(text)
		if err != nil {
			return false, fmt.Errorf("%s: %w", stat, err)
		}
		if flags&mask == 0 {
			return false, nil
		}
	}
	return true, nil
}

// taskFlags is field 9 of a stat file. Fields are counted from the last parenthesis, because
// field 2, the name, may hold anything.
func taskFlags(stat []byte) (uint64, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 7 {
		return 0, errors.New("too few fields")
	}
	return strconv.ParseUint(string(fields[6]), 10, 64)
}
