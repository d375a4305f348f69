// SPDX-License-Identifier: GPL-2.0-only

// Package snmpd starts net-snmp's snmpd for tests and benchmarks: a real SNMP agent, whose objects,
// the outlets of a power strip for instance, are the caller's.
package snmpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gosnmp/gosnmp"
)

// A Config is what an agent shall be like.
type Config struct {
	Addr        netip.AddrPort // where it listens; the zero value and port 0 mean a free port of 127.0.0.1
	SysObjectID string         // "" is net-snmp's own
	SysName     string
	Community   string   // may write everything; it has to be there
	ReadOnly    string   // a community that may only read; "" is none
	Users       []User   // of version 3
	Objects     []Object // its own ones come first, unless left out
	Without     []string // modules of snmpd's own that are left out, such as ifTable
}

// A User is one of SNMP version 3.
type User struct {
	Name                     string
	Auth, AuthPass           string // protocol as snmpd.conf has it, such as SHA-256
	Priv, PrivPass           string // such as AES
	ReadOnly, WithoutPrivacy bool
}

// An Agent is a running snmpd.
type Agent struct {
	config  Config
	dir     string
	objects *objectServer
	cmd     *exec.Cmd
	exited  chan struct{}
}

// Start starts an agent and returns when it answers. It keeps its files in dir, which has to exist
// and to be its own. ctx bounds the start alone; Close ends the agent.
func Start(ctx context.Context, dir string, c Config) (*Agent, error) {
	if !c.Addr.IsValid() {
		c.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	}
	objects, err := newObjectServer(c.Objects)
	if err != nil {
		return nil, err
	}
	a := &Agent{config: c, dir: dir, objects: objects}
	if err := a.launch(ctx); err != nil {
		objects.close()
		return nil, err
	}
	return a, nil
}

// Addr is where the agent listens.
func (a *Agent) Addr() netip.AddrPort { return a.config.Addr }

// Restart ends the agent and starts it again at the same address; its engine counts one boot more.
func (a *Agent) Restart(ctx context.Context) error {
	a.kill()
	return a.launch(ctx)
}

// Close ends the agent.
func (a *Agent) Close() error {
	a.kill()
	a.objects.close()
	return nil
}

func (a *Agent) kill() {
	_ = a.cmd.Process.Kill()
	<-a.exited
}

// launch starts the process and waits until it answers. The port that was free a moment ago may
// not be any more, so another one is tried.
func (a *Agent) launch(ctx context.Context) error {
	anyPort := a.config.Addr.Port() == 0
	for try := 0; ; try++ {
		if anyPort {
			addr, err := freePort(a.config.Addr.Addr())
			if err != nil {
				return err
			}
			a.config.Addr = addr
		}
		err := a.run(ctx)
		if err == nil || !anyPort || try == 2 || ctx.Err() != nil {
			return err
		}
	}
}

func (a *Agent) run(ctx context.Context) error {
	if err := a.configure(); err != nil {
		return err
	}
	log := filepath.Join(a.dir, "log")
	a.cmd = exec.Command("/usr/sbin/snmpd", "-f", "-Lf", log,
		"-I", "-"+strings.Join(append([]string{"smux"}, a.config.Without...), ","))
	a.cmd.Dir = a.dir
	// An option that names the configuration would split it at commas. What it remembers, its boots
	// for one, is read from the same path.
	state := filepath.Join(a.dir, "state")
	a.cmd.Env = append(os.Environ(), "MIBS=", "SNMPCONFPATH="+a.dir+":"+state, "SNMP_PERSISTENT_DIR="+state)
	// Should this process be killed, its agents must not stay behind.
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.cmd.Start(); err != nil {
		return err
	}
	a.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(a.cmd, a.exited)
	if err := a.ready(ctx); err != nil {
		a.kill()
		text, _ := os.ReadFile(log)
		return fmt.Errorf("snmpd: %w\n%s", err, text[max(0, len(text)-2000):])
	}
	return nil
}

func (a *Agent) configure() error {
	c := a.config
	family := ""
	if c.Addr.Addr().Is6() {
		family = "6"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "agentAddress udp%s:%s\n", family, c.Addr)
	for _, line := range []struct{ word, value string }{
		{"rwcommunity" + family, c.Community},
		{"rocommunity" + family, c.ReadOnly},
		{"sysObjectID", c.SysObjectID},
		{"sysName", c.SysName},
	} {
		if line.value != "" {
			fmt.Fprintf(&b, "%s %s\n", line.word, line.value)
		}
	}
	for _, u := range c.Users {
		word, level := "rwuser", "priv"
		if u.ReadOnly {
			word = "rouser"
		}
		fmt.Fprintf(&b, "createUser %s %s %q", u.Name, u.Auth, u.AuthPass)
		if u.WithoutPrivacy {
			level = "auth"
		} else {
			fmt.Fprintf(&b, " %s %q", u.Priv, u.PrivPass)
		}
		fmt.Fprintf(&b, "\n%s %s %s\n", word, u.Name, level)
	}
	hook := filepath.Join(a.dir, "hook")
	for _, root := range a.objects.roots() {
		fmt.Fprintf(&b, "pass_persist %s %s\n", root, hook)
	}
	if err := os.WriteFile(hook, []byte(a.objects.hook()), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(a.dir, "snmpd.conf"), []byte(b.String()), 0o600)
}

// ready waits until the agent answers anything.
func (a *Agent) ready(ctx context.Context) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(a.config.Addr))
	if err != nil {
		return err
	}
	defer conn.Close()
	asker := gosnmp.GoSNMP{Version: gosnmp.Version2c, Community: a.config.Community}
	question, err := asker.SnmpEncodePacket(gosnmp.GetRequest, []gosnmp.SnmpPDU{{Name: ".1.3.6.1.2.1.1.3.0", Type: gosnmp.Null}}, 0, 0)
	if err != nil {
		return err
	}
	answer := make([]byte, 512)
	for {
		select {
		case <-a.exited:
			return errors.New("exited early")
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		_, _ = conn.Write(question)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := conn.Read(answer); err == nil {
			return nil
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			time.Sleep(5 * time.Millisecond) // not listening yet
		}
	}
}

func freePort(addr netip.Addr) (netip.AddrPort, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer c.Close()
	return netip.AddrPortFrom(addr, uint16(c.LocalAddr().(*net.UDPAddr).Port)), nil
}
