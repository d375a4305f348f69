// SPDX-License-Identifier: GPL-2.0-only

// Package gate bans nodes on a storage server, or on the router or switch before it, for the method
// ipban, and proves that they are cut off. (R15)
//
// A node is off when all of this was read, in this order: every address of its is in the packet filter,
// and the filter stands as it was made; the ban is on the disk, for the next start; nothing that had
// come in before is unread; its connections are ended; the target has finished what it had taken from
// them; and the filter still stands. What cannot be read is unknown.
//
// A machine that bans does not mount the file system that it serves: it may wait for memory and for its
// own disk. It is not in the write-out path of those whom it bans.
package gate

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/fencemethods"
)

// A Filter drops all packets from and to addresses: a *filter.Filter.
type Filter interface {
	Ban([]netip.Addr) (changed bool, err error)
	Allow([]netip.Addr) error
	Banned() ([]netip.Addr, error)
}

// A Gate bans the nodes of a configuration. It is safe for concurrent use.
type Gate struct {
	filter Filter
	store  store
	target target
	settle time.Duration
	hold   time.Duration
	nodes  []*Node

	mu    sync.Mutex    // one change of filter and store at a time
	epoch atomic.Uint64 // counts how often the filter had to be put right: proofs from before are none
}

// StateFile is where bans are kept over a restart.
const StateFile = "/var/lib/o2fence/ipban.json"

// Open reads which nodes are banned from the file stateName, which need not be there. It changes
// nothing; Restore does.
func Open(c *config.IPBan, f Filter, stateName string) (*Gate, error) {
	g := &Gate{
		filter: f, store: store{stateName}, target: targetOf(c.Target),
		settle: time.Duration(c.SettleMS) * time.Millisecond, hold: time.Duration(c.HoldMS) * time.Millisecond,
	}
	kept, err := g.store.read()
	if err != nil {
		return nil, err
	}
	for _, in := range c.Nodes {
		n := &Node{gate: g, IPBanNode: in, Target: fencemethods.Target{Cluster: in.Cluster, Node: uint8(in.Number), Name: in.Name}}
		if kept.has(n.Target) {
			n.banned = time.Now()
		}
		g.nodes = append(g.nodes, n)
	}
	return g, nil
}

// Nodes are those of the configuration, in its order.
func (g *Gate) Nodes() []*Node { return g.nodes }

// Restore bans whoever was banned before, and has the filter stand. It tells whether anything had to be
// done for that: at the first start, or because somebody has altered the filter since.
func (g *Gate) Restore() (changed bool, err error) {
	err = g.change(func(kept state) error {
		changed, err = g.restore(kept)
		return err
	})
	return changed, err
}

// change is the one way to filter and store, for this process and others.
func (g *Gate) change(do func(kept state) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	unlock, err := g.store.lock()
	if err != nil {
		return err
	}
	defer unlock()
	kept, err := g.store.read()
	if err != nil {
		return err
	}
	return do(kept)
}

// restore is called within change.
func (g *Gate) restore(kept state) (changed bool, err error) {
	changed, err = g.filter.Ban(g.addresses(kept))
	if changed {
		g.epoch.Add(1)
	}
	return changed, err
}

// addresses are those that the nodes had when they were banned, and those that they have now.
func (g *Gate) addresses(kept state) []netip.Addr {
	var all []netip.Addr
	for _, b := range kept.Banned {
		all = append(all, b.Addresses...)
		for _, n := range g.nodes {
			if b.is(n.Target) {
				all = append(all, n.Addresses...)
			}
		}
	}
	return all
}

// Strangers are those who are banned and no longer configured, be it by another number.
func (g *Gate) Strangers() ([]fencemethods.Target, error) {
	kept, err := g.store.read()
	var all []fencemethods.Target
	for _, b := range kept.Banned {
		if !slices.ContainsFunc(g.nodes, func(n *Node) bool { return b.is(n.Target) }) {
			all = append(all, b.target())
		}
	}
	return all, err
}

// Release lets a node back in by an administrator's word, whoever has banned it and however lately; it
// may be one that is no longer configured, or was by other numbers.
func (g *Gate) Release(cluster, name string) error {
	return g.change(func(kept state) error {
		var found []fencemethods.Target
		for _, b := range kept.Banned {
			if b.Name == name && (cluster == "" || b.Cluster == cluster) {
				found = append(found, b.target())
			}
		}
		if len(found) == 0 {
			return fmt.Errorf("no node %q is banned", name)
		}
		for _, t := range found {
			if t.Cluster != found[0].Cluster {
				return fmt.Errorf("nodes %q of several clusters are banned: name one as CLUSTER/NODE", name)
			}
		}
		for _, t := range found {
			if err := g.release(kept, t); err != nil {
				return err
			}
			kept = kept.without(t)
		}
		return nil
	})
}

// release is called within change. The file is written last: a crash before that leaves the node banned.
func (g *Gate) release(kept state, target fencemethods.Target) error {
	left := kept.without(target)
	others := g.addresses(left)
	addrs := g.addresses(state{Banned: slices.DeleteFunc(slices.Clone(kept.Banned), func(b ban) bool { return !b.is(target) })})
	for _, n := range g.nodes {
		if n.Target == target {
			addrs = append(addrs, n.Addresses...)
		}
	}
	// An address may have come to belong to another node since, which is banned, too.
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return slices.Contains(others, a) })
	if err := g.filter.Allow(addrs); err != nil {
		return err
	}
	return g.store.write(left)
}
