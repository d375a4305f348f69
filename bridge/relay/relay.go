// SPDX-License-Identifier: GPL-2.0-only

// Package relay is what a fencing node carries out: the orders of package remote, by the methods that
// its own fence.conf names.
package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/dispatch"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/relay"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
)

// What is wrong with a configuration that may be right for a node of the cluster.
var (
	ErrNothing = errors.New("no node has a method that a relay could carry out")
	ErrRelayed = errors.New("a relay does not hand orders on to another relay")
)

// A Relay has the devices of all nodes that it can act on.
type Relay struct {
	Nodes   []server.Node // without keys
	devices *setup.Bridge
}

// A step is one method of a node, or several that act at once, with the time for one attempt.
type step struct {
	device  fencemethods.Device
	timeout time.Duration
}

// Open makes the devices. Nodes that are left to a method of the kernel, which has no part in this, are
// left out: an order for one of them is refused. After an error none is left open. begin is as for
// setup.OpenBridge.
func Open(cfg *config.Config, begin func()) (*Relay, error) {
	if err := verify(cfg); err != nil {
		return nil, err
	}
	devices, err := setup.OpenBridge(cfg, begin)
	if err != nil {
		return nil, err
	}
	r := &Relay{devices: devices}
	at := 0
	for _, c := range cfg.Clusters {
		for _, n := range c.Nodes {
			if h := newHandler(n, devices.Nodes[at].Jobs); len(h.steps) > 0 {
				target := fencemethods.Target{Cluster: c.Name, Node: uint8(n.Number), Name: n.Name}
				r.Nodes = append(r.Nodes, server.Node{Target: target, Handler: h})
			}
			at++
		}
	}
	return r, nil
}

// verify looks for what no relay can do.
func verify(cfg *config.Config) error {
	some := false
	for _, c := range cfg.Clusters {
		for _, n := range c.Nodes {
			for _, s := range n.Devices() {
				if s.Method == relay.Name {
					return fmt.Errorf("node %s: %w", n.Name, ErrRelayed)
				}
				some = some || !setup.IsKernel(s.Method)
			}
		}
	}
	if !some {
		return ErrNothing
	}
	return nil
}

// newHandler takes the jobs of a node, which are its steps but for the kernel's, in the same order.
func newHandler(n config.Node, jobs []dispatch.Job) *handler {
	h := &handler{}
	for _, s := range n.Steps {
		if !setup.IsKernel(s.Method) {
			device := jobs[len(h.steps)].Device
			h.steps = append(h.steps, step{device, time.Duration(s.TimeoutMS) * time.Millisecond})
		}
	}
	return h
}

// Close closes all devices. Nothing may be under way.
func (r *Relay) Close() error { return r.devices.Close() }

// A handler carries out the orders for one node. It serves one goroutine.
type handler struct {
	steps  []step
	fenced int  // the step that fenced last, and is asked for the way back
	part   part // the context of a step that is not the last
}

// Order carries out one order.
func (h *handler) Order(ctx context.Context, o server.Order) (server.Result, error) {
	switch o.Op {
	case message.Off:
		return h.off(ctx)
	case message.On:
		return server.Result{State: fencemethods.On}, h.steps[h.fenced].device.On(ctx)
	case message.Status:
		state, err := h.steps[h.fenced].device.Status(ctx)
		return server.Result{State: state}, err
	default:
		return server.Result{}, h.check(ctx)
	}
}

// off tries the devices in their order, until one was read as off. What is left of the time is shared
// by those that are left. The first failure is told: it is of the method that was to do it.
func (h *handler) off(ctx context.Context) (server.Result, error) {
	var first error
	for i, s := range h.steps {
		err := s.device.Off(h.share(ctx, i))
		if err == nil {
			h.fenced = i
			return server.Result{State: fencemethods.Off}, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return server.Result{}, first
}

// check wants all devices to be ready.
func (h *handler) check(ctx context.Context) error {
	for i, s := range h.steps {
		if err := s.device.Check(h.share(ctx, i)); err != nil {
			return err
		}
	}
	return nil
}

// share is the context for the i-th step: all that is left for the last, an equal part for another, and
// no more than its own timeout_ms.
func (h *handler) share(ctx context.Context, i int) context.Context {
	left := len(h.steps) - i
	if left == 1 {
		return ctx
	}
	now := time.Now()
	deadline, _ := ctx.Deadline()
	h.part = part{ctx, now.Add(min(h.steps[i].timeout, deadline.Sub(now)/time.Duration(left)))}
	return &h.part
}

// A part is a context with an earlier deadline, in place, where context.WithDeadline would allocate
// and start a timer. Methods go by Deadline and Err; Done is the whole's.
type part struct {
	context.Context
	deadline time.Time
}

// Deadline is the part's.
func (p *part) Deadline() (time.Time, bool) { return p.deadline, true }

// Err is the whole's, or that the part is over.
func (p *part) Err() error {
	if err := p.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(p.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}
