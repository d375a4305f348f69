// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A target is the process under audit.
type target struct {
	pid     int
	started bool          // by this program: its end is no surprise
	ended   chan struct{} // closed then
	release func() error  // lets a started program begin
	finish  func()        // ends a started program
}

var errEnded = errors.New("the process ended before the audit did")

func (t *tool) target() (*target, error) {
	switch {
	case len(t.command) > 0:
		return t.start()
	case t.comm != "":
		pid, err := find(t.comm)
		if err != nil {
			return nil, err
		}
		return attach(pid)
	}
	return attach(t.pid)
}

// find is the process of a name.
func find(comm string) (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	var pids []string
	for _, file := range files {
		name, err := os.ReadFile(file)
		if pid := filepath.Base(filepath.Dir(file)); err == nil && strings.TrimSpace(string(name)) == comm && pid != strconv.Itoa(os.Getpid()) {
			pids = append(pids, pid)
		}
	}
	switch len(pids) {
	case 0:
		return 0, fmt.Errorf("no process has the name %q", comm)
	case 1:
		return strconv.Atoi(pids[0])
	}
	return 0, fmt.Errorf("%d processes have the name %q: choose one by --pid: %s", len(pids), comm, strings.Join(pids, ", "))
}

// attach holds a process by a descriptor: its number cannot come to mean another one unnoticed.
func attach(pid int) (*target, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("there is no process %d", pid)
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	t := &target{pid: pid, ended: make(chan struct{}), release: func() error { return nil }, finish: func() {}}
	go func() {
		defer close(t.ended)
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	return t, nil
}

// start starts the command, stopped before its first instruction: it is traced until it is released.
func (t *tool) start() (*target, error) {
	runtime.LockOSThread() // who traces is a thread; it is kept until release
	cmd := exec.Command(t.command[0], t.command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if t.json {
		cmd.Stdout = os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		return nil, err
	}
	a := &target{pid: pid, started: true, ended: make(chan struct{})}
	a.release = func() error {
		defer runtime.UnlockOSThread()
		if err := syscall.PtraceDetach(pid); err != nil {
			return fmt.Errorf("starting %s: %w", t.command[0], err)
		}
		a.finish = func() { end(cmd.Process, a.ended) }
		go func() {
			defer close(a.ended)
			_ = cmd.Wait() // how it ends is its own business
		}()
		return nil
	}
	a.finish = func() { _ = cmd.Process.Kill() }
	return a, nil
}

// patience is for a program that was told to end.
const patience = 5 * time.Second

// end ends a process.
func end(p *os.Process, ended <-chan struct{}) {
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(patience):
		_ = p.Kill()
	}
}
