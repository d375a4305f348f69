// SPDX-License-Identifier: GPL-2.0-only

// Package filter keeps the one nftables table by which a storage server, or the router or switch before
// it, drops every packet from and to banned addresses.
//
// Its chains come before defragmentation and connection tracking: a connection that was let in once is
// cut like a new one, and no rule of another table can accept a packet past them. (R15)
package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
)

// ErrAltered is for a table that is not there, or not as this package makes it.
var ErrAltered = errors.New("the table is not as it was made")

// Table is the table's name.
const Table = "o2fence"

// A Family says what passes through this machine.
type Family = nftables.TableFamily

// INet is for a machine that is the packets' end, or routes them; Bridge for one that only switches them.
const (
	INet   Family = nftables.TableFamilyINet
	Bridge Family = nftables.TableFamilyBridge
)

// A Filter is the table, over a lasting connection to the kernel. It is safe for concurrent use.
type Filter struct {
	family Family

	mu   sync.Mutex
	link *link // nil: made with the next use
}

// Open connects to the kernel. It changes nothing: the table outlives whoever has made it.
func Open(family Family) (*Filter, error) {
	f := &Filter{family: family}
	l, err := dial()
	if err != nil {
		return nil, err
	}
	f.link = l
	return f, nil
}

// Close gives the connection back. What is banned stays so.
func (f *Filter) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.link == nil {
		return nil
	}
	err := f.link.close()
	f.link = nil
	return err
}

// Ban has the table stand, with these addresses in it beside those that are. It tells whether anything had
// to be done for that.
func (f *Filter) Ban(addrs []netip.Addr) (changed bool, err error) {
	err = f.use(func(l *link) error {
		old, err := l.consistent(f.read)
		missing := without(addrs, old)
		switch {
		case errors.Is(err, ErrAltered):
			changed = true
			// What another has left in its sets stays banned: nobody has let it in.
			return l.replace(f.plan(), union(l.leftovers(f.plan()), addrs))
		case err != nil, len(missing) == 0:
			return err
		}
		changed = true
		return l.add(f.plan(), missing)
	})
	return changed, err
}

// Allow takes addresses out of the table. It does not mind those that are not in it.
func (f *Filter) Allow(addrs []netip.Addr) error {
	return f.use(func(l *link) error {
		old, err := l.consistent(f.read)
		if err != nil {
			return err
		}
		return l.remove(f.plan(), without(addrs, without(addrs, old)))
	})
}

// Banned reads the whole table and returns the addresses in it. The error is ErrAltered unless they are
// really dropped: unless its flags, chains, rules and sets are as Ban makes them.
func (f *Filter) Banned() ([]netip.Addr, error) {
	var banned []netip.Addr
	err := f.use(func(l *link) (err error) {
		banned, err = l.consistent(f.read)
		return err
	})
	return banned, err
}

// use lends the connection. After an error nobody knows which answers are still to come on it, so the next
// use has a new one.
func (f *Filter) use(do func(*link) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.link == nil {
		l, err := dial()
		if err != nil {
			return err
		}
		f.link = l
	}
	err := do(f.link)
	if err != nil && !errors.Is(err, ErrAltered) {
		err = errors.Join(err, f.link.close())
		f.link = nil
	}
	return err
}

func (f *Filter) read(l *link) ([]netip.Addr, error) {
	p := f.plan()
	if err := l.stands(p); err != nil {
		return nil, err
	}
	var banned []netip.Addr
	for _, s := range p.sets {
		addrs, err := l.elements(s)
		if err != nil {
			return nil, err
		}
		banned = append(banned, addrs...)
	}
	return banned, nil
}

func altered(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrAltered, fmt.Sprintf(format, args...))
}

func union(a, b []netip.Addr) []netip.Addr { return slices.Concat(a, without(b, a)) }

// without returns those of addrs that are not among others.
func without(addrs, others []netip.Addr) []netip.Addr {
	var left []netip.Addr
	for _, a := range addrs {
		if !slices.Contains(others, a) && !slices.Contains(left, a) {
			left = append(left, a)
		}
	}
	return left
}
