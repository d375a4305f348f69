// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/agent/sandbox"
	"github.com/o2fence/o2fence/test/bmc"
)

// Here Debian's own agents run in real jails, against real devices' servers. They need root and
// cgroup v2; test/agentapi runs them in a virtual machine that has both.

// The test's own program is the one inside a jail, and the PDU behind snmpd.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "inside":
		sandbox.Inside(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "pdu":
		servePDU(os.Args[2])
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
	began = time.Now()
	const short = 15 * time.Second
	if err := d.Off(within(t, short)); !errors.Is(err, fencemethods.ErrNotOff) && !errors.Is(err, fencemethods.ErrTimeout) {
		t.Errorf("a deaf BMC: %v", err)
	}
	if took := time.Since(began); took > short*11/10 {
		t.Errorf("a deaf BMC: it took %v", took)
	}
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
	began := time.Now()
	if err := d.Off(within(t, 5*time.Second)); !errors.Is(err, fencemethods.ErrTimeout) {
		t.Errorf("one that sleeps: %v", err)
	}
	if took := time.Since(began); took > 5500*time.Millisecond {
		t.Errorf("one that sleeps: it took %v", took)
	}
}

const snmpdConf = `agentAddress udp:127.0.0.1:%d
rwcommunity correct-horse 127.0.0.1
sysObjectID %s
%s
`

// startSNMPD starts net-snmp's snmpd; pdu is a file that has a line with the state of each outlet, "" for a box
// that is no PDU.
func startSNMPD(t *testing.T, pdu string) (port int) {
	t.Helper()
	if _, err := exec.LookPath("snmpd"); err != nil {
		t.Skip(err)
	}
	self, err := os.Executable()
	check(t, err)
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(t, err)
	port = l.LocalAddr().(*net.UDPAddr).Port
	l.Close()
	id, pass := ".1.3.6.1.4.1.8072.3.2.10", ""
	if pdu != "" {
		id, pass = ".1.3.6.1.4.1.318.1.3.4.5", "pass_persist "+pduRoot+" "+self+" pdu "+pdu
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "snmpd.conf")
	check(t, os.WriteFile(conf, fmt.Appendf(nil, snmpdConf, port, id, pass), 0o600))
	cmd := exec.Command("snmpd", "-f", "-Lo", "-C", "-c", conf, "-I", "-smux")
	cmd.Env = append(os.Environ(), "MIBS=", "SNMP_PERSISTENT_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "NET-SNMP version") { // it listens
			go func() {
				for lines.Scan() {
				}
			}()
			return port
		}
	}
	t.Fatal("snmpd ended")
	return 0
}

// The MIB of APC's rack PDUs (PowerNet-MIB, rPDU).
const (
	pduRoot    = ".1.3.6.1.4.1.318.1.1.12"
	pduControl = pduRoot + ".3.3.1.1.4."
	pduName    = pduRoot + ".3.5.1.1.2."
	pduState   = pduRoot + ".3.5.1.1.4."
	outlets    = 3
)

// servePDU answers snmpd by its pass_persist protocol (snmpd.conf(5)).
func servePDU(file string) {
	in := bufio.NewScanner(os.Stdin)
	line := func() string { in.Scan(); return in.Text() }
	for in.Scan() {
		switch in.Text() {
		case "PING":
			fmt.Println("PONG")
		case "get":
			fmt.Println(pduGet(file, line()))
		case "getnext":
			fmt.Println(pduNext(file, line()))
		case "set":
			fmt.Println(pduSet(file, line(), line()))
		}
	}
}

func pduGet(file, oid string) string {
	text, _ := os.ReadFile(file)
	states := strings.Fields(string(text))
	for _, column := range []string{pduControl, pduName, pduState} {
		n, err := strconv.Atoi(strings.TrimPrefix(oid, column))
		if err != nil || n < 1 || n > len(states) {
			continue
		}
		if column == pduName {
			return fmt.Sprintf("%s\nstring\noutlet %d", oid, n)
		}
		return fmt.Sprintf("%s\ninteger\n%s", oid, states[n-1])
	}
	return "NONE"
}

func pduNext(file, oid string) string {
	for _, column := range []string{pduControl, pduName, pduState} {
		if prefix := strings.TrimSuffix(column, "."); strings.HasPrefix(prefix, oid) || prefix == oid {
			return pduGet(file, column+"1")
		}
		if n, err := strconv.Atoi(strings.TrimPrefix(oid, column)); err == nil && n < outlets {
			return pduGet(file, fmt.Sprint(column, n+1))
		}
	}
	return "NONE"
}

func pduSet(file, oid, value string) string {
	text, _ := os.ReadFile(file)
	states := strings.Fields(string(text))
	n, err := strconv.Atoi(strings.TrimPrefix(oid, pduControl))
	if err != nil || n < 1 || n > len(states) {
		return "not-writable"
	}
	states[n-1] = strings.TrimPrefix(value, "integer ")
	if os.WriteFile(file, []byte(strings.Join(states, "\n")+"\n"), 0o600) != nil {
		return "not-writable"
	}
	return "DONE"
}

func TestFenceAPCSNMP(t *testing.T) {
	socket := startSandbox(t)
	pdu := filepath.Join(t.TempDir(), "pdu")
	check(t, os.WriteFile(pdu, []byte("1\n1\n2\n"), 0o600))
	states := func() string {
		text, err := os.ReadFile(pdu)
		check(t, err)
		return strings.Join(strings.Fields(string(text)), " ")
	}
	device := func(port int, plug, community string) fencemethods.Device {
		return open(t, map[string]string{
			"program": "/usr/sbin/fence_apc_snmp", "socket": socket, "plug": plug, "community_file": secretFile(t, community),
			"options": fmt.Sprintf("ip=127.0.0.1 ipport=%d snmp_version=2c", port),
		})
	}
	port := startSNMPD(t, pdu)
	began := time.Now()
	check(t, device(port, "2", "correct-horse").Off(within(t, patience)))
	t.Logf("fenced in %v", time.Since(began).Round(time.Millisecond))
	if got := states(); got != "1 2 2" {
		t.Errorf("outlets are %s", got)
	}
	check(t, device(port, "3", "correct-horse").Off(within(t, patience)))
	check(t, device(port, "3", "correct-horse").On(within(t, patience)))
	if got := states(); got != "1 2 1" {
		t.Errorf("outlets are %s", got)
	}
	// What the agent itself calls off, with exit code 0: finding F1.
	noPDU := startSNMPD(t, "")
	for name, d := range map[string]fencemethods.Device{
		"no such outlet":  device(port, "9", "correct-horse"),
		"no PDU at all":   device(noPDU, "1", "correct-horse"),
		"wrong community": device(port, "1", "hunter2"),
	} {
		err := d.Off(within(t, 30*time.Second))
		if err == nil {
			t.Errorf("FALSE SUCCESS: %s", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v: gives the secret away", name, err)
		}
		t.Logf("%s: %v", name, err)
	}
	if got := states(); got != "1 2 1" {
		t.Errorf("outlets are %s", got)
	}
}
