// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/agent/sandbox"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc"
)

// Here Debian's own agents run in real jails, against real devices' servers. They need root and
// cgroup v2; test/agentapi runs them in a virtual machine that has both.

// The test's own program is the one inside a jail.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "inside":
		sandbox.Inside(os.Args[2])
	default:
		os.Exit(m.Run())
	}
}

// startSandbox returns its socket.
func startSandbox(t *testing.T) string {
	t.Helper()
	if err := sandbox.Available(sandbox.CGroup); err != nil || os.Getuid() != 0 {
		t.Skip("needs root and cgroup v2:", err)
	}
	self, err := os.Executable()
	check(t, err)
	socket := filepath.Join(visibleDir(t), "socket")
	s, err := sandbox.Listen(socket, filepath.Join(filepath.Dir(sandbox.CGroup), "o2fence-agent-test"), self)
	check(t, err)
	s.Log = t.Logf
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() { cancel(); check(t, <-ended) })
	return socket
}

// visibleDir is one that is seen in a jail, which has a /tmp of its own.
func visibleDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "agent")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, params map[string]string) fencemethods.Device {
	t.Helper()
	if _, err := os.Stat(params["program"]); err != nil {
		t.Skip("package fence-agents is not installed:", err)
	}
	d, err := Method().Open(fencemethods.Target{Name: "web1"}, params)
	check(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

func secretFile(t *testing.T, secret string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(name, []byte(secret+"\n"), 0o600))
	return name
}

// A machine behind a BMC. A deaf one takes commands and does nothing.
type machine struct {
	mu       sync.Mutex
	on, deaf bool
}

func (m *machine) On() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on, nil
}

func (m *machine) SetOn(on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.deaf {
		m.on = on
	}
	return nil
}

func (m *machine) Reset() error { return nil }

const patience = 2 * time.Minute // under emulation

func TestFenceIPMILAN(t *testing.T) {
	socket := startSandbox(t)
	m := &machine{on: true}
	dir := t.TempDir()
	b, err := bmc.Start(within(t, patience), dir, bmc.Config{User: "fence", Password: "correct-horse", Power: m})
	check(t, err)
	t.Cleanup(func() { b.Close() })
	params := func(password string, port uint16) map[string]string {
		return map[string]string{
			"program": "/usr/sbin/fence_ipmilan", "socket": socket, "password_file": secretFile(t, password),
			"options": fmt.Sprintf("ip=127.0.0.1 ipport=%d username=fence lanplus=1 cipher=3", port),
		}
	}
	d := open(t, params("correct-horse", b.Addr().Port()))
	began := time.Now()
	check(t, d.Off(within(t, patience)))
	t.Logf("fenced in %v", time.Since(began).Round(time.Millisecond))
	if on, err := b.PoweredOn(within(t, patience)); on || err != nil {
		t.Errorf("ipmitool says on: %v, %v", on, err)
	}
	began = time.Now()
	check(t, d.Off(within(t, patience)))
	t.Logf("found off in %v", time.Since(began).Round(time.Millisecond))
	check(t, d.On(within(t, patience)))
	if on, _ := m.On(); !on {
		t.Error("it is not on again")
	}
	if err := open(t, params("hunter2", b.Addr().Port())).Check(within(t, patience)); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("wrong password: %v", err)
	}
	// The BMC says that it obeys, and does not.
	m.mu.Lock()
	m.deaf = true
	m.mu.Unlock()
	const short = 15 * time.Second
	fencetest.InTime(t, short, func() {
		if err := d.Off(within(t, short)); !errors.Is(err, fencemethods.ErrNotOff) && !errors.Is(err, fencemethods.ErrTimeout) {
			t.Errorf("a deaf BMC: %v", err)
		}
	})
	check(t, b.Close())
	if err := d.Off(within(t, short)); err == nil {
		t.Error("FALSE SUCCESS: nobody answers")
	}
}

// fence_dummy calls off what it cannot read, and keeps its state in a file: in a jail it can change
// none.
func TestFenceDummy(t *testing.T) {
	socket := startSandbox(t)
	status := filepath.Join(visibleDir(t), "status")
	params := func(options string) map[string]string {
		return map[string]string{"program": "/usr/sbin/fence_dummy", "socket": socket, "options": "status_file=" + status + options}
	}
	for text, want := range map[string]fencemethods.State{"on": fencemethods.On, "off": fencemethods.Off} {
		check(t, os.WriteFile(status, []byte(text), 0o644))
		if got, err := open(t, params("")).Status(within(t, patience)); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	check(t, os.WriteFile(status, []byte("on"), 0o644))
	if err := open(t, params("")).Off(within(t, 15*time.Second)); err == nil {
		t.Error("FALSE SUCCESS: it cannot have switched anything")
	}
	d := open(t, params(" type=recover random_sleep_range=1000000"))
	const limit = 5 * time.Second
	fencetest.InTime(t, limit, func() {
		if err := d.Off(within(t, limit)); !errors.Is(err, fencemethods.ErrTimeout) {
			t.Errorf("one that sleeps: %v", err)
		}
	})
}
