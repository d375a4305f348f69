// SPDX-License-Identifier: GPL-2.0-only

package audit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/fencemethods/ask/desk"
	"github.com/o2fence/o2fence/test/netns"
	"github.com/o2fence/o2fence/test/vm"
)

// start starts a program that ends with the test, at the latest.
func (s *site) start(cmd *exec.Cmd) {
	s.Helper()
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(s, cmd.Start())
	s.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// A monitor is one of QEMU's (QMP).
type monitor struct {
	in  io.Writer
	out *bufio.Scanner
}

// do carries out a command, and returns what QEMU says to it.
func (m *monitor) do(command, arguments string) (json.RawMessage, error) {
	if _, err := fmt.Fprintf(m.in, "{\"execute\":%q,\"arguments\":%s,\"id\":%[1]q}\n", command, arguments); err != nil {
		return nil, err
	}
	for m.out.Scan() {
		var said struct {
			ID            string
			Return, Error json.RawMessage
		}
		if err := json.Unmarshal(m.out.Bytes(), &said); err != nil {
			return nil, err
		}
		switch {
		case said.ID != command: // an event, or the greeting
		case said.Error != nil:
			return nil, fmt.Errorf("%s: %s", command, said.Error)
		default:
			return said.Return, nil
		}
	}
	return nil, errors.Join(m.out.Err(), io.ErrUnexpectedEOF)
}

// qmp starts a virtual machine, which has nothing to boot, and runs. It has a monitor over TCP for the
// method, and one for the test.
func (s *site) qmp() {
	const uuid = "123e4567-e89b-12d3-a456-426614174000"
	cmd := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-m", "16", "-display", "none", "-nodefaults", "-uuid", uuid,
		"-qmp", "tcp:127.0.0.1:0,server=on,wait=off", "-qmp", "stdio")
	in, err := cmd.StdinPipe()
	check(s, err)
	out, err := cmd.StdoutPipe()
	check(s, err)
	s.start(cmd)
	m := &monitor{in, bufio.NewScanner(out)}
	_, err = m.do("qmp_capabilities", "{}")
	check(s, err)
	devices, err := m.do("query-chardev", "{}")
	check(s, err)
	addr := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindSubmatch(devices)
	if addr == nil {
		s.Fatalf("QEMU has no monitor: %s", devices)
	}
	s.node(func() error { _, err := m.do("cont", "{}"); return err },
		"method = qmp\nmonitor = %s:%s\nuuid = %s", vm.HostAddress, addr[1], uuid)
}

// The guest's ways to this host, as QEMU calls them. On the second the host is another one.
const (
	first         = "host"
	second        = "second"
	secondAddress = "10.0.3.2"
)

// forward has QEMU take what comes to the port that it returns to one of the guest's.
func (s *site) forward(way, protocol string, to int) int {
	s.Helper()
	conn, err := net.Dial("unix", s.vm.MonitorPath())
	check(s, err)
	defer conn.Close()
	m := &monitor{conn, bufio.NewScanner(conn)}
	_, err = m.do("qmp_capabilities", "{}")
	check(s, err)
	for range 10 {
		port := s.freePort()
		said, err := m.do("human-monitor-command",
			fmt.Sprintf(`{"command-line":"hostfwd_add %s %s:127.0.0.1:%d-:%d"}`, way, protocol, port, to))
		check(s, err)
		if string(said) == `""` {
			return port
		}
	}
	s.Fatal("no port is free")
	return 0
}

// kdumpPort is where the bridge listens, in the guest.
const kdumpPort = 7410

func (s *site) freePort() int {
	s.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(s, err)
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// kdump is a node whose kdump kernel answers challenges, by the layout in message.go of package kdump.
func (s *site) kdump() {
	conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: s.forward(first, "udp", kdumpPort)})
	check(s, err)
	ctx, cancel := context.WithCancel(s.ctx)
	var speaking sync.WaitGroup
	s.Cleanup(func() { cancel(); conn.Close(); speaking.Wait() })
	n := s.nodes + 1
	s.hush[n] = func() { cancel(); speaking.Wait() }
	begin := func() error {
		ctx, cancel = context.WithCancel(s.ctx)
		speaking.Go(func() { speak(ctx, conn, byte(n)) })
		return nil
	}
	s.node(begin, "method = kdump\naddrs = %s\nkey_file = %s", vm.HostAddress, s.keyFile())
}

// speak says hello, and proves that it is there, until ctx is done.
func speak(ctx context.Context, conn *net.UDPConn, node byte) {
	const (
		hello, challenge, proof = 1, 2, 3
		kindAt, oursAt, macAt   = 5, 8, 40
	)
	seal := func(p []byte) []byte {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write(p[:macAt])
		mac.Write(append([]byte("real\x00"), node))
		return mac.Sum(p[:macAt])
	}
	greeting := append([]byte("o2kd\x01"), make([]byte, macAt-5)...)
	greeting[kindAt] = hello
	copy(greeting[oursAt:], "this very crash.")
	greeting = seal(greeting)
	in := make([]byte, len(greeting))
	for ctx.Err() == nil {
		_, _ = conn.Write(greeting)
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := conn.Read(in)
		if err != nil || n != len(in) || in[kindAt] != challenge || !bytes.Equal(seal(bytes.Clone(in)), in) {
			continue
		}
		in[kindAt] = proof
		_, _ = conn.Write(seal(in))
	}
}

const never = 90000 // ms: the test has lost patience by then

// kdumpBeforeIPMI is a level that fence_kdump's sender of Debian's settles.
func (s *site) kdumpBeforeIPMI() {
	port := s.forward(second, "udp", kdumpPort)
	var sender *exec.Cmd
	stop := func() {
		if sender != nil {
			_ = sender.Process.Kill()
			_ = sender.Wait()
			sender = nil
		}
	}
	s.Cleanup(stop)
	s.hush[s.nodes+1] = stop
	begin := func() error {
		sender = exec.Command("/usr/libexec/fence-agents/fence_kdump_send", "-f", "ipv4", "-p", fmt.Sprint(port), "-i", "1", "127.0.0.1")
		return sender.Start()
	}
	const discard = 9
	s.node(begin, "level = any\ntimeout_ms = %d\nmethod = kdump\naddrs = %s\nplain = yes\nconfirm_ms = 100\n%s\nafter_ms = %d",
		never+30000, secondAddress, s.bmcAt(discard), never)
}

// ipmiBeforeKdump is one whose kdump kernel never speaks, and is called off.
func (s *site) ipmiBeforeKdump() {
	m := new(machine)
	s.node(m.on, "level = any\ntimeout_ms = 20000\nmethod = kdump\naddrs = 192.0.2.15\nkey_file = %s\n%s\nafter_ms = 200", s.keyFile(), s.bmc(m))
}

// key is everybody's whose messages have a seal.
const key = "0123456789abcdef0123456789abcdef"

func (s *site) keyFile() string {
	s.Helper()
	name := filepath.Join(s.dir, "key")
	check(s, os.WriteFile(name, []byte(key), 0o600))
	return name
}

// ask has an admin machine with the real o2fencectl, where somebody confirms all that is asked.
func (s *site) ask() {
	program, socket, port := filepath.Join(s.bin, "o2fencectl"), filepath.Join(s.TempDir(), "desk"), s.freePort()
	listen := exec.Command(program, "listen", "--json", "--listen", fmt.Sprint("127.0.0.1:", port), "--key-file", s.keyFile(), "--desk", socket)
	out, err := listen.StdoutPipe()
	check(s, err)
	said := newAwaited("listening on")
	listen.Stderr = said
	s.start(listen)
	check(s, said.await(s.ctx))
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var r desk.Record
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil || r.State != desk.Open {
				continue
			}
			// One that comes too late has its fence fail.
			_ = exec.Command(program, "confirm", r.Node, "--request", r.Request, "--reason", "pulled both cords", "--desk", socket).Run()
		}
	}()
	s.node(nil, "method = ask\naddrs = %s\nport = %d\nkey_file = %s\ntimeout_ms = 30000", vm.HostAddress, port, s.keyFile())
}

// An awaited is output, some words of which are waited for.
type awaited struct {
	words string
	mu    sync.Mutex
	text  strings.Builder
	found chan struct{}
}

func newAwaited(words string) *awaited { return &awaited{words: words, found: make(chan struct{})} }

func (a *awaited) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := strings.Contains(a.text.String(), a.words)
	a.text.Write(b)
	if !before && strings.Contains(a.text.String(), a.words) {
		close(a.found)
	}
	return len(b), nil
}

func (a *awaited) await(ctx context.Context) error {
	select {
	case <-a.found:
		return nil
	case <-ctx.Done():
		a.mu.Lock()
		defer a.mu.Unlock()
		return fmt.Errorf("%q was not said: %w\n%s", a.words, ctx.Err(), a.text.String())
	}
}

// ipban has o2fence-ipban, in a network of its own so that its rules are nobody else's.
func (s *site) ipban() {
	n := s.nodes + 1
	if os.Getuid() != 0 {
		s.node(func() error { return absent("network namespaces need root") }, "method = watchdog\nwait = 100")
		return
	}
	space, dir := netns.New(s.T), s.TempDir()
	conf := filepath.Join(dir, "ipban.conf")
	check(s, os.WriteFile(conf, fmt.Appendf(nil, `server:
	listen = 127.0.0.1
	key_file = %s
	target = other
	settle_ms = 0
	hold_ms = 0

node:
	cluster = real
	name = n%d
	number = %[2]d
	addresses = 198.51.100.1
`, s.keyFile(), n), 0o600))
	args := []string{filepath.Join(s.bin, "o2fence-ipban"), "--config", conf, "--state", filepath.Join(dir, "state")}
	s.start(space.Command(append(args, "serve")...))
	var banning, front *net.UDPConn
	space.Do(func() (err error) {
		banning, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7412})
		return err
	})
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(s, err)
	s.lead(front, banning)
	banned := false
	release := func() error {
		if !banned {
			banned = true // from the first fence on
			return nil
		}
		out, err := space.Command(append(args, "release", fmt.Sprint("n", n))...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
	s.node(release, "method = ipban\naddrs = %s\nport = %d\nkey_file = %s", vm.HostAddress, front.LocalAddr().(*net.UDPAddr).Port, s.keyFile())
}

// lead takes one client's packets from here to a server in another network, and the answers back.
func (s *site) lead(front, back *net.UDPConn) {
	var client net.Addr
	var mu sync.Mutex
	var leading sync.WaitGroup
	s.Cleanup(func() { front.Close(); back.Close(); leading.Wait() })
	leading.Go(func() {
		for p := make([]byte, 2048); ; {
			n, from, err := front.ReadFrom(p)
			if err != nil {
				return
			}
			mu.Lock()
			client = from
			mu.Unlock()
			_, _ = back.Write(p[:n]) // which nobody may take yet
		}
	})
	leading.Go(func() {
		for p := make([]byte, 2048); ; {
			n, err := back.Read(p)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			mu.Lock()
			to := client
			mu.Unlock()
			if err == nil && to != nil {
				_, _ = front.WriteTo(p[:n], to)
			}
		}
	})
}

// nvme is a namespace that the guest serves itself, across its network card twice: out to the host and back.
func (s *site) nvme() {
	const nvmetPort = 4420
	port := fmt.Sprint(s.forward(first, "tcp", nvmetPort))
	check(s, os.WriteFile(filepath.Join(s.dir, "nvme"), []byte(port), 0o600))
	s.node(nil, "method = nvme\nnamespaces = uuid.%s\npersist = no\nmethod = watchdog\nwait = 100", nvmeUUID)
}
