// SPDX-License-Identifier: GPL-2.0-only

package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/o2fence/o2fence/test/vm"
)

// An Event is one line of o2fencectl events.
type Event struct {
	Event   string
	Node    uint32
	Request uint64
	Attempt uint32
	Method  string
	Errno   uint32
	Errmsg  string
	Reason  string

	// HostTime is when it happened, by the host's clock. A guest's clock is off by a constant, and
	// lines arrive late, so the earliest arrival of all lines tells by how much.
	HostTime time.Time

	guestTime time.Time
}

// Events collects what one node tells.
type Events struct {
	mu     sync.Mutex
	rest   []byte
	all    []Event
	offset time.Duration // host's clock minus the guest's
	bad    error
	more   chan struct{} // closed and replaced with each event
}

// Follow begins to collect the events of a node.
func (r *Rig) Follow(ctx context.Context, m *vm.VM) (*Events, error) {
	e := &Events{more: make(chan struct{})}
	_, err := m.Start(ctx, vm.Command{Args: []string{r.Program("o2fencectl"), "events", "--json"}, Stdout: e})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Write takes what o2fencectl prints.
func (e *Events) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rest = append(e.rest, b...)
	for {
		line, rest, ok := bytes.Cut(e.rest, []byte("\n"))
		if !ok {
			break
		}
		e.rest = rest
		e.add(line, time.Now())
	}
	close(e.more)
	e.more = make(chan struct{})
	return len(b), nil
}

func (e *Events) add(line []byte, arrived time.Time) {
	var in struct {
		Lost    bool   `json:"lost"`
		Event   string `json:"event"`
		Request struct {
			Node    uint32               `json:"node"`
			ID      uint64               `json:"request"`
			Attempt uint32               `json:"attempt"`
			Method  string               `json:"method"`
			Errno   uint32               `json:"errno"`
			Errmsg  string               `json:"errmsg"`
			Reason  string               `json:"reason"`
			At      map[string]time.Time `json:"at"`
		} `json:"request"`
	}
	if err := json.Unmarshal(line, &in); err != nil || in.Lost {
		e.bad = fmt.Errorf("events: %s: %v", line, err)
		return
	}
	r := in.Request
	event := Event{
		Event: in.Event, Node: r.Node, Request: r.ID, Attempt: r.Attempt, Method: r.Method,
		Errno: r.Errno, Errmsg: r.Errmsg, Reason: r.Reason, guestTime: r.At[in.Event],
	}
	if late := arrived.Sub(event.guestTime); len(e.all) == 0 || late < e.offset {
		e.offset = late
	}
	e.all = append(e.all, event)
}

// All are the events so far.
func (e *Events) All() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]Event, len(e.all))
	for i, event := range e.all {
		event.HostTime = event.guestTime.Add(e.offset)
		all[i] = event
	}
	return all
}

// Await returns the first event of that name about a node, once it has come.
func (e *Events) Await(ctx context.Context, name string, node uint32) (Event, error) {
	for {
		e.mu.Lock()
		more, bad := e.more, e.bad
		e.mu.Unlock()
		for _, event := range e.All() {
			if event.Event == name && event.Node == node {
				return event, nil
			}
		}
		if bad != nil {
			return Event{}, bad
		}
		select {
		case <-more:
		case <-ctx.Done():
			return Event{}, fmt.Errorf("waiting for event %q of node %d: %w", name, node, context.Cause(ctx))
		}
	}
}
