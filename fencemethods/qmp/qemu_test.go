// SPDX-License-Identifier: GPL-2.0-only

package qmp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc/wire"
)

// The guests are boot sectors. They need no operating system, and QEMU needs no KVM for them.
var (
	// writer increments a word and writes it to the disk's second sector, for ever:
	// inc word [0x7e00]; mov ax,0x0301; mov bx,0x7e00; mov cx,2; mov dx,0x80; int 0x13.
	writer = []byte("\x31\xc0\x8e\xd8\x8e\xc0\x8e\xd0\xbc\x00\x7c" +
		"\xff\x06\x00\x7e\xb8\x01\x03\xbb\x00\x7e\xb9\x02\x00\xba\x80\x00\xcd\x13\xeb\xec")
	// sleeper waits for what never comes, and takes no time of a processor: cli; hlt; jmp -2.
	sleeper = []byte("\xfa\xf4\xeb\xfd")
	// leaver switches the machine off: mov dx,0x604; mov ax,0x2000; out dx,ax; jmp $.
	leaver = []byte("\xba\x04\x06\xb8\x00\x20\xef\xeb\xfe")
)

const sector = 512

const testUUID = "123e4567-e89b-12d3-a456-426614174000"

// A qemu is a virtual machine with two monitors: one for the method under test, at addr, and one for
// the test.
type qemu struct {
	testing.TB
	cmd   *exec.Cmd
	disk  string
	addr  string
	admin *bufio.ReadWriter
}

// startQEMU starts a virtual machine with a guest, and returns when the guest runs.
func startQEMU(t testing.TB, network string, guest []byte, args ...string) *qemu {
	t.Helper()
	program, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	q := &qemu{TB: t, disk: filepath.Join(dir, "disk"), addr: filepath.Join(dir, "qmp")}
	image := make([]byte, 2048*sector)
	copy(image, guest)
	copy(image[sector-2:], "\x55\xaa")
	if err := os.WriteFile(q.disk, image, 0o600); err != nil {
		t.Fatal(err)
	}
	monitor := "unix:" + q.addr
	if network == "tcp4" {
		monitor = "tcp:127.0.0.1:0"
	}
	admin := filepath.Join(dir, "admin")
	q.cmd = exec.Command(program, append([]string{
		"-accel", "tcg", "-m", "16", "-display", "none", "-nodefaults", "-uuid", testUUID,
		"-drive", "file=" + q.disk + ",format=raw,if=ide",
		"-qmp", monitor + ",server=on,wait=off", "-qmp", "unix:" + admin + ",server=on,wait=off",
	}, args...)...)
	q.cmd.Stderr = os.Stderr
	// Whatever becomes of this test, its machines do not outlive it.
	q.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := q.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.cmd.Process.Kill(); _ = q.cmd.Wait() })
	var c net.Conn
	q.until("the monitor is there", func() bool {
		c, err = net.Dial("unix", admin)
		return err == nil
	})
	t.Cleanup(func() { c.Close() })
	q.admin = bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
	q.do("qmp_capabilities", "{}")
	if network == "tcp4" {
		q.addr = regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(string(q.do("query-chardev", "{}")))
	}
	if bytes.Equal(guest, writer) {
		q.until("the guest writes", func() bool { return !bytes.Equal(q.written(), make([]byte, 2)) })
	}
	return q
}

func (q *qemu) until(what string, f func() bool) {
	q.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			q.Fatal("waited in vain until", what)
		}
	}
}

// do gives a command to the test's own monitor.
func (q *qemu) do(command, arguments string) json.RawMessage {
	q.Helper()
	fmt.Fprintf(q.admin, "{\"execute\":%q,\"arguments\":%s,\"id\":\"test\"}\n", command, arguments)
	if err := q.admin.Flush(); err != nil {
		q.Fatal(err)
	}
	for {
		line, err := q.admin.ReadBytes('\n')
		if err != nil {
			q.Fatal(command, err)
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			q.Fatal(err)
		}
		if m.ID == "test" {
			return m.Return
		}
	}
}

func (q *qemu) status() status {
	q.Helper()
	s, ok := decodeStatus(q.do("query-status", "{}"))
	if !ok {
		q.Fatal("no status")
	}
	return s
}

// written is what the guest wrote last.
func (q *qemu) written() []byte {
	q.Helper()
	f, err := os.Open(q.disk)
	if err != nil {
		q.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 2)
	if _, err := f.ReadAt(b, sector); err != nil {
		q.Fatal(err)
	}
	return b
}

// quiet is how long a guest has to have written nothing: that it does not cannot be waited for. One
// that runs writes thousands of times meanwhile.
const quiet = 300 * time.Millisecond

// mustBeOff looks at the machine itself, whatever the method says.
func (q *qemu) mustBeOff() {
	q.Helper()
	before := q.written()
	time.Sleep(quiet)
	if s := q.status(); s.Running || !bytes.Equal(before, q.written()) {
		q.Errorf("FALSE SUCCESS: status %v, the guest wrote %x, then %x", s, before, q.written())
	}
}

// open opens a device for the machine.
func (q *qemu) open(others map[string]string) fencemethods.Device {
	q.Helper()
	p := params(q.addr)
	maps.Copy(p, others)
	return fencetest.Open(q, Method(), p)
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func soon(t testing.TB) context.Context { return within(t, 20*time.Second) }

func (q *qemu) mustOff(d fencemethods.Device) {
	q.Helper()
	if err := d.Off(soon(q)); err != nil {
		q.Fatal(err)
	}
	q.mustBeOff()
}

func (q *qemu) mustStatus(d fencemethods.Device, want fencemethods.State) {
	q.Helper()
	if state, err := d.Status(soon(q)); err != nil || state != want {
		q.Errorf("Status = %v, %v; want %v", state, err, want)
	}
}

func TestAGuestThatIsOffWritesNoMore(t *testing.T) {
	for _, network := range []string{"unix", "tcp4"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			q := startQEMU(t, network, writer)
			d := q.open(map[string]string{"uuid": testUUID})
			if err := d.Check(soon(t)); err != nil {
				t.Fatal(err)
			}
			q.mustStatus(d, fencemethods.On)
			q.mustOff(d)
			q.mustStatus(d, fencemethods.Off)
			q.mustOff(d)
			last := q.written()
			if err := d.On(soon(t)); err != nil {
				t.Fatal(err)
			}
			q.mustStatus(d, fencemethods.On)
			q.until("the guest writes again", func() bool { return !bytes.Equal(last, q.written()) })
			q.mustOff(d)
		})
	}
}

// QEMU is real, and the wire lies.
func TestFaultsOnTheWireToQEMU(t *testing.T) {
	var tape wire.Tape
	for name, fault := range map[string]wire.Fault{
		"lossy": wire.Lossy(), "double": wire.Double, "shuffle": wire.Shuffle,
		"noise": wire.Noise, "corrupt": wire.Corrupt(), "replay": tape.Play,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := startQEMU(t, "unix", writer)
			w, err := wire.NewLines("unix", q.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.Close() })
			d := q.open(map[string]string{"monitor": fmt.Sprint("127.0.0.1:", w.Port())})
			if name == "replay" {
				w.SetFault(tape.Record)
				q.mustOff(d)
				if err := d.On(soon(t)); err != nil {
					t.Fatal(err)
				}
			}
			w.SetFault(fault)
			q.mustOff(d)
		})
	}
}

func TestAPausedMachineIsNotOff(t *testing.T) {
	q := startQEMU(t, "unix", writer)
	d := q.open(nil)
	q.do("stop", "{}")
	q.mustStatus(d, fencemethods.On)
	q.mustOff(d)
	if s := q.status(); s.Status != statusPrelaunch {
		t.Errorf("status %v after Off", s)
	}
}

// Those who start QEMU with -no-reboot want a reset to end it.
func TestAResetDoesNotEndQEMU(t *testing.T) {
	q := startQEMU(t, "unix", writer, "-no-reboot")
	q.mustOff(q.open(nil))
}

func TestAMachineThatSwitchedItselfOffIsOff(t *testing.T) {
	q := startQEMU(t, "unix", leaver, "-no-shutdown")
	d := q.open(nil)
	q.until("the guest has left", func() bool { return q.status().Status == statusShutdown })
	q.mustStatus(d, fencemethods.Off)
	q.mustOff(d)
	if q.status().Status != statusShutdown {
		t.Error("a machine that was off was reset")
	}
	// It comes back, to leave again.
	if err := d.On(within(t, 2*time.Second)); err != nil && !errors.Is(err, fencemethods.ErrTimeout) {
		t.Error(err)
	}
	if strings.Contains(string(q.do("query-status", "{}")), statusPrelaunch) {
		t.Error("it was not started")
	}
}

// What is left here of a machine that was taken away says nothing about it: not when QEMU has been
// reset since, by whomever.
func TestAMachineThatHasMigratedIsNotOff(t *testing.T) {
	q := startQEMU(t, "unix", writer)
	d := q.open(nil)
	q.migrate()
	for _, reset := range []bool{false, true} {
		if reset {
			q.do("system_reset", "{}")
			q.until("it is reset", func() bool { return q.status().Status == statusPrelaunch })
		}
		q.mustStatus(d, fencemethods.Unknown)
		if err := d.Off(within(t, time.Second)); !errors.Is(err, fencemethods.ErrTimeout) || !strings.Contains(err.Error(), "moved") {
			t.Errorf("reset %v: %v", reset, err)
		}
	}
}

// migrate moves the machine nowhere, which QEMU does not know.
func (q *qemu) migrate() {
	q.Helper()
	q.do("migrate", `{"uri":"exec:cat >/dev/null"}`)
	q.until("it has migrated", func() bool { return decodeMigration(q.do("query-migrate", "{}")) == migrationOver })
	q.until("it is stopped", func() bool { return q.status().Status == "postmigrate" })
}

// Saving a machine's memory is a migration too.
func TestAMachineThatWasOnceSavedCanBeFenced(t *testing.T) {
	q := startQEMU(t, "unix", writer)
	q.migrate()
	q.do("cont", "{}")
	q.mustOff(q.open(nil))
}

func TestAMachineOnItsWayIsHeld(t *testing.T) {
	q := startQEMU(t, "unix", writer)
	q.do("migrate-set-parameters", `{"max-bandwidth":4096}`)
	q.do("migrate", `{"uri":"exec:cat >/dev/null"}`)
	q.until("it is on its way", func() bool {
		return strings.Contains(string(q.do("query-migrate", "{}")), `"active"`)
	})
	q.mustOff(q.open(nil))
	if m := decodeMigration(q.do("query-migrate", "{}")); m != migrationNone {
		t.Errorf("migration %v", m)
	}
}

func TestAnotherMachineIsLeftAlone(t *testing.T) {
	q := startQEMU(t, "unix", writer)
	d := q.open(map[string]string{"uuid": strings.Replace(testUUID, "1", "2", 1)})
	for name, err := range map[string]error{"check": d.Check(soon(t)), "off": d.Off(soon(t))} {
		if !errors.Is(err, fencemethods.ErrRefused) || !strings.Contains(err.Error(), "check monitor and uuid") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !q.status().Running {
		t.Error("it was stopped")
	}
}

// A machine that cannot be asked is not off, even when it is gone.
func TestAQEMUThatDoesNotAnswerProvesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(*qemu)
		kind error
		text string
	}{
		"gone":  {func(q *qemu) { _ = q.cmd.Process.Kill(); _ = q.cmd.Wait() }, fencemethods.ErrUnreachable, "QEMU runs"},
		"hangs": {func(q *qemu) { _ = q.cmd.Process.Signal(syscall.SIGSTOP) }, fencemethods.ErrUnreachable, "one client at a time"},
		"monitor taken": {func(q *qemu) {
			c, err := net.Dial("unix", q.addr)
			if err != nil {
				q.Fatal(err)
			}
			q.Cleanup(func() { c.Close() })
			_, _ = c.Read(make([]byte, 1))
		}, fencemethods.ErrUnreachable, "one client at a time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := startQEMU(t, "unix", writer)
			d := q.open(nil)
			c.harm(q)
			fencetest.InTime(t, time.Second, func() {
				err := d.Off(within(t, time.Second))
				if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%v; want %v and %q", err, c.kind, c.text)
				}
			})
			if state, _ := d.Status(within(t, time.Second)); state != fencemethods.Unknown {
				t.Errorf("Status = %v", state)
			}
		})
	}
}
