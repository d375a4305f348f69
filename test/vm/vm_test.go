// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// run runs a shell script in m and fails the test when it fails.
func run(t *testing.T, m *VM, script string) string {
	t.Helper()
	out, err := m.Run(t.Context(), "sh", "-ec", script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bootOne boots the only machine of a cluster whose file system is left alone.
func bootOne(t *testing.T) *VM {
	t.Helper()
	m := TestCluster(t, ClusterConfig{Nodes: 1}).Nodes[0]
	check(t, m.Boot(t.Context()))
	return m
}

func TestClusterSharesItsFileSystem(t *testing.T) {
	began := time.Now()
	lap := func(what string) { t.Logf("%5.1f s: %s", time.Since(began).Seconds(), what) }
	ctx := t.Context()
	c := TestCluster(t, ClusterConfig{Nodes: 3})
	lap("prepared")
	check(t, c.Boot(ctx))
	lap("three machines up")
	check(t, c.Start(ctx))
	lap("OCFS2 mounted on all")

	run(t, c.Nodes[0], "echo written on node0 >/ocfs2/file; sync")
	if got := run(t, c.Nodes[2], "cat /ocfs2/file"); got != "written on node0\n" {
		t.Errorf("node2 reads %q", got)
	}

	// A node that left and comes back is the same node: it finds its disk and its peers.
	node2 := c.Nodes[2]
	check(t, c.Unmount(ctx, node2))
	node2.PowerOff()
	if s := node2.PowerState(); s != Off {
		t.Errorf("after PowerOff the machine is %s", s)
	}
	lap("node2 off")
	check(t, node2.Boot(ctx))
	lap("node2 up again")
	check(t, c.Online(ctx, node2))
	check(t, c.Mount(ctx, node2))
	lap("node2 mounted again")
	if got := run(t, node2, "cat /ocfs2/file"); got != "written on node0\n" {
		t.Errorf("after its second boot node2 reads %q", got)
	}

	check(t, c.All(func(m *VM) error { return c.Unmount(ctx, m) }))
	lap("unmounted")
	check(t, c.All(func(m *VM) error { return m.Shutdown(ctx) }))
	lap("shut down")
}

func TestGuestRunsPrograms(t *testing.T) {
	m := bootOne(t)
	ctx := t.Context()

	t.Run("a failure has exit code and standard error", func(t *testing.T) {
		out, err := m.Run(ctx, "sh", "-c", "echo partial; echo why >&2; exit 7")
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Code != 7 || exit.Stderr != "why\n" || out != "partial\n" {
			t.Errorf("%q, %#v", out, err)
		}
	})
	t.Run("a program that does not exist is an error", func(t *testing.T) {
		_, err := m.Run(ctx, "no-such-program")
		if err == nil || !strings.Contains(err.Error(), "executable file not found") {
			t.Error(err)
		}
	})
	t.Run("a signal reaches the children too", func(t *testing.T) {
		out, in := io.Pipe()
		p, err := m.Start(ctx, Command{Args: []string{"sh", "-c", "sleep 1000 & echo up; wait"}, Stdout: in})
		check(t, err)
		// The output comes while the program runs.
		if _, err := io.ReadFull(out, make([]byte, len("up\n"))); err != nil {
			t.Fatal(err)
		}
		check(t, p.Signal(syscall.SIGTERM))
		var exit *ExitError
		if err := p.Wait(ctx); !errors.As(err, &exit) || exit.Signal != syscall.SIGTERM {
			t.Error(err)
		}
		if out, err := m.Run(ctx, "pgrep", "sleep"); err == nil {
			t.Errorf("still running: %s", out)
		}
	})
	t.Run("a program whose time is over is killed", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := m.Run(short, "sh", "-c", "sleep 2000"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		run(t, m, "while pgrep sleep; do :; done")
	})
	t.Run("a file, the environment, the directory and standard input arrive", func(t *testing.T) {
		check(t, m.WriteFile(ctx, "/new/directory/file", []byte("content "), 0o600))
		var out bytes.Buffer
		p, err := m.Start(ctx, Command{
			Args: []string{"sh", "-c", `cat file -; echo " $WORD"; stat -c %a file`}, Dir: "/new/directory",
			Env: []string{"WORD=word"}, Stdin: []byte("stdin"), Stdout: &out,
		})
		check(t, err)
		check(t, p.Wait(ctx))
		if out.String() != "content stdin word\n600\n" {
			t.Errorf("%q", out.String())
		}
	})
	t.Run("a program of the host runs", func(t *testing.T) {
		self, err := os.Executable()
		check(t, err)
		if _, err := m.Run(ctx, self, "-test.run=^TestReleasesAreOrderedByTheirNumbers$"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a server on the host's loopback is reached by UDP", func(t *testing.T) {
		server, err := net.ListenPacket("udp", "127.0.0.1:0")
		check(t, err)
		defer server.Close()
		port := server.LocalAddr().(*net.UDPAddr).Port
		run(t, m, fmt.Sprintf("bash -c 'echo hello >/dev/udp/%s/%d'", HostAddress, port))
		datagram := make([]byte, 100)
		check(t, server.SetReadDeadline(time.Now().Add(time.Minute)))
		n, _, err := server.ReadFrom(datagram)
		if err != nil || string(datagram[:n]) != "hello\n" {
			t.Errorf("%q, %v", datagram[:n], err)
		}
	})
}

func TestPausedMachineDoesNothingAndGoesOn(t *testing.T) {
	m := bootOne(t)
	ctx := t.Context()
	check(t, m.Pause(ctx))
	if s := m.PowerState(); s != Paused {
		t.Errorf("paused: %s", s)
	}
	var out bytes.Buffer
	p, err := m.Start(ctx, Command{Args: []string{"echo", "awake"}, Stdout: &out})
	check(t, err)
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := p.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused machine ran a program: %v", err)
	}
	check(t, m.Resume(ctx))
	check(t, p.Wait(ctx))
	if s := m.PowerState(); s != Running || out.String() != "awake\n" {
		t.Errorf("resumed: %s, %q", s, out.String())
	}
}

func TestMonitorForAnotherProgramSwitchesOff(t *testing.T) {
	m := TestCluster(t, ClusterConfig{Nodes: 1}).Nodes[0]
	check(t, m.PowerOn(t.Context()))
	bmc, err := net.Dial("unix", m.MonitorPath())
	check(t, err)
	defer bmc.Close()
	_, err = io.WriteString(bmc, `{"execute":"qmp_capabilities"}{"execute":"quit"}`)
	check(t, err)
	<-m.Exited()
	if exit, err := m.Wait(t.Context()); err != nil || exit.Reason != "host-qmp-quit" || m.PowerState() != Off {
		t.Errorf("%+v, %v, %s", exit, err, m.PowerState())
	}
}

func TestPanicEndsTheMachineAndIsSeen(t *testing.T) {
	m := bootOne(t)
	ctx := t.Context()
	p, err := m.Start(ctx, Command{Args: []string{"sh", "-c", "echo c >/proc/sysrq-trigger"}})
	check(t, err)
	if err := p.Wait(ctx); !errors.Is(err, ErrOff) {
		t.Errorf("the program that panics its kernel: %v, want ErrOff", err)
	}
	exit, err := m.Wait(ctx)
	if err != nil || exit.Reason != "guest-reset" {
		t.Errorf("exit %+v, %v", exit, err)
	}
	if !slices.ContainsFunc(m.KernelFaults(), func(fault string) bool { return strings.Contains(fault, "Kernel panic") }) {
		t.Errorf("kernel faults %q", m.KernelFaults())
	}
	if _, err := m.Run(ctx, "true"); !errors.Is(err, ErrOff) {
		t.Errorf("a command for a machine that is off: %v", err)
	}
	m.ClearKernelFaults()

	check(t, m.Boot(ctx))
	_, _, err = m.Console().Await(ctx, 0, regexp.MustCompile(`^--- off: guest-reset`))
	check(t, err)
	check(t, m.Shutdown(ctx))
}

func TestInitOfTheRootBecomesProcessOne(t *testing.T) {
	init := filepath.Join(t.TempDir(), "init")
	check(t, os.WriteFile(init, []byte("#!/bin/sh\nwhile :; do sleep 1; done\n"), 0o755))
	m := TestCluster(t, ClusterConfig{
		Nodes:   1,
		Machine: func(_ int, c *Config) { c.Init = init },
	}).Nodes[0]
	check(t, m.Boot(t.Context()))
	// The agent may be up before it; an init of its own mind names the host itself.
	out := run(t, m, "until grep -q /bin/sh /proc/1/cmdline; do :; done; cat /etc/hostname")
	if out != m.Name()+"\n" {
		t.Errorf("host name for init: %q", out)
	}
}

// orphanVariable tells this test's second life to boot a machine and wait to be killed.
const orphanVariable = "VM_TEST_ORPHAN"

func TestNoMachineOutlivesItsHarness(t *testing.T) {
	if os.Getenv(orphanVariable) != "" {
		m := TestCluster(t, ClusterConfig{Nodes: 1}).Nodes[0]
		check(t, m.PowerOn(t.Context()))
		fmt.Printf("pid %d\n", m.current().cmd.Process.Pid)
		select {}
	}
	if testing.Short() {
		t.Skip("virtual machines take their time")
	}
	harness := exec.Command(os.Args[0], "-test.run=^TestNoMachineOutlivesItsHarness$")
	harness.Env = append(os.Environ(), orphanVariable+"=1", "TMPDIR="+t.TempDir())
	out, err := harness.StdoutPipe()
	check(t, err)
	check(t, harness.Start())
	var pid int
	_, err = fmt.Fscanf(out, "pid %d\n", &pid)
	check(t, err)
	machine, err := unix.PidfdOpen(pid, 0)
	check(t, err)
	defer unix.Close(machine)
	check(t, harness.Process.Kill())
	_ = harness.Wait() // killed, as it should be
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(machine), Events: unix.POLLIN}}, int(time.Minute.Milliseconds()))
	if n != 1 || err != nil {
		t.Errorf("a minute later the machine is still there: %v", err)
	}
}
