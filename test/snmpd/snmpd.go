// SPDX-License-Identifier: GPL-2.0-only

// Package snmpd starts net-snmp's snmpd for tests and benchmarks: a real SNMP agent, whose objects,
// the outlets of a power strip for instance, are the caller's.
package snmpd

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/gosnmp/gosnmp"

	"github.com/o2fence/o2fence/test/daemon"
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

// An Agent is a running snmpd. When it is restarted, its engine counts one boot more.
type Agent struct {
	*daemon.Daemon
	objects *objectServer
}

// Start starts an agent and returns when it answers. It keeps its files in dir, which has to exist
// and to be its own. ctx bounds the start alone; Close ends the agent.
func Start(ctx context.Context, dir string, c Config) (*Agent, error) {
	asker := gosnmp.GoSNMP{Version: gosnmp.Version2c, Community: c.Community}
	question, err := asker.SnmpEncodePacket(gosnmp.GetRequest, []gosnmp.SnmpPDU{{Name: ".1.3.6.1.2.1.1.3.0", Type: gosnmp.Null}}, 0, 0)
	if err != nil {
		return nil, err
	}
	objects, err := newObjectServer(c.Objects)
	if err != nil {
		return nil, err
	}
	a := &Agent{objects: objects}
	a.Daemon, err = daemon.Start(ctx, daemon.Config{
		Dir: dir, Addr: c.Addr, Question: question,
		Command: func(addr netip.AddrPort) (*exec.Cmd, error) {
			return command(dir, c.Without), configure(dir, addr, c, objects)
		},
	})
	if err != nil {
		objects.close()
		return nil, err
	}
	return a, nil
}

// Close ends the agent.
func (a *Agent) Close() error {
	a.Kill()
	a.objects.close()
	return nil
}

func command(dir string, without []string) *exec.Cmd {
	cmd := exec.Command("/usr/sbin/snmpd", "-f", "-Le", "-I", "-"+strings.Join(append([]string{"smux"}, without...), ","))
	// An option that names the configuration would split it at commas. What it remembers, its boots
	// for one, is read from the same path.
	state := filepath.Join(dir, "state")
	cmd.Env = append(os.Environ(), "MIBS=", "SNMPCONFPATH="+dir+":"+state, "SNMP_PERSISTENT_DIR="+state)
	return cmd
}

func configure(dir string, addr netip.AddrPort, c Config, objects *objectServer) error {
	family := ""
	if addr.Addr().Is6() {
		family = "6"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "agentAddress udp%s:%s\n", family, addr)
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
	hook := filepath.Join(dir, "hook")
	for _, root := range objects.roots() {
		fmt.Fprintf(&b, "pass_persist %s %s\n", root, hook)
	}
	if err := os.WriteFile(hook, []byte(objects.hook()), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "snmpd.conf"), []byte(b.String()), 0o600)
}
