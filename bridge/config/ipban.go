// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// IPBanFile is the configuration of a storage server, router or switch that bans nodes: o2fence-ipban.
const IPBanFile = "/etc/o2fence/ipban.conf"

// An IPBan is the configuration of a machine that bans nodes' addresses. Which addresses a node has is
// said here and nowhere else: whoever orders a ban names a node. (R15)
type IPBan struct {
	Listen  netip.AddrPort // where orders are taken
	KeyFile string         // with the key of those who may give them
	Bridge  bool           // the packets are switched here, not routed, and do not end here
	Target  string         // "tgt", or "other": a target that cannot be asked what it still has to write

	// SettleMS is how long the target may take to write what it has read, in ms, 0..600000.
	SettleMS uint32
	// HoldMS is for how long a ban lasts at least, in ms, 0..86400000.
	HoldMS uint32

	Nodes []IPBanNode
}

// An IPBanNode is a node that may be banned.
type IPBanNode struct {
	Cluster    string
	Name       string
	Number     uint32 // 0..254
	Addresses  []netip.Addr
	Initiators []string // its iSCSI names, which tgt knows it by
}

const (
	ipBanPort   = 7412
	ipBanHoldMS = 120000
)

// LoadIPBan reads and parses the configuration. All mistakes are told at once, each as an *Error.
func LoadIPBan(name string) (*IPBan, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return ParseIPBan(File{name, string(text)})
}

// ParseIPBan is LoadIPBan of a file that was read already.
func ParseIPBan(file File) (*IPBan, error) {
	f := ipBanFile{problems: &problems{file: file.Name}, owners: map[netip.Addr]owner{}}
	stanzas := scan(f.problems, file.Text, fenceSyntax)
	f.kinds(stanzas, "server", "node")
	if servers := ofKind(stanzas, "server"); len(servers) == 0 {
		f.add(1, "expected a server stanza")
	} else {
		f.server(servers[0])
		for _, s := range servers[1:] {
			f.add(s.line, "expected one server stanza")
		}
	}
	for _, s := range ofKind(stanzas, "node") {
		f.node(s)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return &f.ban, nil
}

func ofKind(stanzas []stanza, kind string) []stanza {
	return slices.DeleteFunc(slices.Clone(stanzas), func(s stanza) bool { return s.kind != kind })
}

// An ipBanFile is an ipban.conf while it is being read.
type ipBanFile struct {
	*problems
	ban    IPBan
	owners map[netip.Addr]owner
}

// An owner is the node that has an address, and where that is said.
type owner struct {
	node string
	line int
}

func (f *ipBanFile) server(s stanza) {
	in := f.fields("a server stanza", s.line, s.entries, "listen", "port", "key_file", "for", "target", "settle_ms", "hold_ms")
	b := &f.ban
	if in.need("listen") {
		e := in.byKey["listen"]
		b.Listen = netip.AddrPortFrom(in.address(e, e.value), uint16(in.number("port", span{1, 65535, ipBanPort})))
		if a := b.Listen.Addr(); a.IsUnspecified() || a.IsMulticast() {
			f.add(e.line, "listen = %s: expected one address of this machine: an answer from another than was asked is not believed", e.value)
		}
	}
	if in.need("key_file") {
		e := in.byKey["key_file"]
		if b.KeyFile = e.value; !filepath.IsAbs(e.value) {
			f.add(e.line, "key_file: expected the absolute path of a file that holds the key, not the key")
		}
	}
	b.Bridge = in.word("for", "routing", "routing", "bridging") == "bridging"
	if in.need("target") {
		b.Target = in.word("target", "", "tgt", "other")
	}
	b.HoldMS = in.number("hold_ms", span{0, 86400000, ipBanHoldMS})
	b.SettleMS = in.number("settle_ms", span{0, 600000, 0})
	if b.Target == "other" {
		in.need("settle_ms")
	}
}

func (f *ipBanFile) node(s stanza) {
	in := f.fields("a node stanza", s.line, s.entries, "cluster", "name", "number", "addresses", "initiators")
	n := IPBanNode{Cluster: in.name("cluster"), Name: in.name("name")}
	if in.need("number") {
		n.Number = in.number("number", span{0, 254, 0})
	}
	if in.need("addresses") {
		n.Addresses = f.addresses(in, n)
	}
	if e, ok := in.byKey["initiators"]; ok {
		n.Initiators = f.list(e)
	}
	for _, other := range f.ban.Nodes {
		if other.Cluster == n.Cluster && (other.Name == n.Name || other.Number == n.Number) {
			f.add(s.line, "cluster %s has a node %d named %s already", n.Cluster, other.Number, other.Name)
		}
	}
	f.ban.Nodes = append(f.ban.Nodes, n)
}

// addresses refuses what would ban somebody else, too.
func (f *ipBanFile) addresses(in fields, n IPBanNode) []netip.Addr {
	e := in.byKey["addresses"]
	var all []netip.Addr
	for _, text := range f.list(e) {
		a := in.address(e, text)
		if !a.IsValid() {
			continue
		}
		if first, twice := f.owners[a]; twice {
			f.add(e.line, "%v is an address of %s already, on line %d", a, first.node, first.line)
		}
		if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			f.add(e.line, "%v is no address of a node's", a)
		}
		if a == f.ban.Listen.Addr() {
			f.add(e.line, "%v is this machine's own address", a)
		}
		f.owners[a] = owner{n.Name, e.line}
		all = append(all, a)
	}
	return all
}

// list splits at commas.
func (f *ipBanFile) list(e entry) []string {
	var all []string
	for part := range strings.SplitSeq(e.value, ",") {
		part = strings.TrimFunc(part, isBlank)
		if part == "" || slices.Contains(all, part) {
			f.add(e.line, "%s: expected different values, separated by commas", e.key)
			continue
		}
		all = append(all, part)
	}
	return all
}

// address reads one of an entry's addresses.
func (f fields) address(e entry, text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		f.add(e.line, "%s: %q is not an IP address; names are not looked up", e.key, text)
	case a.Zone() != "":
		f.add(e.line, "%s: %q has a zone: expected an address that is valid without one", e.key, text)
	default:
		return a.Unmap()
	}
	return netip.Addr{}
}
