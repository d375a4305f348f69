// SPDX-License-Identifier: GPL-2.0-only

package ifmib

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc/wire"
	"github.com/o2fence/o2fence/test/snmpd"
)

const (
	community  = "s3cretCommunity"
	readOnly   = "justLooking"
	user       = "fence"
	authSecret = "s3cretAuthentication"
	privSecret = "s3cretPrivacy"
)

// TestMain lets many cases wait at the same time: most of them do nothing else.
func TestMain(m *testing.M) {
	if dir := os.Getenv(serveVar); dir != "" {
		serve(dir)
		return
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	m.Run()
}

// A row is a port of a pretended switch.
type row struct {
	name        func() string
	admin, oper func() any
	set         func(int) error
}

// ports makes the objects of a switch whose rows have these numbers.
func ports(rows map[int]*row) []snmpd.Object {
	const interfaces, ifX = ".1.3.6.1.2.1.2", ".1.3.6.1.2.1.31"
	var objects []snmpd.Object
	for number, r := range rows {
		at := func(column string) string { return fmt.Sprintf("%s.%d", column, number) }
		objects = append(objects,
			snmpd.Object{Name: at(ifDescr), Root: interfaces, Get: func() any { return "description of " + r.name() }},
			snmpd.Object{Name: at(ifAdminStatus), Root: interfaces, Get: r.admin, Set: r.set},
			snmpd.Object{Name: at(ifOperStatus), Root: interfaces, Get: r.oper},
			snmpd.Object{Name: at(ifName), Root: ifX, Get: func() any { return r.name() }},
			snmpd.Object{Name: at(ifAlias), Root: ifX, Get: func() any { return "node " + r.name() }},
		)
	}
	return objects
}

// fixed is a port that is as it is.
func fixed(name string, admin, oper int) *row {
	return &row{called(name), func() any { return admin }, func() any { return oper }, nil}
}

func called(name string) func() string { return func() string { return name } }

// wired is a port that the machine's life depends on.
func wired(name string, m *fencetest.Machine) *row {
	status := func() any {
		switch on, err := m.On(); {
		case err != nil:
			return 4
		case on:
			return up
		default:
			return down
		}
	}
	return &row{called(name), status, status, func(value int) error {
		if value != up && value != down {
			return os.ErrInvalid
		}
		return m.SetOn(value == up)
	}}
}

// own are the modules of snmpd's that would tell of this machine's interfaces.
func own() []string { return []string{"ifTable", "ifXTable", "interfaces", "interface"} }

func startSwitch(t testing.TB, c snmpd.Config) *snmpd.Agent {
	t.Helper()
	c.SysName, c.Community, c.ReadOnly = "switch1", community, readOnly
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, err := snmpd.Start(ctx, t.TempDir(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// access makes the credentials for a switch, right ones and wrong ones.
func access(t *testing.T, version3 bool, c *snmpd.Config) (params, wrong map[string]string) {
	t.Helper()
	if !version3 {
		return map[string]string{"version": "2c", "community_file": fencetest.SecretFile(t, community)},
			map[string]string{"community_file": fencetest.SecretFile(t, readOnly)}
	}
	c.Users = []snmpd.User{{Name: user, Auth: "SHA-256", AuthPass: authSecret, Priv: "AES", PrivPass: privSecret}}
	params = map[string]string{
		"version": "3", "user": user, "auth": "sha256", "auth_file": fencetest.SecretFile(t, authSecret),
		"priv": "aes", "priv_file": fencetest.SecretFile(t, privSecret),
	}
	return params, map[string]string{"auth_file": fencetest.SecretFile(t, "notThePassword")}
}

const (
	portsOfASwitch = 48
	crowdPorts     = 2000 // the highest number of one
	crowd          = "ports of switches that have 48 each"
)

func crowdPort(i int) string { return fmt.Sprint("ge-", i) }

// together makes what a hundred machines need: switches of 48 ports. Their numbers are not in the order
// of their names.
func together(version3 bool) func(*testing.T, []*fencetest.Machine) []fencetest.Peer {
	return func(t *testing.T, machines []*fencetest.Machine) (peers []fencetest.Peer) {
		for rack := range slices.Chunk(machines, portsOfASwitch) {
			rows := map[int]*row{}
			for i, m := range rack {
				rows[crowdPorts-i] = wired(crowdPort(i), m)
			}
			c := snmpd.Config{Objects: ports(rows), Without: own()}
			params, _ := access(t, version3, &c)
			port := int(startSwitch(t, c).Addr().Port())
			for i := range rack {
				own := maps.Clone(params)
				maps.Copy(own, where(port, crowdPort(i)))
				peers = append(peers, fencetest.Peer{Params: own})
			}
		}
		return peers
	}
}

// start makes a harness of a switch with 30 ports, the machine at port7, with a wire before it.
func start(version3 bool) func(*testing.T, *fencetest.Machine) fencetest.Peer {
	return func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
		rows := map[int]*row{1007: wired("port7", m)}
		for n := range 29 {
			rows[2000+n] = fixed(fmt.Sprintf("other%d", n), up, up)
		}
		c := snmpd.Config{Objects: ports(rows), Without: own()}
		params, wrong := access(t, version3, &c)
		a := startSwitch(t, c)
		w, err := wire.New(a.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		maps.Copy(params, where(int(w.Addr().Port()), "port7"))
		return fencetest.Peer{
			Params:   params,
			Secret:   "s3cret",
			Wrong:    map[string]map[string]string{"wrong credentials": wrong},
			Absent:   map[string]string{"port": strconv.Itoa(fencetest.ClosedPort(t, "udp4"))},
			SetFault: w.SetFault,
			Restart:  func() error { return a.Restart(t.Context()) },
			Nowhere: func(testing.TB) map[string]map[string]string {
				return map[string]map[string]string{"no such port": {"interface": "port9999"}}
			},
			Foreign: func(t testing.TB) map[string]map[string]string {
				c.Objects = nil
				return map[string]map[string]string{
					"no switch": {"port": strconv.Itoa(int(startSwitch(t, c).Addr().Port()))},
					"an echo":   {"port": fencetest.Echo(t, "udp4")},
				}
			},
		}
	}
}

func where(port int, name string) map[string]string {
	return map[string]string{"addr": "127.0.0.1", "port": strconv.Itoa(port), "interface": name, "retry_ms": "50"}
}

// openPort opens a port of a, by version 2c, some of whose parameters are others.
func openPort(t testing.TB, a *snmpd.Agent, name string, others map[string]string) fencemethods.Device {
	t.Helper()
	params := where(int(a.Addr().Port()), name)
	params["version"], params["community_file"] = "2c", fencetest.SecretFile(t, community)
	maps.Copy(params, others)
	return fencetest.Open(t, Method(), params)
}

func within(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}
