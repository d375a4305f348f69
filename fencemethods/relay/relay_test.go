// SPDX-License-Identifier: GPL-2.0-only

package relay_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	serving "github.com/o2fence/o2fence/bridge/relay"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/fencemethods/relay"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
	"github.com/o2fence/o2fence/test/bmc"
	"github.com/o2fence/o2fence/test/bmc/wire"
)

const (
	testKey      = "0123456789abcdef0123456789abcdef"
	testPassword = "correcthorse"
	testUser     = "fence"
	patience     = 20 * time.Second
)

// clusterConf is that of nodes with these numbers.
func clusterConf(nodes ...uint8) string {
	text := fmt.Sprintf("cluster:\n\tname = c\n\tnode_count = %d\n", len(nodes))
	for _, n := range nodes {
		text += fmt.Sprintf("\nnode:\n\tcluster = c\n\tname = node%d\n\tnumber = %d\n\tip_address = 192.0.2.%d\n\tip_port = 7777\n", n, n, n)
	}
	return text
}

// A fencer is a relay, with its own configuration, that can be restarted.
type fencer struct {
	t     *testing.T
	cfg   *config.Config
	addr  netip.AddrPort
	ended chan error
	own   *server.Server
	relay *serving.Relay
}

// startFencer starts a relay whose fence.conf for node1 has these lines.
func startFencer(t *testing.T, lines string) *fencer {
	t.Helper()
	return startRelay(t, clusterConf(1), "fence:\n\tnode = node1\n"+lines)
}

func startRelay(t *testing.T, cluster, fence string) *fencer {
	t.Helper()
	cfg, err := config.Parse(config.File{Name: "cluster.conf", Text: cluster},
		config.File{Name: "fence.conf", Text: fence}, setup.Schema())
	if err != nil {
		t.Fatal(err)
	}
	f := &fencer{t: t, cfg: cfg, addr: netip.MustParseAddrPort("127.0.0.1:0")}
	if err := f.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fencer) start() (err error) {
	if f.relay, err = serving.Open(f.cfg, func() {}); err != nil {
		return err
	}
	for i := range f.relay.Nodes {
		f.relay.Nodes[i].Keys = []fencemethods.Secret{fencemethods.Secret(testKey)}
	}
	if f.own, err = server.New(f.addr, f.relay.Nodes, server.Options{Log: f.t.Logf}); err != nil {
		return err
	}
	f.addr = f.own.Addr()
	f.ended = make(chan error, 1)
	go func() { f.ended <- f.own.Serve() }()
	return nil
}

func (f *fencer) stop() error {
	return errors.Join(f.own.Close(), <-f.ended, f.relay.Close())
}

func (f *fencer) restart() error {
	if err := f.stop(); err != nil {
		return err
	}
	return f.start()
}

// ipmi is the lines for a BMC.
func ipmi(t *testing.T, at netip.AddrPort) string {
	return "\tmethod = ipmi\n\taddr = " + at.Addr().String() + "\n\tport = " + strconv.Itoa(int(at.Port())) +
		"\n\tuser = " + testUser + "\n\tpassword_file = " + fencetest.SecretFile(t, testPassword) + "\n\tretry_ms = 100\n"
}

func startBMC(t *testing.T, power bmc.Power) *bmc.BMC {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b, err := bmc.Start(ctx, t.TempDir(), bmc.Config{User: testUser, Password: testPassword, Power: power})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func params(t *testing.T, at netip.AddrPort) map[string]string {
	return map[string]string{
		"addrs": at.Addr().String(), "port": strconv.Itoa(int(at.Port())), "key_file": fencetest.SecretFile(t, testKey),
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// The machine is behind a BMC, ipmi_sim, which only the relay reaches; the wire that fails is that
// between the node and the relay.
func TestOffIsProven(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{
		Method: relay.Method(), Peer: "o2fence-relay and ipmi_sim", Together: startRack, Crowd: "ipmi_sims behind one o2fence-relay",
		Start: func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
			f := startFencer(t, ipmi(t, startBMC(t, m).Addr()))
			w, err := wire.New(f.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.Close() })
			return fencetest.Peer{
				Params: params(t, w.Addr()), Secret: testKey,
				Wrong:    map[string]map[string]string{"wrong key": {"key_file": fencetest.SecretFile(t, "another key, long enough")}},
				Absent:   map[string]string{"port": strconv.Itoa(fencetest.ClosedPort(t, "udp4"))},
				SetFault: w.SetFault, Restart: f.restart,
				Foreign: func(t testing.TB) map[string]map[string]string {
					return map[string]map[string]string{"an echo": {"port": fencetest.Echo(t, "udp4")}}
				},
			}
		},
	})
}

// startRack is one relay for many machines, each of which has a BMC.
func startRack(t *testing.T, machines []*fencetest.Machine) (peers []fencetest.Peer) {
	var nodes []uint8
	var fence strings.Builder
	for _, m := range machines {
		nodes = append(nodes, m.Node())
		fmt.Fprintf(&fence, "fence:\n\tnode = %s\n%s\n", m.Target().Name, ipmi(t, startBMC(t, m).Addr()))
	}
	f := startRelay(t, clusterConf(nodes...), fence.String())
	for range machines {
		peers = append(peers, fencetest.Peer{Params: params(t, f.addr)})
	}
	return peers
}

// Of two relays one is enough, whichever it is.
func TestTheSecondRelayFences(t *testing.T) {
	power := new(fencetest.Machine)
	f := startFencer(t, ipmi(t, startBMC(t, power).Addr()))
	for _, addrs := range []string{"127.0.0.1,127.0.0.9", "127.0.0.9,127.0.0.1"} {
		if err := power.SetOn(true); err != nil {
			t.Fatal(err)
		}
		p := params(t, f.addr)
		p["addrs"] = addrs
		if err := fencetest.Open(t, relay.Method(), p).Off(within(t, patience)); err != nil {
			t.Errorf("%s: %v", addrs, err)
		}
		if on, _ := power.On(); on {
			t.Errorf("%s: FALSE SUCCESS: it is on", addrs)
		}
	}
}

// What went wrong at the relay is what the history of the fencing node tells.
func TestAFailureOfTheRelaysDeviceIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		lines string
		kind  error
		text  string
	}{
		"no BMC":         {ipmi(t, netip.MustParseAddrPort("127.0.0.1:"+strconv.Itoa(fencetest.ClosedPort(t, "udp4")))), fencemethods.ErrUnreachable, "ipmi: nothing listens on that port"},
		"wrong password": {strings.Replace(ipmi(t, startBMC(t, new(fencetest.Machine)).Addr()), testUser, "nobody", 1), fencemethods.ErrAuth, "ipmi: "},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFencer(t, c.lines)
			err := fencetest.Open(t, relay.Method(), params(t, f.addr)).Off(within(t, 5*time.Second))
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v: want %v and %q", err, c.kind, c.text)
			}
		})
	}
}

// The relay has methods in an order, as a node has, and each gets its share of the time.
func TestTheRelaysNextMethodHasItsTurn(t *testing.T) {
	power := new(fencetest.Machine)
	if err := power.SetOn(true); err != nil {
		t.Fatal(err)
	}
	f := startFencer(t, ipmi(t, netip.MustParseAddrPort("127.0.0.1:"+strconv.Itoa(fencetest.ClosedPort(t, "udp4"))))+ipmi(t, startBMC(t, power).Addr()))
	d := fencetest.Open(t, relay.Method(), params(t, f.addr))
	if err := d.Off(within(t, 8*time.Second)); err != nil {
		t.Fatal(err)
	}
	if on, _ := power.On(); on {
		t.Error("FALSE SUCCESS: it is on")
	}
	if state, err := d.Status(within(t, patience)); state != fencemethods.Off || err != nil {
		t.Errorf("%v, %v: the way back is by the one that fenced", state, err)
	}
	if err := d.Check(within(t, 8*time.Second)); !errors.Is(err, fencemethods.ErrUnreachable) {
		t.Errorf("%v: all of them have to be ready", err)
	}
}

// Two power supplies are the relay's affair as they would be the node's.
func TestTheRelayMayHaveALevel(t *testing.T) {
	left, right := new(fencetest.Machine), new(fencetest.Machine)
	if err := errors.Join(left.SetOn(true), right.SetOn(true)); err != nil {
		t.Fatal(err)
	}
	f := startFencer(t, "\tlevel = all\n"+ipmi(t, startBMC(t, left).Addr())+ipmi(t, startBMC(t, right).Addr()))
	if err := fencetest.Open(t, relay.Method(), params(t, f.addr)).Off(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*fencetest.Machine{left, right} {
		if on, _ := m.On(); on {
			t.Error("FALSE SUCCESS: it is on")
		}
	}
}

type voucher struct{}

func (voucher) Order(ctx context.Context, _ server.Order) (server.Result, error) {
	fencemethods.Vouch(ctx, "ann: I hold its plug")
	return server.Result{State: fencemethods.Off}, nil
}

// Where the relay's success rests on somebody's word, the history of the node that ordered it has it.
func TestWhoVouchesAtTheRelayIsNoted(t *testing.T) {
	node1 := fencemethods.Target{Cluster: "c", Node: 1, Name: "node1"}
	nodes := []server.Node{{Target: node1, Handler: voucher{}, Keys: []fencemethods.Secret{fencemethods.Secret(testKey)}}}
	s, err := server.New(netip.MustParseAddrPort("127.0.0.1:0"), nodes, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	defer func() {
		if err := errors.Join(s.Close(), <-ended); err != nil {
			t.Error(err)
		}
	}()
	var note fencemethods.Note
	ctx := fencemethods.WithRequest(within(t, patience), fencemethods.Request{Number: 1, Note: &note})
	if err := fencetest.Open(t, relay.Method(), params(t, s.Addr())).Off(ctx); err != nil {
		t.Fatal(err)
	}
	if got := note.Take(); got != "ann: I hold its plug" {
		t.Errorf("noted %q", got)
	}
}

func TestAConfigurationThatIsNoneForARelayIsRefused(t *testing.T) {
	key := fencetest.SecretFile(t, testKey)
	for lines, want := range map[string]error{
		"\tmethod = watchdog\n": serving.ErrNothing,
		"\tmethod = relay\n\taddrs = 192.0.2.5\n\tkey_file = " + key + "\n": serving.ErrRelayed,
	} {
		cfg, err := config.Parse(config.File{Name: "cluster.conf", Text: clusterConf(1)},
			config.File{Name: "fence.conf", Text: "fence:\n\tnode = node1\n" + lines}, setup.Schema())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := serving.Open(cfg, func() {}); !errors.Is(err, want) {
			t.Errorf("%s%v, want %v", lines, err, want)
		}
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	for _, c := range []struct{ key, value, text string }{
		{"addrs", "relay1.example.com", "names are not looked up"},
		{"addrs", "192.0.2.1,192.0.2.2,192.0.2.3", "at most 2"},
		{"addrs", "192.0.2.1,192.0.2.1", "there twice"},
		{"addrs", "192.0.2.1,::ffff:192.0.2.1", "there twice"},
		{"addrs", "192.0.2.1,", "not an IP address"},
		{"addrs", "0.0.0.0", "no address of a machine"},
		{"addrs", "fe80::1%eth0", "zone"},
		{"port", "0", "whole number from 1 to 65535"},
		{"key_file", "hunter2", "absolute path"},
		{"addr", "192.0.2.1", `did you mean "addrs"?`},
	} {
		p := map[string]string{"addrs": "192.0.2.5", "key_file": "/etc/ocfs2/relay.key"}
		maps.Copy(p, map[string]string{c.key: c.value})
		_, err := relay.Method().Parse(p)
		e, ok := errors.AsType[*fencemethods.ParamError](err)
		if !ok || e.Key != c.key || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
	}
}
