// SPDX-License-Identifier: GPL-2.0-only

package launch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/memsafe"
)

// Who adopts orphans and waits for all children is a process of its own: this test binary again.
const role = "LAUNCH_TEST_ROLE"

var roles = map[string]func() error{"outlive": outlive, "signal": passOn}

func TestMain(m *testing.M) {
	play, ok := roles[os.Getenv(role)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := play(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func playRole(t *testing.T, part string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"="+part)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// spawn starts a program with files for its input and output, on a thread that may trace it.
func spawn(p Program, in, out *os.File) (process *Process, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		process, err = p.spawn(in.Fd(), out.Fd(), 2)
	}()
	<-done
	return process, err
}

func pipe() (read, write *os.File) {
	read, write, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	return read, write
}

// talk has cat running: what it is sent comes back, through a C library that was loaded under the lock.
func talk(t *testing.T, unlocked bool) (*Process, io.Closer) {
	t.Helper()
	inRead, in := pipe()
	out, outWrite := pipe()
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	p, err := spawn(Program{Path: cat, Args: []string{"cat"}, Unlocked: unlocked}, inRead, outWrite)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "well")
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "well\n" {
		t.Errorf("%q, %v", line, err)
	}
	return p, in
}

func end(t *testing.T, p *Process, in io.Closer) {
	t.Helper()
	in.Close()
	var status unix.WaitStatus
	if _, err := unix.Wait4(p.PID, &status, 0, nil); err != nil || !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("it has ended with %v, %v", status, err)
	}
}

// unlockedMappings are those of a process that are neither locked nor the kernel's own.
func unlockedMappings(t *testing.T, pid int) (names []string) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	head := regexp.MustCompile(`^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+\s*(.*)$`)
	name := ""
	for _, line := range strings.Split(string(text), "\n") {
		if m := head.FindStringSubmatch(line); m != nil {
			name = m[1] + " " + strings.Fields(line)[0]
		}
		flags, ok := strings.CutPrefix(line, "VmFlags:")
		special := strings.Contains(name, "[v") // vdso, vvar, vsyscall
		if ok && !special && !slices.Contains(strings.Fields(flags), "lo") {
			names = append(names, name)
		}
	}
	return names
}

func TestAProgramIsLockedBeforeItsFirstInstruction(t *testing.T) {
	needLocks(t)
	p, in := talk(t, false)
	if names := unlockedMappings(t, p.PID); len(names) != 0 {
		t.Errorf("not locked: %q", names)
	}
	end(t, p, in)
}

func TestAProgramThatLocksItselfIsLeftAlone(t *testing.T) {
	p, in := talk(t, true)
	if names := unlockedMappings(t, p.PID); len(names) == 0 {
		t.Error("it is locked")
	}
	end(t, p, in)
}

// marks is the kernel's part: it takes sockets, and remembers which.
type marks []uint64

func (m *marks) MarkSocket(_ context.Context, fd int) error {
	var stat unix.Stat_t
	err := unix.Fstat(fd, &stat)
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		err = unix.ENOTSOCK
	}
	*m = append(*m, stat.Ino)
	return err
}

func TestAProgramsSocketsAreMarkedOnce(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	p, err := spawn(Program{Path: "/bin/cat", Args: []string{"cat"}, Unlocked: true}, theirs, os.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	var want unix.Stat_t
	if err := unix.Fstat(pair[1], &want); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	var got marks
	done := map[string]bool{}
	for range 2 {
		if err := p.MarkSockets(t.Context(), &got, done); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, marks{want.Ino}) {
		t.Errorf("marked %v, want socket %d once", got, want.Ino)
	}
	end(t, p, ours)
	if err := p.MarkSockets(t.Context(), &got, done); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a program that has ended: %v", err)
	}
}

func needLocks(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs CAP_IPC_LOCK")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("is written for x86-64")
	}
}

func TestWhatCannotBeExecutedIsAnErrorOfItsOwn(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, unlocked := range []bool{false, true} {
		_, err := spawn(Program{Path: os.DevNull, Args: []string{"null"}, Unlocked: unlocked}, null, null)
		if !errors.Is(err, ErrExec) || !errors.Is(err, unix.EACCES) {
			t.Errorf("%v", err)
		}
	}
}

func TestWithoutTheFlagNothingIsStarted(t *testing.T) {
	_, err := Start(Program{Path: "/bin/true", Args: []string{"true"}, Flag: func() error { return unix.EPERM }})
	named, ok := errors.AsType[*memsafe.StepError](err)
	if !ok || !errors.Is(err, unix.EPERM) || named.Remedy == "" {
		t.Errorf("%v", err)
	}
}

// outlive starts a program that ends with 7 and leaves a child behind, which has its output open as
// long as its input is.
func outlive() error {
	if err := Adopt(); err != nil {
		return err
	}
	inRead, in := pipe()
	out, outWrite := pipe()
	p, err := spawn(Program{Path: "/bin/sh", Args: []string{"sh", "-c", "exec 3<&0; cat <&3 & exit 7"}, Unlocked: true}, inRead, outWrite)
	if err != nil {
		return err
	}
	inRead.Close()
	outWrite.Close()
	go func() {
		poll := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
		for n, _ := unix.Poll(poll, -1); n != 1; n, _ = unix.Poll(poll, -1) {
		}
		in.Close()
	}()
	status, err := p.Wait()
	if err != nil || status.ExitStatus() != 7 {
		return fmt.Errorf("%v, %w", status, err)
	}
	if err := unix.SetNonblock(int(out.Fd()), true); err != nil {
		return err
	}
	if n, err := unix.Read(int(out.Fd()), make([]byte, 1)); n != 0 || err != nil {
		return fmt.Errorf("somebody still has its output open: %d, %v", n, err)
	}
	return nil
}

func TestTheWaitIsForAllThatAProgramHasLeftBehind(t *testing.T) { playRole(t, "outlive") }

// passOn signals a child that a program has left behind.
func passOn() error {
	if err := Adopt(); err != nil {
		return err
	}
	out, outWrite := pipe()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	p, err := spawn(Program{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 600 & exit 3"}, Unlocked: true}, null, outWrite)
	if err != nil {
		return err
	}
	outWrite.Close()
	ended := make(chan error, 1)
	go func() {
		status, err := p.Wait()
		if err == nil && status.ExitStatus() != 3 {
			err = fmt.Errorf("it has ended with %v", status)
		}
		ended <- err
	}()
	for reaped := false; !reaped; runtime.Gosched() {
		left, err := children()
		if err != nil {
			return err
		}
		reaped = len(left) == 1 && left[0] != p.PID
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	_, _ = io.ReadAll(out)
	return <-ended
}

func TestASignalReachesWhatAProgramHasLeftBehind(t *testing.T) { playRole(t, "signal") }
