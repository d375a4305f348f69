// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
)

// lookAgain is how long a look at the kernel's state counts. An event calls for the next one at
// once, but events may be lost, without a word when the kernel has no memory for them.
const lookAgain = time.Second

// errNotFenced is the end of a request without proof.
var errNotFenced = errors.New("not fenced")

// A follower fences one node, or follows a fence of it that is under way.
//
// Its facts are the kernel's dumps; events only say when to look. Requests are told apart by their
// numbers, which are never reused, so that the proof of an earlier fence is not taken for that of
// a later one: a node may have come back since.
type follower struct {
	kernel  Kernel
	cluster string
	node    uint32
	name    string
	wake    chan struct{} // holds one: an event about somebody has come
}

// fenceWithin fences a node within power_timeout.
func (a *Agent) fenceWithin(ctx context.Context, o *options, c *config.Cluster, n *config.Node) (kernel.Request, error) {
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	f, stop, err := a.follow(ctx, c, n)
	if err != nil {
		return kernel.Request{}, err
	}
	defer stop()
	r, err := f.fence(ctx, o.failTime, reason(o))
	if ctx.Err() != nil {
		err = fmt.Errorf("node %s: no proof yet that it is fenced, the fence goes on: %w", n.Name, ctx.Err())
	}
	return r, err
}

// reason is what the history will say.
func reason(o *options) string {
	by := "fence_o2fence"
	if parent, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", os.Getppid())); err == nil {
		by += ", called by " + strings.TrimSpace(string(parent))
	}
	return fmt.Sprintf("%s: %s", by, o.action)
}

// follow listens before anything is looked at, so that nothing is missed between the two.
func (a *Agent) follow(ctx context.Context, c *config.Cluster, n *config.Node) (*follower, func(), error) {
	events, err := a.Listen()
	if err != nil {
		return nil, nil, err
	}
	k, err := a.Dial()
	if err != nil {
		events.Close()
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{kernel: k, cluster: c.Name, node: n.Number, name: n.Name, wake: make(chan struct{}, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range events.Events(ctx) {
			select {
			case f.wake <- struct{}{}:
			default:
			}
		}
	}()
	return f, func() { cancel(); events.Close(); <-ended; k.Close() }, nil
}

// fence returns the request that has fenced the node.
func (f *follower) fence(ctx context.Context, failed time.Time, reason string) (kernel.Request, error) {
	all, mark, err := f.look(ctx)
	if err != nil {
		return kernel.Request{}, err
	}
	if r, ok := since(all, failed); ok {
		return r, nil
	}
	for {
		first := mark + 1
		if r, ok := underWay(all); ok && r.State < uapi.EventFenced {
			first = r.ID // somebody else's, whose proof is still to come
		} else if err := f.kernel.Fence(ctx, f.cluster, f.node, 0, reason); err == nil {
			return f.await(ctx, first)
		} else if !errors.Is(err, kernel.ErrUnderWay) {
			return kernel.Request{}, err
		}
		if first <= mark {
			// One that was obsolete has proven nothing: the node may have come back, and was not meant
			// to be let go.
			if r, err := f.await(ctx, first); r.State != uapi.EventObsolete {
				return r, err
			}
		} else if err := f.wait(ctx); err != nil {
			return kernel.Request{}, err
		}
		if all, mark, err = f.look(ctx); err != nil {
			return kernel.Request{}, err
		}
	}
}

// await waits for the end of the first request of that number or a higher one.
func (f *follower) await(ctx context.Context, first uint64) (kernel.Request, error) {
	for {
		all, _, err := f.look(ctx)
		if err != nil {
			return kernel.Request{}, err
		}
		var last kernel.Request
		for _, r := range all {
			if r.ID >= first && fenced(r) {
				return r, nil
			}
			if r.ID >= first && r.ID >= last.ID {
				last = r
			}
		}
		if last.ID != 0 && ended(last) {
			return last, fmt.Errorf("node %s: %w: %s", f.name, errNotFenced, why(last))
		}
		if err := f.wait(ctx); err != nil {
			return kernel.Request{}, err
		}
	}
}

func why(r kernel.Request) string {
	switch {
	case r.State == uapi.EventObsolete:
		return "the fence was given up: " + r.Errmsg
	case r.Errmsg != "":
		return fmt.Sprintf("no method could prove it; the last one, %s: %s", r.Method, r.Errmsg)
	}
	return fmt.Sprintf("no method could prove it; the last one, %s: %v", r.Method, r.Errno)
}

// wait waits for an event, but not for long.
func (f *follower) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.wake:
	case <-time.After(lookAgain):
	}
	return nil
}

// look returns the node's requests, those of the history and the last one, and the highest number
// that any request has so far.
func (f *follower) look(ctx context.Context) (all []kernel.Request, mark uint64, err error) {
	// The history after the nodes: a request that ends in between is seen twice, and not missed.
	nodes, err := f.kernel.Nodes(ctx)
	if err != nil {
		return nil, 0, err
	}
	history, err := f.kernel.Requests(ctx)
	if err != nil {
		return nil, 0, err
	}
	joined := false
	for _, n := range nodes {
		joined = joined || n.Cluster == f.cluster && n.Number == f.node
		if n.Last != nil {
			history = append(history, *n.Last)
		}
	}
	if !joined {
		return nil, 0, f.unknown(nodes)
	}
	for _, r := range history {
		mark = max(mark, r.ID)
		if r.Cluster == f.cluster && r.Node == f.node && r.ID != 0 {
			all = append(all, r)
		}
	}
	return all, mark, nil
}

// unknown says why the kernel does not know the node: of a joined cluster it knows all but this one.
func (f *follower) unknown(nodes []kernel.Node) error {
	if slices.ContainsFunc(nodes, func(n kernel.Node) bool { return n.Cluster == f.cluster }) {
		return fmt.Errorf("node %s is the one this runs on, which can only be fenced by another", f.name)
	}
	return fmt.Errorf("cluster %s is not joined: o2fencectl join", f.cluster)
}

func fenced(r kernel.Request) bool {
	return r.State == uapi.EventFenced || r.State == uapi.EventNotice
}

func ended(r kernel.Request) bool {
	return r.State == uapi.EventNotice || r.State == uapi.EventFailed || r.State == uapi.EventObsolete
}

func underWay(all []kernel.Request) (kernel.Request, bool) {
	for _, r := range all {
		// One that has ended between the two dumps is there in both forms.
		if !ended(r) && !endedIn(all, r.ID) {
			return r, true
		}
	}
	return kernel.Request{}, false
}

func endedIn(all []kernel.Request, id uint64) bool {
	for _, r := range all {
		if r.ID == id && ended(r) {
			return true
		}
	}
	return false
}

// since finds a fence that was proven after the node had failed. A fail time is in whole seconds,
// rounded down: what happened in that very second may have happened before. What is still to happen was
// before the clock was put back, and nobody knows how long before.
func since(all []kernel.Request, failed time.Time) (kernel.Request, bool) {
	if failed.IsZero() {
		return kernel.Request{}, false
	}
	for _, r := range all {
		at, ok := r.At[uapi.EventFenced]
		if ok && fenced(r) && at.After(failed.Add(time.Second)) && !at.After(time.Now()) {
			return r, true
		}
	}
	return kernel.Request{}, false
}
