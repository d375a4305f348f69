// SPDX-License-Identifier: GPL-2.0-only

package filter

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/o2fence/o2fence/test/netns"
)

func addrs(s ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range s {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func mustBan(t *testing.T, f *Filter, want ...netip.Addr) {
	t.Helper()
	if _, err := f.Ban(want); err != nil {
		t.Fatal(err)
	}
}

// inside opens a filter in a namespace of its own, and enters it.
func inside(t *testing.T, family Family) (*Filter, *netns.Space) {
	t.Helper()
	s := netns.New(t)
	s.Enter()
	f, err := Open(family)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, s
}

func mustBanned(t *testing.T, f *Filter, want ...netip.Addr) {
	t.Helper()
	got, err := f.Banned()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, netip.Addr.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("banned: %v, want %v", got, want)
	}
}

func TestBansAreReadBack(t *testing.T) {
	for _, family := range []Family{INet, Bridge} {
		t.Run(fmt.Sprint(family), func(t *testing.T) {
			f, _ := inside(t, family)
			if _, err := f.Banned(); !errors.Is(err, ErrAltered) {
				t.Errorf("without a table: %v", err)
			}
			one := addrs("198.18.0.1", "198.18.0.2", "2001:db8::1")
			mustBan(t, f, one...)
			mustBanned(t, f, one...)
			if changed, err := f.Ban(one); changed || err != nil {
				t.Errorf("banned twice: %v, %v", changed, err)
			}
			mustBan(t, f, append(addrs("198.18.0.9"), one...)...)
			mustBanned(t, f, addrs("198.18.0.1", "198.18.0.2", "198.18.0.9", "2001:db8::1")...)
			if err := f.Allow(addrs("198.18.0.2", "2001:db8::1", "198.18.0.77")); err != nil {
				t.Fatal(err)
			}
			mustBanned(t, f, addrs("198.18.0.1", "198.18.0.9")...)
		})
	}
}

// What somebody else does to the table is not taken for a ban that stands, and is put right again, with
// whoever is still in its sets.
func TestATableThatWasAlteredIsFoundAndMadeAnew(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		lost   bool // nothing is left to be read
	}{
		"flush ruleset":           {"flush ruleset", true},
		"flush table":             {"flush table inet o2fence", false},
		"delete table":            {"delete table inet o2fence", true},
		"dormant":                 {"add table inet o2fence { flags dormant; }", false},
		"one accepts before":      {"insert rule inet o2fence from accept", false},
		"one accepts after":       {"add rule inet o2fence to accept", false},
		"one chain is empty":      {"flush chain inet o2fence to", false},
		"one more chain":          {"add chain inet o2fence more { type filter hook input priority -1000; }", false},
		"one more set":            {"add set inet o2fence more { type ipv4_addr; }", false},
		"rules that do not drop":  {"flush chain inet o2fence from\nadd rule inet o2fence from ip saddr @banned4 counter", false},
		"rules in another order":  {"flush chain inet o2fence from\nadd rule inet o2fence from meta protocol ip6 ip6 saddr @banned6 drop\nadd rule inet o2fence from meta protocol ip ip saddr @banned4 drop", false},
		"another hook":            {"delete chain inet o2fence to\nadd chain inet o2fence to { type filter hook output priority -450; }\nadd rule inet o2fence to meta protocol ip ip daddr @banned4 drop\nadd rule inet o2fence to meta protocol ip6 ip6 daddr @banned6 drop", false},
		"another priority":        {"delete chain inet o2fence to\nadd chain inet o2fence to { type filter hook postrouting priority 0; }\nadd rule inet o2fence to meta protocol ip ip daddr @banned4 drop\nadd rule inet o2fence to meta protocol ip6 ip6 daddr @banned6 drop", false},
		"elements that time out":  {"delete table inet o2fence\nadd table inet o2fence\nadd set inet o2fence banned4 { type ipv4_addr; flags timeout; }\nadd set inet o2fence banned6 { type ipv6_addr; }\nadd element inet o2fence banned4 { 198.18.0.1 timeout 1h }", false},
		"another table of a name": {"delete table inet o2fence\nadd table inet o2fence\nadd set inet o2fence banned4 { type mark; }\nadd element inet o2fence banned4 { 7 }", true},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := inside(t, INet)
			mustBan(t, f, addrs("198.18.0.1")...)
			nft(t, s, c.script)
			if banned, err := f.Banned(); !errors.Is(err, ErrAltered) {
				t.Errorf("Banned = %v, %v", banned, err)
			}
			if err := f.Allow(addrs("198.18.0.1")); !errors.Is(err, ErrAltered) {
				t.Errorf("Allow: %v", err)
			}
			changed, err := f.Ban(addrs("198.18.0.2"))
			if err != nil || !changed {
				t.Fatalf("Ban = %v, %v", changed, err)
			}
			if c.lost {
				got, err := f.Banned()
				if err != nil || !slices.Contains(got, addrs("198.18.0.2")[0]) {
					t.Errorf("Banned = %v, %v", got, err)
				}
				return
			}
			mustBanned(t, f, addrs("198.18.0.1", "198.18.0.2")...)
		})
	}
}

// A table that differs in nothing else.
func TestEachPartOfTheTableCounts(t *testing.T) {
	for name, alter := range map[string]func(*plan){
		"nothing":        func(*plan) {},
		"priority":       func(p *plan) { p.chains[1].Priority = nftables.ChainPriorityRef(0) },
		"hook":           func(p *plan) { p.chains[1].Hooknum = nftables.ChainHookForward },
		"time":           func(p *plan) { p.sets[0].HasTimeout = true },
		"ranges":         func(p *plan) { p.sets[0].Interval = true },
		"changing":       func(p *plan) { p.sets[1].Dynamic = true },
		"constant":       func(p *plan) { p.sets[1].Constant = true },
		"not in the set": func(p *plan) { p.chains[0].rules[0][3].(*expr.Lookup).Invert = true },
		"other bytes":    func(p *plan) { p.chains[0].rules[0][2].(*expr.Payload).Offset = 16 },
		"other protocol": func(p *plan) { p.chains[0].rules[0][1].(*expr.Cmp).Data = []byte{0x86, 0xdd} },
		"accept":         func(p *plan) { p.chains[1].rules[1][4].(*expr.Verdict).Kind = expr.VerdictAccept },
	} {
		f, _ := inside(t, INet)
		err := f.use(func(l *link) error {
			p := f.plan()
			alter(&p)
			return l.replace(p, nil)
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := f.Banned(); errors.Is(err, ErrAltered) != (name != "nothing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func nft(t *testing.T, s *netns.Space, script string) {
	t.Helper()
	cmd := s.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			t.Skip("needs nftables:", err)
		}
		t.Fatalf("%s\n%v\n%s", script, err, out)
	}
}

// A conversation is a connection on which what one end writes comes back from the other.
type conversation struct{ net.Conn }

// goesOn says whether a byte makes the round trip. That it does not takes all of the time.
func (c conversation) goesOn(t *testing.T) bool {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	return err == nil
}

func (c conversation) stands(t *testing.T) bool {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	_, err := c.Write([]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Read(make([]byte, 1))
	return err != nil
}

// talk begins a conversation from an address of the node's with the server.
func talk(t *testing.T, node, server *netns.Space, from, to string) conversation {
	t.Helper()
	var listener net.Listener
	server.Do(func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(to, "0"))
		return err
	})
	t.Cleanup(func() { listener.Close() })
	go func() {
		if c, err := listener.Accept(); err == nil {
			defer c.Close()
			b := make([]byte, 1)
			for {
				if _, err := c.Read(b); err != nil {
					return
				}
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}
	}()
	var c conversation
	node.Do(func() (err error) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
		c.Conn, err = dialer.Dial("tcp", listener.Addr().String())
		return err
	})
	t.Cleanup(func() { c.Close() })
	if !c.goesOn(t) {
		t.Fatal("it never began")
	}
	return c
}

// The node's address on the machine that bans, when that is the server itself, a router and a switch.
var (
	nodeAddrs  = []string{"198.18.1.1/24", "198.18.1.2/24", "2001:db8:1::1/64", "2001:db8:1::2/64"}
	serverV4   = "198.18.2.1"
	serverV6   = "2001:db8:2::1"
	switchedV4 = "198.18.1.9"
	switchedV6 = "2001:db8:1::9"
)

func atTheServer(t *testing.T) (node, gate, server *netns.Space, v4, v6 string) {
	node, server = netns.New(t), netns.New(t)
	netns.Link(node, server, nodeAddrs, []string{switchedV4 + "/24", switchedV6 + "/64"})
	return node, server, server, switchedV4, switchedV6
}

// With connection tracking that has accepted what was there before, as most routers have it.
func atARouter(t *testing.T) (node, gate, server *netns.Space, v4, v6 string) {
	node, gate, server = netns.New(t), netns.New(t), netns.New(t)
	netns.Link(node, gate, nodeAddrs, []string{"198.18.1.254/24", "2001:db8:1::fe/64"})
	netns.Link(gate, server, []string{"198.18.2.254/24", "2001:db8:2::fe/64"}, []string{serverV4 + "/24", serverV6 + "/64"})
	gate.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	for _, end := range []struct {
		s      *netns.Space
		v4, v6 string
	}{{node, "198.18.1.254", "2001:db8:1::fe"}, {server, "198.18.2.254", "2001:db8:2::fe"}} {
		end.s.Run("ip", "route", "add", "default", "via", end.v4)
		end.s.Run("ip", "route", "add", "default", "via", end.v6)
	}
	nft(t, gate, "add table inet f\nadd chain inet f c { type filter hook forward priority -500; }\nadd rule inet f c accept")
	return node, gate, server, serverV4, serverV6
}

func atASwitch(t *testing.T) (node, gate, server *netns.Space, v4, v6 string) {
	node, gate, server = netns.New(t), netns.New(t), netns.New(t)
	gate.Run("ip", "link", "add", "name", "switch0", "type", "bridge")
	for i, end := range []struct {
		s     *netns.Space
		addrs []string
	}{{node, nodeAddrs}, {server, []string{switchedV4 + "/24", switchedV6 + "/64"}}} {
		port := fmt.Sprint("port", i)
		gate.Run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth", "netns", end.s.Name)
		gate.Run("ip", "link", "set", port, "master", "switch0", "up")
		end.s.Up("eth", end.addrs...)
	}
	gate.Run("ip", "link", "set", "switch0", "up")
	return node, gate, server, switchedV4, switchedV6
}

func TestABanCutsWhatIsThereAlreadyAndNobodyElse(t *testing.T) {
	for name, c := range map[string]struct {
		build  func(*testing.T) (node, gate, server *netns.Space, v4, v6 string)
		family Family
	}{"at the server": {atTheServer, INet}, "at a router": {atARouter, INet}, "at a switch": {atASwitch, Bridge}} {
		t.Run(name, func(t *testing.T) {
			node, gate, server, v4, v6 := c.build(t)
			banned4, other4 := talk(t, node, server, "198.18.1.1", v4), talk(t, node, server, "198.18.1.2", v4)
			banned6, other6 := talk(t, node, server, "2001:db8:1::1", v6), talk(t, node, server, "2001:db8:1::2", v6)
			gate.Enter()
			f, err := Open(c.family)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			ban := addrs("198.18.1.1", "2001:db8:1::1")
			mustBan(t, f, ban...)
			if !banned4.stands(t) || !banned6.stands(t) {
				t.Error("a banned address gets through")
			}
			if !other4.goesOn(t) || !other6.goesOn(t) {
				t.Error("another address does not get through")
			}
			if err := f.Allow(ban); err != nil {
				t.Fatal(err)
			}
			if !banned4.goesOn(t) || !banned6.goesOn(t) { // what was written meanwhile comes now
				t.Error("an address that is allowed again does not get through")
			}
		})
	}
}
