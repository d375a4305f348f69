// SPDX-License-Identifier: GPL-2.0-only

// Package config reads what the administrator wants: the clusters and nodes of ocfs2-tools'
// /etc/ocfs2/cluster.conf, and how each of the nodes is fenced from /etc/ocfs2/fence.conf.
//
// It is strict. What it does not know it refuses, every refusal says file, line, what was expected
// and the nearest valid word, and all refusals of a file come together. What it returns is digested
// for the kernel (R4): the join and the daemon get the same bytes from the same files.
//
// Nothing here runs while a node is being fenced.
package config

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// Where the configuration of a machine is.
const (
	ClusterFile = "/etc/ocfs2/cluster.conf"
	FenceFile   = "/etc/ocfs2/fence.conf"
)

// Minimal is the shortest fence.conf that powers a node off. Every other node of the cluster, and
// this one when its BMC does not answer, is left to the method watchdog.
const Minimal = `cluster:
	name = mycluster

fence:
	node = web2
	method = ipmi
	addr = 192.0.2.12
	user = fence
	password_file = /etc/ocfs2/bmc.password
`

// A Config is both files together.
type Config struct {
	Clusters []*Cluster // in the order of cluster.conf

	// Warnings are what was accepted but is probably not what was meant, in the order of the
	// files and their lines.
	Warnings []*Error
}

// A Cluster is one cluster with everything that joining it takes.
type Cluster struct {
	Name            string
	GlobalHeartbeat bool     // heartbeat_mode = global: the regions are those of Regions
	Regions         []string // UUIDs of the heartbeat stanzas

	Missed       uint32 // heartbeats a node may miss before it is fenced, 2..1000 (R24)
	PeriodMS     uint32 // ms, 100..60000 (R24)
	GateMS       uint32 // ms that recovery may be held for a fence, 0..60000
	FenceDelayMS uint32 // ms that half a cluster without its lowest node waits, 0..600000 (R25)
	ThenDelayMS  uint32 // ms between FENCED and power on, 0..600000
	Threshold    uint32 // OCFS2's O2CB_HEARTBEAT_THRESHOLD, 2..10000

	Nodes []Node // in ascending order of their numbers
}

// A Node is one node and the methods that fence it, the first one first.
type Node struct {
	Name   string
	Number uint32 // 0..254
	Addr   netip.AddrPort
	ThenOn bool   // power it on again after it was fenced
	Steps  []Step // at most 8, the last of which runs in the kernel
}

// Devices are the steps that are a method each: those of the node, with the members of its levels in
// the place of the level.
func (n Node) Devices() []Step {
	var all []Step
	for _, s := range n.Steps {
		all = append(all, s.Devices()...)
	}
	return all
}

// A Step is one method of a node's list in the form that the kernel gets, or a level, which is one
// method to the kernel.
type Step struct {
	Method    string // of a level: its members', joined by "+" for all, by "|" for any
	TimeoutMS uint32 // of one attempt, Delay included; of a member, that of its level

	// Params are lines of key=value, sorted by key; nil when there are none. Behind an empty line is
	// how the method is used, where that was said. The kernel hands them back with INITIATE, so that
	// the daemon can tell whether its configuration is still the one that was joined with. Secrets are
	// in them by the names of their files only. Those of a level are a digest of its members'.
	Params []byte

	// Values are the same parameters as a map.
	Values map[string]string

	Level   Rule   // of its Members
	Members []Step // that are carried out at once; none but in a level

	Retries   uint32 // how often the method is tried again when it has failed before its time
	BackoffMS uint32 // ms before the first of them, twice that before the next
	AfterMS   uint32 // ms after the beginning of its level when a member begins

	DelayMS       uint32 // ms before it begins
	DelayRandomMS uint32 // ms at most that are added to them, each time another number
}

// A Rule says which members of a level have to prove that the node is off.
type Rule string

// NoLevel is a method that stands alone, All wants every member's proof, Any the earliest.
const (
	NoLevel Rule = ""
	All     Rule = "all"
	Any     Rule = "any"
)

// Devices are the members of a level, or the step itself.
func (s Step) Devices() []Step {
	if s.Level == NoLevel {
		return []Step{s}
	}
	return s.Members
}

// A File is a configuration file that was read already; Name is for the error texts.
type File struct {
	Name string
	Text string
}

// Load reads and parses both files; ClusterFile and FenceFile are the usual ones. A file that
// cannot be read is told by errors.Is, such as fs.ErrNotExist.
func Load(clusterName, fenceName string, methods Schema) (*Config, error) {
	cluster, err := os.ReadFile(clusterName)
	if err != nil {
		return nil, err
	}
	fence, err := os.ReadFile(fenceName)
	if err != nil {
		return nil, err
	}
	return Parse(File{clusterName, string(cluster)}, File{fenceName, string(fence)}, methods)
}

// Parse parses both files; fence is checked against cluster, and only when that is right. The error
// joins one *Error for each thing that is wrong, in the order of their lines. Secrets are not read,
// but their files are looked at.
func Parse(cluster, fence File, methods Schema) (*Config, error) {
	p := problems{file: cluster.Name}
	c := Config{Clusters: parseClusters(&p, cluster.Text)}
	if err := p.err(); err != nil {
		return nil, err
	}
	c.Warnings = p.warned()
	q := problems{file: fence.Name}
	parseFences(&q, fence.Text, c.Clusters, methods)
	if err := q.err(); err != nil {
		return nil, err
	}
	c.Warnings = append(c.Warnings, q.warned()...)
	return &c, nil
}

// Cluster returns the cluster of that name. The empty name is the only cluster there is.
func (c *Config) Cluster(name string) (*Cluster, error) {
	if name == "" && len(c.Clusters) == 1 {
		return c.Clusters[0], nil
	}
	if found := clusterOf(c.Clusters, name); found != nil {
		return found, nil
	}
	if name == "" {
		return nil, fmt.Errorf("several clusters are configured: %s", expected("", clusterNames(c.Clusters)))
	}
	return nil, fmt.Errorf("unknown cluster %q: %s", name, expected(name, clusterNames(c.Clusters)))
}

// Node returns the node of that name.
func (c *Cluster) Node(name string) (*Node, error) {
	if n := c.node(name); n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("cluster %s has no node %q: %s", c.Name, name, expected(name, c.nodeNames()))
}

// NodeOfHost returns the node that is the machine of that host name, by o2cb's own rule: its name
// is the host name, or that up to one of its dots, whatever the case.
func (c *Cluster) NodeOfHost(host string) (*Node, error) {
	for i, n := range c.Nodes {
		if len(host) < len(n.Name) || !strings.EqualFold(host[:len(n.Name)], n.Name) {
			continue
		}
		if rest := host[len(n.Name):]; rest == "" || rest[0] == '.' {
			return &c.Nodes[i], nil
		}
	}
	return nil, fmt.Errorf("cluster %s has no node for the host name %q: %s", c.Name, host, expected(host, c.nodeNames()))
}

func (c *Cluster) node(name string) *Node {
	for i := range c.Nodes {
		if c.Nodes[i].Name == name {
			return &c.Nodes[i]
		}
	}
	return nil
}

func (c *Cluster) nodeNames() []string {
	var names []string
	for _, n := range c.Nodes {
		names = append(names, n.Name)
	}
	return names
}

func clusterOf(clusters []*Cluster, name string) *Cluster {
	for _, c := range clusters {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func clusterNames(clusters []*Cluster) []string {
	var names []string
	for _, c := range clusters {
		names = append(names, c.Name)
	}
	return names
}
