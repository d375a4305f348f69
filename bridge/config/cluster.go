// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// maxRegions is how many global heartbeat regions o2hb takes (O2NM_MAX_REGIONS).
const maxRegions = 32

// A clusterFile is a cluster.conf while it is being read.
type clusterFile struct {
	*problems
	clusters []*Cluster
	lines    map[string]int // where a thing was configured, by a text that names it
	counts   map[*Cluster]count
}

// A count is a node_count.
type count struct {
	nodes uint32
	line  int
}

// parseClusters reads a cluster.conf. Whatever ocfs2-tools can use passes; of what it silently
// ignores, a wrong node_count is a warning, because it happens, and everything else is refused.
func parseClusters(p *problems, text string) []*Cluster {
	f := clusterFile{problems: p, lines: map[string]int{}, counts: map[*Cluster]count{}}
	stanzas := scan(p, text, o2cbSyntax)
	f.kinds(stanzas, "cluster", "node", "heartbeat")
	// The stanzas come in any order: o2cb writes its clusters first, people do not.
	for _, s := range stanzas {
		if s.kind == "cluster" {
			f.cluster(s)
		}
	}
	for _, s := range stanzas {
		switch s.kind {
		case "node":
			f.node(s)
		case "heartbeat":
			f.heartbeat(s)
		}
	}
	f.finish()
	return f.clusters
}

// kinds refuses stanzas of other kinds.
func (p *problems) kinds(stanzas []stanza, allowed ...string) {
	for _, s := range stanzas {
		if !slices.Contains(allowed, s.kind) {
			p.add(s.line, "unknown stanza \"%s:\": %s", s.kind, expected(s.kind, allowed))
		}
	}
}

func (f *clusterFile) cluster(s stanza) {
	in := f.fields("a cluster stanza", s.line, s.entries, "name", "node_count", "heartbeat_mode")
	c := &Cluster{
		Name:            in.name("name"),
		GlobalHeartbeat: in.word("heartbeat_mode", "local", "local", "global") == "global",
	}
	in.need("node_count")
	f.counts[c] = count{in.number("node_count", span{high: 255}), in.byKey["node_count"].line}
	if c.Name != "" && !f.twice(s.line, "cluster "+c.Name) {
		f.clusters = append(f.clusters, c)
	}
}

func (f *clusterFile) node(s stanza) {
	before := len(f.errors)
	in := f.fields("a node stanza", s.line, s.entries, "name", "cluster", "number", "ip_address", "ip_port")
	n := Node{Name: in.name("name")}
	c := in.cluster("cluster", f.clusters)
	for _, key := range []string{"number", "ip_address", "ip_port"} {
		in.need(key)
	}
	n.Number = in.number("number", span{high: 254})
	// The limits of the kernel, which refuses the last port.
	port := in.number("ip_port", span{low: 1, high: 65534})
	n.Addr = netip.AddrPortFrom(in.ipv4("ip_address"), uint16(port))
	if len(f.errors) == before && !f.nodeTwice(c, n, in) {
		c.Nodes = append(c.Nodes, n)
	}
}

// nodeTwice refuses a node whose name, number or address another node of the cluster has: the
// kernel would refuse it when o2cb registers the cluster.
func (f *clusterFile) nodeTwice(c *Cluster, n Node, in fields) bool {
	twice := false
	for key, value := range map[string]string{
		"name":       n.Name,
		"number":     strconv.FormatUint(uint64(n.Number), 10),
		"ip_address": n.Addr.Addr().String(),
	} {
		what := fmt.Sprintf("a node of cluster %s with %s = %s", c.Name, key, value)
		twice = f.twice(in.byKey[key].line, what) || twice
	}
	return twice
}

func (f *clusterFile) heartbeat(s stanza) {
	in := f.fields("a heartbeat stanza", s.line, s.entries, "cluster", "region")
	c := in.cluster("cluster", f.clusters)
	if !in.need("region") {
		return
	}
	e := in.byKey["region"]
	outside := func(r rune) bool { return !strings.ContainsRune("0123456789ABCDEFabcdef", r) }
	if len(e.value) != 32 || strings.ContainsFunc(e.value, outside) {
		f.add(e.line, "region = %s: expected a UUID of 32 hexadecimal digits", e.value)
		return
	}
	if c == nil || f.twice(e.line, "region "+e.value+" of cluster "+c.Name) {
		return
	}
	if len(c.Regions) == maxRegions {
		f.add(e.line, "expected at most %d heartbeat regions in cluster %s", maxRegions, c.Name)
	}
	c.Regions = append(c.Regions, e.value)
}

// finish looks at the clusters as a whole.
func (f *clusterFile) finish() {
	if len(f.clusters) == 0 && len(f.errors) == 0 {
		f.add(1, "expected a stanza \"cluster:\"")
	}
	for _, c := range f.clusters {
		slices.SortFunc(c.Nodes, func(a, b Node) int { return cmp.Compare(a.Number, b.Number) })
		if count := f.counts[c]; int(count.nodes) != len(c.Nodes) {
			f.warn(count.line, "node_count = %d, but cluster %s has %d node stanzas", count.nodes, c.Name, len(c.Nodes))
		}
	}
}

// twice remembers where a thing is configured, and refuses it the second time.
func (f *clusterFile) twice(line int, what string) bool {
	first, found := f.lines[what]
	if found {
		f.add(line, "%s is already configured on line %d", what, first)
		return true
	}
	f.lines[what] = line
	return false
}

// cluster returns the cluster that a key names.
func (f fields) cluster(key string, clusters []*Cluster) *Cluster {
	name := f.name(key)
	if name == "" {
		return nil
	}
	c := clusterOf(clusters, name)
	if c == nil {
		f.add(f.byKey[key].line, "unknown cluster %q: %s", name, expected(name, clusterNames(clusters)))
	}
	return c
}

func (f fields) ipv4(key string) netip.Addr {
	e, ok := f.byKey[key]
	if !ok {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(e.value)
	if err != nil || !addr.Is4() {
		f.add(e.line, "%s = %s: expected an IPv4 address such as 192.0.2.1", key, e.value)
	}
	return addr
}
