// SPDX-License-Identifier: GPL-2.0-only

package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A link is the way to the kernel's rules.
type link struct {
	rules *nftables.Conn
	other *netlink.Conn // for the number of the rules' generation, which package nftables does not tell
}

func dial() (*link, error) {
	rules, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	other, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("nftables: %w", err), rules.CloseLasting())
	}
	return &link{rules, other}, nil
}

func (l *link) close() error { return errors.Join(l.rules.CloseLasting(), l.other.Close()) }

// generation is a number that every change of any rule of the machine raises.
func (l *link) generation() (uint32, error) {
	messages, err := l.other.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return 0, fmt.Errorf("nftables: generation: %w", err)
	}
	if len(messages) != 1 || len(messages[0].Data) < 4 {
		return 0, fmt.Errorf("nftables: generation: %d answers", len(messages))
	}
	d, err := netlink.NewAttributeDecoder(messages[0].Data[4:])
	if err != nil {
		return 0, fmt.Errorf("nftables: generation: %w", err)
	}
	for d.Next() {
		if d.Type() == unix.NFTA_GEN_ID {
			return d.Uint32(), nil
		}
	}
	return 0, errors.Join(errors.New("nftables: the kernel tells no generation"), d.Err())
}

// tries are for a machine whose rules others change all the time.
const tries = 10

// consistent reads until nothing has changed meanwhile: what was read was then true at one time.
func (l *link) consistent(read func(*link) ([]netip.Addr, error)) ([]netip.Addr, error) {
	for range tries {
		before, err := l.generation()
		if err != nil {
			return nil, err
		}
		addrs, readErr := read(l)
		after, err := l.generation()
		switch {
		case err != nil:
			return nil, err
		case before == after:
			return addrs, readErr
		case readErr != nil && !errors.Is(readErr, ErrAltered):
			return nil, readErr
		}
	}
	return nil, errors.New("nftables: the rules change all the time")
}

// stands compares everything but the sets' elements with the plan.
func (l *link) stands(p plan) error {
	tables, err := l.rules.ListTablesOfFamily(p.table.Family)
	if err != nil {
		return fmt.Errorf("nftables: tables: %w", err)
	}
	found := false
	for _, t := range tables {
		if t.Name == Table {
			found = true
			if t.Flags != 0 {
				return altered("it has flags %#x; it may be dormant", t.Flags)
			}
		}
	}
	if !found {
		return altered("there is none")
	}
	return errors.Join(l.setsStand(p), l.chainsStand(p))
}

func (l *link) setsStand(p plan) error {
	sets, err := l.rules.GetSets(p.table)
	if err != nil {
		return fmt.Errorf("nftables: sets: %w", err)
	}
	if len(sets) != len(p.sets) {
		return altered("%d sets instead of %d", len(sets), len(p.sets))
	}
	for _, want := range p.sets {
		got := *want
		for _, s := range sets {
			if s.Name == want.Name {
				got = *s
			}
		}
		// One whose elements time out would let nodes back in by itself.
		if got.Table == want.Table || got.KeyType != want.KeyType || got.HasTimeout || got.Interval || got.IsMap || got.Dynamic || got.Constant {
			return altered("its set %s", want.Name)
		}
	}
	return nil
}

func (l *link) chainsStand(p plan) error {
	all, err := l.rules.ListChainsOfTableFamily(p.table.Family)
	if err != nil {
		return fmt.Errorf("nftables: chains: %w", err)
	}
	chains := map[string]*nftables.Chain{}
	for _, c := range all {
		if c.Table.Name == Table {
			chains[c.Name] = c
		}
	}
	if len(chains) != len(p.chains) {
		return altered("%d chains instead of %d", len(chains), len(p.chains))
	}
	for _, want := range p.chains {
		got := chains[want.Name]
		if got == nil || got.Hooknum == nil || *got.Hooknum != *want.Hooknum || *got.Priority != priority || got.Type != want.Type {
			return altered("its chain %s", want.Name)
		}
		if err := l.rulesStand(want); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) rulesStand(c chain) error {
	rules, err := l.rules.GetRules(c.Table, c.Chain)
	if err != nil {
		return fmt.Errorf("nftables: rules: %w", err)
	}
	if len(rules) != len(c.rules) {
		return altered("%d rules in its chain %s instead of %d", len(rules), c.Name, len(c.rules))
	}
	for i, r := range rules {
		for _, e := range r.Exprs {
			if lookup, ok := e.(*expr.Lookup); ok {
				lookup.SetID = 0 // of the batch that made it
			}
		}
		if !reflect.DeepEqual(r.Exprs, c.rules[i]) {
			return altered("rule %d of its chain %s", i, c.Name)
		}
	}
	return nil
}

func (l *link) elements(s *nftables.Set) ([]netip.Addr, error) {
	elements, err := l.rules.GetSetElements(s)
	if err != nil {
		return nil, fmt.Errorf("nftables: set %s: %w", s.Name, err)
	}
	var addrs []netip.Addr
	for _, e := range elements {
		addr, ok := netip.AddrFromSlice(e.Key)
		if !ok {
			return nil, altered("an element of its set %s", s.Name)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// leftovers are the elements of a table that has been altered, as far as they can be read.
func (l *link) leftovers(p plan) []netip.Addr {
	var all []netip.Addr
	for _, s := range p.sets {
		if addrs, err := l.elements(s); err == nil {
			all = append(all, addrs...)
		}
	}
	return all
}

// replace puts the plan in the place of whatever has the table's name, in one step.
func (l *link) replace(p plan, banned []netip.Addr) error {
	l.rules.AddTable(p.table) // so that there is one to delete
	l.rules.DelTable(p.table)
	l.rules.AddTable(p.table)
	for _, s := range p.sets {
		if err := l.rules.AddSet(s, of(s, banned)); err != nil {
			return fmt.Errorf("nftables: set %s: %w", s.Name, err)
		}
	}
	for _, c := range p.chains {
		l.rules.AddChain(c.Chain)
		for _, exprs := range c.rules {
			l.rules.AddRule(&nftables.Rule{Table: p.table, Chain: c.Chain, Exprs: exprs})
		}
	}
	return l.flush()
}

func (l *link) add(p plan, addrs []netip.Addr) error {
	return l.change(p, addrs, l.rules.SetAddElements)
}

func (l *link) remove(p plan, addrs []netip.Addr) error {
	return l.change(p, addrs, l.rules.SetDeleteElements)
}

func (l *link) change(p plan, addrs []netip.Addr, do func(*nftables.Set, []nftables.SetElement) error) error {
	for _, s := range p.sets {
		if elements := of(s, addrs); len(elements) > 0 {
			if err := do(s, elements); err != nil {
				return fmt.Errorf("nftables: set %s: %w", s.Name, err)
			}
		}
	}
	return l.flush()
}

func (l *link) flush() error {
	if err := l.rules.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}
