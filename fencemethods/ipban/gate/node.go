// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ipban/connections"
)

// A Node is one that can be banned. Its operations are those of a fencemethods.Device, and serve one
// goroutine at a time.
type Node struct {
	config.IPBanNode
	Target fencemethods.Target

	gate   *Gate
	banned time.Time // since when this process knows of the ban; zero: there is none
	proof  proof
}

// A proof is how far it has come that a banned node is cut off.
type proof struct {
	epoch  uint64    // of the filter
	synced bool      // no packet that an older filter has let pass is under way any more
	looks  int       // how often running nothing was unread
	quiet  time.Time // since when there is no connection; zero: there are some
}

// nap is between two looks.
const nap = 20 * time.Millisecond

// Off bans the node, and returns nil when it is cut off. What was still missing at the deadline is the
// error; the ban stays.
func (n *Node) Off(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	for {
		err := n.ban()
		if err == nil {
			err = n.prove(ctx)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(ctx.Err(), context.Canceled):
			return ctx.Err()
		case time.Until(deadline) <= nap:
			return err
		}
		time.Sleep(nap)
	}
}

// ban has the node in the filter and on the disk. It changes nothing where it is in both.
func (n *Node) ban() error {
	g := n.gate
	err := g.change(func(kept state) error {
		if _, err := g.restore(kept); err != nil {
			return err
		}
		// The filter comes before the disk, which may take its time.
		if _, err := g.filter.Ban(n.Addresses); err != nil {
			return err
		}
		if n.banned.IsZero() || !kept.has(n.Target) { // which another process may have let in since
			n.banned, n.proof = time.Now(), proof{epoch: g.epoch.Load()}
		}
		if kept.keeps(n) {
			return nil
		}
		return g.store.write(kept.with(n))
	})
	return failure(fencemethods.ErrRefused, err)
}

// prove takes the proof one step further. It is the one place that says that a node is cut off.
func (n *Node) prove(ctx context.Context) error {
	epoch := n.gate.epoch.Load()
	if n.proof.epoch != epoch {
		n.proof = proof{epoch: epoch}
	}
	for _, step := range []func(context.Context) error{n.stands, n.sync, n.unconnected, n.finished, n.stands} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if n.gate.epoch.Load() != epoch {
		return errAltered
	}
	return nil
}

// stands reads filter and disk.
func (n *Node) stands(context.Context) error {
	some, all, err := n.inFilter()
	switch {
	case err != nil:
		return err
	case !some:
		return errNotBanned
	case !all:
		return errPartly
	}
	kept, err := n.gate.store.read()
	switch {
	case err != nil:
		return failure(fencemethods.ErrRefused, err)
	case !kept.keeps(n):
		return errNotKept
	}
	return nil
}

func (n *Node) inFilter() (some, all bool, err error) {
	banned, err := n.gate.filter.Banned()
	if err != nil {
		return false, false, failure(fencemethods.ErrTimeout, err)
	}
	some = slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return slices.Contains(banned, a) })
	return some, contains(banned, n.Addresses), nil
}

// sync waits until every packet that the filter let pass before the ban has come to where connections
// have their data: the kernel handles each within a read-side critical section of RCU, and this command
// waits for all of these.
func (n *Node) sync(context.Context) error {
	if n.proof.synced {
		return nil
	}
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	if _, _, errno := syscall.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		return failure(fencemethods.ErrRefused, fmt.Errorf("membarrier: %w", errno))
	}
	n.proof.synced = true
	return nil
}

// unconnected ends the node's connections once all that has come in was read. Nothing new comes: what was
// not in a backlog at one look is in the queue, or read, at the next.
func (n *Node) unconnected(context.Context) error {
	left, err := connections.Of(n.Addresses)
	if err != nil {
		return failure(fencemethods.ErrRefused, err)
	}
	if len(left) == 0 {
		if n.proof.quiet.IsZero() {
			n.proof.quiet = time.Now()
		}
		return nil
	}
	n.proof.quiet = time.Time{}
	for _, c := range left {
		if c.Unread > 0 {
			n.proof.looks = 0
			return errUnread
		}
	}
	if n.proof.looks++; n.proof.looks < 2 {
		return errUnread
	}
	if err := connections.End(left); err != nil {
		return failure(fencemethods.ErrRefused, err)
	}
	return errConnected
}

// finished asks the target.
func (n *Node) finished(ctx context.Context) error {
	working, err := n.gate.target.working(ctx, &n.IPBanNode)
	switch {
	case err != nil:
		return failure(fencemethods.ErrTimeout, err)
	case working:
		return errWorking
	case time.Since(n.proof.quiet) < n.gate.settle:
		return errSettling
	}
	return nil
}

// On lets the node back in.
func (n *Node) On(context.Context) error {
	if left := n.gate.hold - time.Since(n.banned); !n.banned.IsZero() && left > 0 {
		e := *errHeld
		e.Detail = fmt.Sprintf("it is banned for %d s more", int(left.Seconds())+1)
		return &e
	}
	err := n.gate.change(func(kept state) error { return n.gate.release(kept, n.Target) })
	if err != nil {
		return failure(fencemethods.ErrRefused, err)
	}
	n.banned, n.proof = time.Time{}, proof{}
	if some, _, err := n.inFilter(); err != nil || some {
		return cmp.Or[error](err, errOther)
	}
	return nil
}

// Status reads. A node that is banned, but not proven to be cut off, is in neither state; the error says
// what is missing.
func (n *Node) Status(ctx context.Context) (fencemethods.State, error) {
	some, all, err := n.inFilter()
	if err != nil {
		return fencemethods.Unknown, err
	}
	kept, err := n.gate.store.read()
	if err != nil {
		return fencemethods.Unknown, failure(fencemethods.ErrRefused, err)
	}
	switch {
	case all && kept.keeps(n):
		if err := n.prove(ctx); err != nil {
			return fencemethods.Unknown, err
		}
		return fencemethods.Off, nil
	case !some && !kept.has(n.Target):
		return fencemethods.On, nil
	case all:
		return fencemethods.Unknown, errNotKept
	}
	return fencemethods.Unknown, errPartly
}

// Check proves, without changing who is banned, that the node could be: that the filter stands, the disk
// takes its state, connections can be ended and the target answers, for whom the node has no other
// address.
func (n *Node) Check(ctx context.Context) error {
	if _, _, err := n.inFilter(); err != nil {
		return err
	}
	if err := n.gate.change(n.gate.store.write); err != nil {
		return failure(fencemethods.ErrRefused, err)
	}
	if err := connections.Check(); err != nil {
		return failure(fencemethods.ErrRefused, err)
	}
	_, err := n.gate.target.working(ctx, &n.IPBanNode)
	return failure(fencemethods.ErrRefused, err)
}
