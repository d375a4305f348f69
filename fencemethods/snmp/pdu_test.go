// SPDX-License-Identifier: GPL-2.0-only

package snmp

import (
	"context"
	"flag"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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

// A power is what is behind an outlet.
type power interface {
	On() (bool, error)
	SetOn(on bool) error
}

// pdu makes the objects of a power strip of that model, with these outlets.
func pdu(t table, outlets map[outlet]power) snmpd.Config {
	id := t.id[0]
	if strings.HasSuffix(id, ".") {
		id += "1"
	}
	c := snmpd.Config{
		SysObjectID: id, SysName: "pdu1",
		Community: community, ReadOnly: readOnly,
	}
	for number, p := range outlets {
		state, command := t.objects(number)
		read := func() any {
			switch on, err := p.On(); {
			case err != nil:
				return 4
			case on:
				return t.on
			default:
				return t.off
			}
		}
		write := func(value int) error {
			switch value {
			case t.setOn:
				return p.SetOn(true)
			case t.setOff:
				return p.SetOn(false)
			default:
				return os.ErrInvalid
			}
		}
		if state == command {
			c.Objects = append(c.Objects, snmpd.Object{Name: state, Root: root(state), Get: read, Set: write})
			continue
		}
		c.Objects = append(c.Objects,
			snmpd.Object{Name: state, Root: root(state), Get: read},
			snmpd.Object{Name: command, Root: root(command), Get: func() any { return t.setOn }, Set: write})
	}
	return c
}

// root is the enterprise's subtree, of nine numbers.
func root(name string) string {
	return strings.Join(strings.Split(name, ".")[:10], ".")
}

func startPDU(t testing.TB, c snmpd.Config) *snmpd.Agent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, err := snmpd.Start(ctx, t.TempDir(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// start makes a harness of a power strip whose outlet 3 feeds the machine, with a wire before it.
func start(model string, credentials func(testing.TB, *snmpd.Config) login) func(*testing.T, *fencetest.Machine) fencetest.Peer {
	return func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
		kind, _ := findTable(model)
		c := pdu(kind, map[outlet]power{{1, 3}: m})
		l := credentials(t, &c)
		a := startPDU(t, c)
		w, err := wire.New(a.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		return fencetest.Peer{
			Params:   with(l.params, where(int(w.Addr().Port()), model, "3")),
			Secret:   "s3cret",
			Wrong:    l.wrong,
			Absent:   map[string]string{"port": strconv.Itoa(fencetest.ClosedPort(t, "udp4"))},
			SetFault: w.SetFault,
			Restart:  func() error { return a.Restart(t.Context()) },
			Nowhere: func(testing.TB) map[string]map[string]string {
				return map[string]map[string]string{"no such outlet": {"outlets": "9"}, "one of two": {"outlets": "3,9"}}
			},
			Foreign: func(t testing.TB) map[string]map[string]string {
				c.SysObjectID, c.Objects = "", nil
				return map[string]map[string]string{
					"no power strip": {"port": strconv.Itoa(int(startPDU(t, c).Addr().Port()))},
					"an echo":        {"port": fencetest.Echo(t, "udp4")},
				}
			},
		}
	}
}

// strips makes what a hundred machines need: strips of 24 outlets.
func strips(model string, credentials func(testing.TB, *snmpd.Config) login) func(*testing.T, []*fencetest.Machine) []fencetest.Peer {
	return func(t *testing.T, machines []*fencetest.Machine) (peers []fencetest.Peer) {
		kind, _ := findTable(model)
		for strip := range slices.Chunk(machines, outletsOfAStrip) {
			outlets := map[outlet]power{}
			for i, m := range strip {
				outlets[outlet{1, i + 1}] = m
			}
			c := pdu(kind, outlets)
			l := credentials(t, &c)
			port := int(startPDU(t, c).Addr().Port())
			for i := range strip {
				peers = append(peers, fencetest.Peer{Params: with(l.params, where(port, model, strconv.Itoa(i+1)))})
			}
		}
		return peers
	}
}

const outletsOfAStrip = 24

// A login is how to get at a power strip, and how not.
type login struct {
	params map[string]string
	wrong  map[string]map[string]string
}

// A wrong community is not answered at all, and so is no case of wrong credentials.
func byCommunity(version string) func(testing.TB, *snmpd.Config) login {
	return func(t testing.TB, _ *snmpd.Config) login {
		return login{
			map[string]string{"version": version, "community_file": fencetest.SecretFile(t, community)},
			map[string]map[string]string{"community that may only read": {"community_file": fencetest.SecretFile(t, readOnly)}},
		}
	}
}

func byUser(auth, authName, priv, privName string) func(testing.TB, *snmpd.Config) login {
	return func(t testing.TB, c *snmpd.Config) login {
		c.Users = append(c.Users,
			snmpd.User{Name: user, Auth: authName, AuthPass: authSecret, Priv: privName, PrivPass: privSecret},
			snmpd.User{Name: "guest", Auth: authName, AuthPass: authSecret, Priv: privName, PrivPass: privSecret, ReadOnly: true},
			snmpd.User{Name: "plain", Auth: authName, AuthPass: authSecret, WithoutPrivacy: true},
		)
		return login{
			map[string]string{
				"version": "3", "user": user, "auth": auth, "auth_file": fencetest.SecretFile(t, authSecret),
				"priv": priv, "priv_file": fencetest.SecretFile(t, privSecret),
			},
			map[string]map[string]string{
				"unknown user":                  {"user": "nobody"},
				"user that may only read":       {"user": "guest"},
				"user without privacy":          {"user": "plain"},
				"wrong authentication password": {"auth_file": fencetest.SecretFile(t, "notThePassword")},
				"wrong privacy password":        {"priv_file": fencetest.SecretFile(t, "notThePassword")},
			},
		}
	}
}

func where(port int, model, outlets string) map[string]string {
	return map[string]string{
		"addr": "127.0.0.1", "port": strconv.Itoa(port), "model": model, "outlets": outlets, "retry_ms": "50",
	}
}

func with(params, others map[string]string) map[string]string {
	all := maps.Clone(params)
	maps.Copy(all, others)
	return all
}

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
