// SPDX-License-Identifier: GPL-2.0-only

// Package netns gives tests networks of their own: network namespaces with real interfaces, rules and
// sockets, which are gone with the test. It needs root.
package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// A Space is a network namespace.
type Space struct {
	Name string // for ip netns
	t    testing.TB
}

// made counts this process's namespaces, whose names are the machine's.
var made atomic.Int32

// New makes one for the duration of a test, with nothing but a loopback interface. Without root the test
// is skipped, in short mode too: namespaces are the machine's own.
func New(t testing.TB) *Space {
	t.Helper()
	switch {
	case testing.Short():
		t.Skip("network namespaces are the machine's own")
	case os.Getuid() != 0:
		t.Skip("network namespaces need root")
	}
	s := &Space{Name: fmt.Sprintf("o2-%d-%d", os.Getpid(), made.Add(1)), t: t}
	command(t, "ip", "netns", "add", s.Name)
	t.Cleanup(func() { command(t, "ip", "netns", "del", s.Name) })
	s.Run("ip", "link", "set", "lo", "up")
	return s
}

// Link connects two with a cable. Each end has these addresses, such as "198.18.0.1/24".
func Link(a, b *Space, addrsA, addrsB []string) {
	a.t.Helper()
	n := made.Add(1)
	nameA, nameB := fmt.Sprintf("a%d", n), fmt.Sprintf("b%d", n)
	a.Run("ip", "link", "add", nameA, "type", "veth", "peer", "name", nameB, "netns", b.Name)
	a.Up(nameA, addrsA...)
	b.Up(nameB, addrsB...)
}

// Up gives an interface addresses and switches it on.
func (s *Space) Up(device string, addrs ...string) {
	s.t.Helper()
	for _, addr := range addrs {
		args := []string{"ip", "addr", "add", addr, "dev", device}
		if strings.Contains(addr, ":") {
			args = append(args, "nodad") // usable at once
		}
		s.Run(args...)
	}
	s.Run("ip", "link", "set", device, "up")
}

// Run runs a program inside and returns what it prints. It fails the test when the program does.
func (s *Space) Run(args ...string) string {
	s.t.Helper()
	return command(s.t, append([]string{"ip", "netns", "exec", s.Name}, args...)...)
}

// Command is a program to run inside.
func (s *Space) Command(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", s.Name}, args...)...)
}

func command(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// Enter moves the calling goroutine inside, for good; its thread ends with it. The goroutines that it
// starts stay outside.
func (s *Space) Enter() {
	s.t.Helper()
	if err := s.enter(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Space) enter() error {
	runtime.LockOSThread()
	f, err := os.Open("/run/netns/" + s.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("setns", unix.Setns(int(f.Fd()), unix.CLONE_NEWNET))
}

// Do calls do inside, for the sockets that it makes, which stay there. do must not fail the test.
func (s *Space) Do(do func() error) {
	s.t.Helper()
	done := make(chan error)
	go func() { done <- s.do(do) }()
	if err := <-done; err != nil {
		s.t.Fatal(err)
	}
}

// do leaves again, for the thread's end would be that of programs that it has started, if they are to
// end with their parent: the kernel takes a thread for that (prctl(2), PR_SET_PDEATHSIG).
func (s *Space) do(do func() error) error {
	outside, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer outside.Close()
	if err := s.enter(); err != nil {
		return err
	}
	failed := do()
	if err := unix.Setns(int(outside.Fd()), unix.CLONE_NEWNET); err != nil {
		return errors.Join(failed, os.NewSyscallError("setns", err)) // and ends the thread
	}
	runtime.UnlockOSThread()
	return failed
}
