// SPDX-License-Identifier: GPL-2.0-only

package audit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/o2fence/o2fence/fencemethods/catalog"
	"github.com/o2fence/o2fence/test/bmc"
	"github.com/o2fence/o2fence/test/redfishd"
	"github.com/o2fence/o2fence/test/snmpd"
	"github.com/o2fence/o2fence/test/vm"
)

// A site has the devices of all nodes. Most answer here, on the host, and so across a network card: what
// comes by the loopback is received in the sender's own system call.
type site struct {
	*testing.T
	ctx    context.Context
	vm     *vm.VM
	dir    string // of the configuration
	bin    string // of the programs
	secret string // is in this file

	conf    strings.Builder
	nodes   int                  // 0 is the machine itself
	prepare map[int]func() error // what has to be done before each fence of a node; nil: nothing
	hush    map[int]func()       // ends what that has begun
}

// absent is why a node's device cannot be had here.
type absent string

func (a absent) Error() string { return string(a) }

// node configures the next node.
func (s *site) node(prepare func() error, stanza string, args ...any) {
	s.nodes++
	s.prepare[s.nodes] = prepare
	fmt.Fprintf(&s.conf, "\nfence:\n\tnode = n%d\n", s.nodes)
	for line := range strings.Lines(fmt.Sprintf(stanza, args...)) {
		s.conf.WriteString("\t" + strings.TrimSpace(line) + "\n")
	}
}

// configure starts the devices, and writes how each node is fenced. The guest's tests know the nodes by
// number, in this order.
func (s *site) configure() {
	s.prepare, s.hush = map[int]func() error{}, map[int]func(){}
	s.secret = filepath.Join(s.dir, "password")
	check(s, os.WriteFile(s.secret, []byte(password), 0o600))

	s.ipmi()
	s.node(nil, "method = watchdog\nwait = 100")
	a, b := s.strip(3, 4), s.strip(5)
	s.node(a.on, "%s", a.outlet(3))
	s.redfish()
	s.node(nil, "method = sbd\ndisks = /dev/vdb\nslot = n5")
	s.ifmib()
	s.qmp()
	s.kdump()
	s.ask()
	s.ipban()
	// LIO's loopback does not come back from PREEMPT AND ABORT.
	s.node(nil, "method = scsi\ndisks = %s\nabort = no\npersist = no", wwid)
	s.nvme()
	both := func() error { return errors.Join(a.on(), b.on()) }
	s.node(both, "level = all\ntimeout_ms = 20000\n%s\n%s", a.outlet(4), b.outlet(5))
	s.kdumpBeforeIPMI()
	s.ipmiBeforeKdump()
	s.lacks()

	var cluster strings.Builder
	fmt.Fprintf(&cluster, "cluster:\n\tname = real\n\tnode_count = %d\n", s.nodes+1)
	for n := range s.nodes + 1 {
		name := fmt.Sprint("n", n)
		if n == 0 {
			name = s.vm.Name()
		}
		fmt.Fprintf(&cluster, "\nnode:\n\tcluster = real\n\tname = %s\n\tnumber = %d\n\tip_address = 192.0.2.%[2]d\n\tip_port = 7777\n", name, n)
	}
	check(s, os.WriteFile(filepath.Join(s.dir, "cluster.conf"), []byte(cluster.String()), 0o600))
	check(s, os.WriteFile(filepath.Join(s.dir, "fence.conf"), []byte("cluster:\n\tname = real\n\tthen = off\n"+s.conf.String()), 0o600))
	check(s, os.WriteFile(filepath.Join(s.dir, "host"), []byte(s.serve()), 0o600))
}

// lacks complains of methods that are not audited.
func (s *site) lacks() {
	elsewhere := map[string]string{
		"relay": "in test/relay, with the relay itself",
		"agent": "runs programs",
		"test":  "fences nothing",
	}
	for _, m := range catalog.Methods() {
		if elsewhere[m.Name] == "" && !strings.Contains(s.conf.String(), "\tmethod = "+m.Name+"\n") {
			s.Errorf("method %s is not audited", m.Name)
		}
	}
}

// serve lets the guest ask for a node to be prepared, and returns where.
func (s *site) serve() string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	check(s, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, hush := range s.hush {
			hush()
		}
		n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		prepare := s.prepare[n]
		if err == nil && prepare != nil {
			err = prepare()
		}
		switch err.(type) {
		case nil:
		case absent:
			http.Error(w, err.Error(), http.StatusNotImplemented)
		default:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})}
	go func() { _ = server.Serve(l) }()
	s.Cleanup(func() { server.Close() })
	return fmt.Sprintf("http://%s:%d/", vm.HostAddress, l.Addr().(*net.TCPAddr).Port)
}

// The identifiers of disks that the guest makes.
const (
	wwid     = "naa.60014055d2c0e8ba141f76c93ee027b5"
	nvmeUUID = "5e0f0000-0000-4000-8000-000000000001"
)

// A machine is one that a device switches; see bmc.Power.
type machine struct {
	mu  sync.Mutex
	off bool
}

func (m *machine) On() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.off, nil
}

func (m *machine) SetOn(on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off = !on
	return nil
}

// Reset does nothing: nobody is to use it.
func (m *machine) Reset() error { return os.ErrInvalid }

// on is for prepare: a fence is to find everything to do.
func (m *machine) on() error { return m.SetOn(true) }

func (s *site) ipmi() {
	m := new(machine)
	s.node(m.on, "%s", s.bmc(m))
}

// bmc starts a BMC, and returns how it is configured.
func (s *site) bmc(m *machine) string {
	b, err := bmc.Start(s.ctx, s.TempDir(), bmc.Config{User: "fence", Password: password, Power: m})
	check(s, err)
	s.Cleanup(func() { b.Close() })
	return s.bmcAt(int(b.Addr().Port()))
}

func (s *site) bmcAt(port int) string {
	return fmt.Sprintf("method = ipmi\naddr = %s\nport = %d\nuser = fence\npassword_file = %s", vm.HostAddress, port, s.secret)
}

func (s *site) redfish() {
	m := new(machine)
	r, err := redfishd.Start(redfishd.Config{User: "fence", Password: password, Power: m})
	check(s, err)
	s.Cleanup(func() { r.Close() })
	s.node(m.on, "method = redfish\naddr = %s\nport = %d\ncertificate = %s\nsystem = %s\nuser = fence\npassword_file = %s",
		vm.HostAddress, r.Addr().Port(), r.Fingerprint(), redfishd.System, s.secret)
}

// agent starts an SNMP agent, and returns the parameters that lead there.
func (s *site) agent(c snmpd.Config) string {
	c.Community = password
	c.Users = []snmpd.User{{Name: "fence", Auth: "SHA-256", AuthPass: password, Priv: "AES", PrivPass: password}}
	a, err := snmpd.Start(s.ctx, s.TempDir(), c)
	check(s, err)
	s.Cleanup(func() { a.Close() })
	return fmt.Sprintf("addr = %s\nport = %d\nversion = 3\nuser = fence\nauth = sha256\nauth_file = %s\npriv = aes\npriv_file = %[3]s",
		vm.HostAddress, a.Addr().Port(), s.secret)
}

// A strip is an APC rPDU (PowerNet-MIB).
type strip struct {
	where   string
	outlets []*machine
}

func (s *site) strip(outlets ...int) *strip {
	const rPDU = ".1.3.6.1.4.1.318.1.1.12"
	p := &strip{}
	c := snmpd.Config{SysObjectID: ".1.3.6.1.4.1.318.1.3.4.5"}
	for _, n := range outlets {
		m := new(machine)
		p.outlets = append(p.outlets, m)
		c.Objects = append(c.Objects,
			snmpd.Object{Name: fmt.Sprint(rPDU, ".3.5.1.1.4.", n), Root: rPDU, Get: func() any {
				if on, _ := m.On(); on {
					return 1
				}
				return 2
			}},
			snmpd.Object{
				Name: fmt.Sprint(rPDU, ".3.3.1.1.4.", n), Root: rPDU, Get: func() any { return 1 },
				Set: func(v int) error { return m.SetOn(v == 1) },
			},
		)
	}
	p.where = s.agent(c)
	return p
}

// outlet is how an outlet is configured.
func (p *strip) outlet(n int) string {
	return fmt.Sprintf("method = snmp\n%s\nmodel = apc-rpdu\noutlets = %d", p.where, n)
}

func (p *strip) on() error {
	for _, m := range p.outlets {
		_ = m.SetOn(true)
	}
	return nil
}

// ifmib makes a switch with a port among others (IF-MIB).
func (s *site) ifmib() {
	const (
		interfaces, ifX = ".1.3.6.1.2.1.2", ".1.3.6.1.2.1.31"
		ports, ours     = 30, 7
	)
	m := new(machine)
	c := snmpd.Config{Without: []string{"ifTable", "ifXTable", "interfaces", "interface"}}
	for n := range ports {
		status := func() any {
			if on, _ := m.On(); n != ours || on {
				return 1
			}
			return 2
		}
		c.Objects = append(c.Objects,
			snmpd.Object{Name: fmt.Sprint(ifX, ".1.1.1.1.", n+1), Root: ifX, Get: func() any { return fmt.Sprint("port", n) }},
			snmpd.Object{Name: fmt.Sprint(interfaces, ".2.1.8.", n+1), Root: interfaces, Get: status},
			snmpd.Object{Name: fmt.Sprint(interfaces, ".2.1.7.", n+1), Root: interfaces, Get: status, Set: func(v int) error {
				if n != ours {
					return os.ErrInvalid
				}
				return m.SetOn(v == 1)
			}},
		)
	}
	s.node(m.on, "method = ifmib\n%s\ninterface = port%d", s.agent(c), ours)
}
