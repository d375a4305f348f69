// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const ipBanConf = `server:
	listen = 192.0.2.50
	key_file = /etc/o2fence/ipban.key
	target = tgt

node:
	cluster = mycluster
	name = web1
	number = 1
	addresses = 198.51.100.1, 203.0.113.1, 2001:db8::1
	initiators = iqn.2026-01.test:web1

node:
	cluster = mycluster
	name = web2
	number = 2
	addresses = 198.51.100.2
`

func TestIPBanIsRead(t *testing.T) {
	got, err := ParseIPBan(File{"ipban.conf", ipBanConf})
	if err != nil {
		t.Fatal(err)
	}
	want := &IPBan{
		Listen: netip.MustParseAddrPort("192.0.2.50:7412"), KeyFile: "/etc/o2fence/ipban.key", Target: "tgt", HoldMS: 120000,
		Nodes: []IPBanNode{
			{
				Cluster: "mycluster", Name: "web1", Number: 1,
				Addresses:  []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")},
				Initiators: []string{"iqn.2026-01.test:web1"},
			},
			{Cluster: "mycluster", Name: "web2", Number: 2, Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.2")}},
		},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestExamplesOfIPBanAreAccepted(t *testing.T) {
	packaged, err := os.ReadFile("../../packaging/ipban.conf")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, documented, _ := strings.Cut(string(document), "```conf\n# /etc/o2fence/ipban.conf\n")
	documented, _, _ = strings.Cut(documented, "```\n")
	for _, text := range []string{string(packaged), documented} {
		b, err := ParseIPBan(File{IPBanFile, text})
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Nodes) == 0 || b.Nodes[0].Name != "web1" {
			t.Errorf("%+v", b)
		}
	}
}

// FuzzParseIPBan checks that no ban is of another node than was meant, or of everybody.
func FuzzParseIPBan(f *testing.F) {
	f.Add(ipBanConf)
	server, nodes, _ := strings.Cut(ipBanConf, "\n\n")
	f.Add(nodes + "\n" + server + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseIPBan(File{"f", text})
		if err != nil {
			return
		}
		seen := map[netip.Addr]bool{b.Listen.Addr(): true}
		for _, n := range b.Nodes {
			if n.Name == "" || n.Cluster == "" || n.Number > 254 || len(n.Addresses) == 0 {
				t.Errorf("%+v", n)
			}
			for _, a := range n.Addresses {
				if !a.IsValid() || a.Is4In6() || a.IsUnspecified() || seen[a] {
					t.Errorf("%v of %s", a, n.Name)
				}
				seen[a] = true
			}
		}
	})
}

func TestIPBanThatIsWrongIsRefused(t *testing.T) {
	for _, c := range []struct{ old, with, want string }{
		{"listen = 192.0.2.50", "listen = storage1", `ipban.conf:2: listen: "storage1" is not an IP address; names are not looked up`},
		{"listen = 192.0.2.50", "listen = ::", "ipban.conf:2: listen = ::: expected one address of this machine"},
		{"\tlisten = 192.0.2.50\n", "", `ipban.conf:1: expected "listen" in a server stanza`},
		{"/etc/o2fence/ipban.key", "hunter2", "ipban.conf:3: key_file: expected the absolute path"},
		{"target = tgt", "target = lio", `ipban.conf:4: target = lio: expected one of tgt, other`},
		{"target = tgt", "target = other", `ipban.conf:1: expected "settle_ms" in a server stanza`},
		{"\ttarget = tgt\n", "", `ipban.conf:1: expected "target" in a server stanza`},
		{"target = tgt", "target = tgt\n\tsettle = 7", `ipban.conf:5: unknown key "settle" in a server stanza: expected one of listen, port, key_file, for, target, settle_ms, hold_ms; did you mean "settle_ms"?`},
		{"addresses = 198.51.100.2", "addresses = 203.0.113.1", "ipban.conf:17: 203.0.113.1 is an address of web1 already, on line 10"},
		{"addresses = 198.51.100.2", "addresses = 192.0.2.50", "ipban.conf:17: 192.0.2.50 is this machine's own address"},
		{"addresses = 198.51.100.2", "addresses = 0.0.0.0", "ipban.conf:17: 0.0.0.0 is no address of a node's"},
		{"addresses = 198.51.100.2", "addresses = 198.51.100.0/24", `ipban.conf:17: addresses: "198.51.100.0/24" is not an IP address`},
		{"addresses = 198.51.100.2", "addresses = fe80::1%eth0", "has a zone"},
		{"addresses = 198.51.100.2", "addresses = 198.51.100.2,", "ipban.conf:17: addresses: expected different values, separated by commas"},
		{"addresses = 198.51.100.2", "addresses = ::ffff:203.0.113.1", "ipban.conf:17: 203.0.113.1 is an address of web1 already"},
		{"number = 2", "number = 1", "ipban.conf:13: cluster mycluster has a node 1 named web1 already"},
		{"name = web2", "name = web1", "ipban.conf:13: cluster mycluster has a node 1 named web1 already"},
		{"server:", "sever:", `ipban.conf:1: unknown stanza "sever:": expected one of server, node; did you mean "server"?`},
		{"\nnode:\n\tcluster = mycluster\n\tname = web2", "\nserver:\n\tlisten = 192.0.2.50", "ipban.conf:13: expected one server stanza"},
	} {
		text := strings.Replace(ipBanConf, c.old, c.with, 1)
		_, err := ParseIPBan(File{"ipban.conf", text})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s\n is %v, want %s", c.with, err, c.want)
		}
	}
}
