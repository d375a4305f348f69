// SPDX-License-Identifier: GPL-2.0-only

package ipban

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/fencemethods/ipban/gate"
	"github.com/o2fence/o2fence/fencemethods/remote"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
	"github.com/o2fence/o2fence/test/bmc/wire"
)

const (
	testKey  = "0123456789abcdef0123456789abcdef"
	patience = 20 * time.Second
	short    = time.Second
)

// addrOf is the address of a node.
func addrOf(node uint8) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 5, node}) }

func banNode(node uint8) config.IPBanNode {
	return config.IPBanNode{Cluster: "c", Name: fmt.Sprint("node", node), Number: uint32(node), Addresses: []netip.Addr{addrOf(node)}}
}

// A power is a packet filter whose rules take effect as a machine's power does: on is allowed, off is
// banned. With real rules, packages filter and gate are tested, and all of it in test/ipban.
type power interface {
	On() (bool, error)
	SetOn(on bool) error
}

type fakeFilter struct{ power }

func (f fakeFilter) Ban(addrs []netip.Addr) (bool, error) {
	if on, err := f.On(); len(addrs) == 0 || err == nil && !on {
		return false, nil
	}
	return false, f.SetOn(false)
}

func (f fakeFilter) Allow([]netip.Addr) error { return f.SetOn(true) }

func (f fakeFilter) Banned() ([]netip.Addr, error) {
	on, err := f.On()
	if err != nil || on {
		return nil, err
	}
	return []netip.Addr{addrOf(1)}, nil
}

// A rack is a packet filter before many machines.
type rack map[netip.Addr]*fencetest.Machine

func (r rack) Ban(addrs []netip.Addr) (bool, error) {
	for _, a := range addrs {
		if _, err := (fakeFilter{r[a]}).Ban([]netip.Addr{a}); err != nil {
			return false, err
		}
	}
	return false, nil
}

func (r rack) Allow(addrs []netip.Addr) error {
	for _, a := range addrs {
		if err := r[a].SetOn(true); err != nil {
			return err
		}
	}
	return nil
}

func (r rack) Banned() (banned []netip.Addr, err error) {
	for a, m := range r {
		on, err := m.On()
		switch {
		case err != nil:
			return nil, err
		case !on:
			banned = append(banned, a)
		}
	}
	return banned, nil
}

// startRack is one gatekeeper of many machines.
func startRack(t *testing.T, machines []*fencetest.Machine) (peers []fencetest.Peer) {
	t.Helper()
	r, nodes := rack{}, []config.IPBanNode(nil)
	for _, m := range machines {
		r[addrOf(m.Node())] = m
		nodes = append(nodes, banNode(m.Node()))
	}
	g := startGatekeeper(t, "127.0.0.1:0", r, nodes...)
	for range machines {
		peers = append(peers, fencetest.Peer{Params: params(t, g.addr.Port())})
	}
	return peers
}

// A gatekeeper is a machine that bans, without its program around it.
type gatekeeper struct {
	testing.TB
	filter gate.Filter
	nodes  []config.IPBanNode
	state  string
	addr   netip.AddrPort

	server *server.Server
	ended  chan error
}

// startGatekeeper starts one for node1, or for other nodes.
func startGatekeeper(t testing.TB, addr string, f gate.Filter, nodes ...config.IPBanNode) *gatekeeper {
	t.Helper()
	if nodes == nil {
		nodes = []config.IPBanNode{banNode(1)}
	}
	g := &gatekeeper{TB: t, filter: f, nodes: nodes, state: filepath.Join(t.TempDir(), "ipban.json"), addr: netip.MustParseAddrPort(addr)}
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.stop(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *gatekeeper) start() error {
	c := &config.IPBan{Target: "other", Nodes: g.nodes}
	own, err := gate.Open(c, g.filter, g.state)
	if err != nil {
		return err
	}
	if g.server, err = server.New(g.addr, own.Orders([]byte(testKey)), server.Options{}); err != nil {
		return err
	}
	g.addr, g.ended = g.server.Addr(), make(chan error, 1)
	go func() { g.ended <- g.server.Serve() }()
	return nil
}

func (g *gatekeeper) stop() error { return errors.Join(g.server.Close(), <-g.ended) }

func (g *gatekeeper) restart() error { return errors.Join(g.stop(), g.start()) }

func params(t testing.TB, port uint16) map[string]string {
	return map[string]string{"addrs": "127.0.0.1", "port": strconv.Itoa(int(port)), "key_file": fencetest.SecretFile(t, testKey)}
}

func TestOffIsProven(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{
		Method: Method(), Peer: "o2fence-ipban", Together: startRack, Crowd: "addresses at one o2fence-ipban",
		Start: func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
			g := startGatekeeper(t, "127.0.0.1:0", fakeFilter{m})
			w, err := wire.New(g.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.Close() })
			return fencetest.Peer{
				Params:   params(t, w.Addr().Port()),
				Secret:   testKey,
				Wrong:    map[string]map[string]string{"wrong key": {"key_file": fencetest.SecretFile(t, testKey+"x")}},
				Absent:   map[string]string{"port": strconv.Itoa(fencetest.ClosedPort(t, "udp4"))},
				SetFault: w.SetFault,
				Restart:  g.restart,
				Foreign: func(t testing.TB) map[string]map[string]string {
					return map[string]map[string]string{"an echo": {"port": fencetest.Echo(t, "udp4")}}
				},
			}
		},
	})
}

// A switch has the state that a test gives it, and can be stuck there.
type stuck struct{ on bool }

func (s *stuck) On() (bool, error) { return s.on, nil }
func (*stuck) SetOn(bool) error    { return nil }

type obedient struct{ stuck }

func (o *obedient) SetOn(on bool) error {
	o.on = on
	return nil
}

// open opens the device of a node that two machines ban.
func open(t *testing.T, first, second power) fencemethods.Device {
	t.Helper()
	g := startGatekeeper(t, "127.0.0.1:0", fakeFilter{first})
	startGatekeeper(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), g.addr.Port()).String(), fakeFilter{second})
	p := params(t, g.addr.Port())
	p["addrs"] = "127.0.0.1,127.0.0.2"
	return fencetest.Open(t, Method(), p)
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestAllMachinesHaveToBan(t *testing.T) {
	first, second := &obedient{stuck{true}}, &obedient{stuck{true}}
	d := open(t, first, second)
	if err := d.Check(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if err := d.Off(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if first.on || second.on {
		t.Errorf("off, but let in by the first: %v, by the second: %v", first.on, second.on)
	}
	if state, err := d.Status(within(t, patience)); state != fencemethods.Off || err != nil {
		t.Errorf("Status = %v, %v", state, err)
	}
	if err := d.On(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if state, err := d.Status(within(t, patience)); state != fencemethods.On || err != nil {
		t.Errorf("Status = %v, %v", state, err)
	}
}

func TestOneMachineThatDoesNotBanIsTooMany(t *testing.T) {
	for i := range 2 {
		machines := []power{&obedient{stuck{true}}, &obedient{stuck{true}}}
		machines[i] = &stuck{true}
		d := open(t, machines[0], machines[1])
		want := "127.0.0." + strconv.Itoa(i+1)
		right := func(err error) bool {
			return errors.Is(err, fencemethods.ErrNotOff) && strings.Contains(err.Error(), want)
		}
		if err := fencetest.EnoughTime(t, short, right, d.Off); !right(err) {
			t.Errorf("%v, want %v of %s", err, fencemethods.ErrNotOff, want)
		}
		state, err := d.Status(within(t, patience))
		if state == fencemethods.Off {
			t.Errorf("Status = %v, %v", state, err)
		}
	}
}

// As when the network leads both addresses to one of two servers: the other one serves the disks still.
func TestOneMachineAtTwoAddressesIsNotTwo(t *testing.T) {
	g := startGatekeeper(t, "127.0.0.1:0", fakeFilter{&obedient{stuck{true}}})
	fencetest.Proxy(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), g.addr.Port()), g.addr)
	p := params(t, g.addr.Port())
	p["addrs"] = "127.0.0.1,127.0.0.2"
	d := fencetest.Open(t, Method(), p)
	for what, do := range map[string]func(context.Context) error{"check": d.Check, "off": d.Off} {
		if err := do(within(t, patience)); !errors.Is(err, fencemethods.ErrRefused) || !strings.Contains(err.Error(), "127.0.0.2: the same machine") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if state, err := d.Status(within(t, patience)); state != fencemethods.Unknown || err == nil {
		t.Errorf("Status = %v, %v", state, err)
	}
}

func TestMemoryStaysWithinTheBudget(t *testing.T) {
	p := params(t, uint16(fencetest.ClosedPort(t, "udp4")))
	p["addrs"] = "127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4"
	d, err := Method().Open(fencemethods.Target{Cluster: "c", Node: 1, Name: "node1"}, p)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fencetest.WithinBudget(t, Method(), 0, 2*time.Second, func(ctx context.Context) error {
		err := d.Off(ctx)
		if !errors.Is(err, fencemethods.ErrUnreachable) {
			t.Error(err)
		}
		return err
	})
	if Method().KernelKiB < 4*remote.KernelKiB {
		t.Error("four sockets are not in KernelKiB")
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	for _, c := range []struct{ key, value, text string }{
		{"addrs", "storage1", "names are not looked up"},
		{"addrs", "192.0.2.1,", "not an IP address"},
		{"addrs", "192.0.2.1,192.0.2.1", "twice"},
		{"addrs", "2001:db8::1,2001:db8:0::1", "twice"},
		{"addrs", "192.0.2.1,0.0.0.0", "no address of a machine's"},
		{"addrs", "192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4,192.0.2.5", "at most 4"},
		{"port", "0", "from 1 to 65535"},
		{"key_file", "hunter2", "absolute path"},
		{"addr", "192.0.2.1", `did you mean "addrs"?`},
	} {
		p := map[string]string{"addrs": "192.0.2.1", "key_file": "/key"}
		p[c.key] = c.value
		_, err := Method().Parse(p)
		if err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
	}
	p := map[string]string{"addrs": "192.0.2.1", "key_file": fencetest.SecretFile(t, "hunter2")}
	if _, err := Method().Open(fencemethods.Target{}, p); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a short key: %v", err)
	}
}
