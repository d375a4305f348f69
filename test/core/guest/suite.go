// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
)

// A suite is what tests share: the modules are loaded, one client speaks, one listener hears.
type suite struct {
	*kernel.Client
	files    map[string]string // of modules, by name
	listener *kernel.Listener
	events   chan kernel.Event
	bridges  []*bridge
}

// patience is for what must happen; nothing waits that long but a test that fails.
const patience = 20 * time.Second

var ctx = context.Background()

// open loads the modules and begins to listen.
func (s *suite) open() (err error) {
	for _, module := range []string{"o2fence", "o2fence_methods", "core_methods"} {
		if err := s.load(module, ""); err != nil {
			return err
		}
	}
	if s.Client, err = kernel.Dial(); err != nil {
		return err
	}
	if s.listener, err = kernel.Listen(); err != nil {
		return err
	}
	s.events = make(chan kernel.Event, 10000)
	go func(listener *kernel.Listener, events chan kernel.Event) {
		defer close(events)
		for e, err := range listener.Events(ctx) {
			if err != nil {
				return
			}
			events <- e
		}
	}(s.listener, s.events)
	return nil
}

func (s *suite) close() {
	if s.Client != nil {
		s.Client.Close()
		s.listener.Close()
		for range s.events { // until it is closed
		}
		s.Client = nil
	}
}

// clean ends what a test that failed has left: it must not fail the next one.
func (s *suite) clean() {
	for _, b := range s.bridges {
		b.kill()
	}
	s.bridges = nil
	if s.Client == nil {
		return
	}
	nodes, _ := s.Nodes(ctx)
	for _, n := range nodes {
		if n.Last != nil && n.Last.Method == "manual" {
			_ = s.Confirm(ctx, *n.Last, "the test is over")
		}
	}
	for _, n := range nodes {
		_ = s.leave(n.Cluster)
	}
	for len(s.events) > 0 {
		<-s.events
	}
}

// leave leaves a cluster as soon as no fence is under way.
func (s *suite) leave(name string) error {
	return eventually(func() (bool, error) {
		err := s.Leave(ctx, name)
		return !errors.Is(err, kernel.ErrBusy), err
	})
}

// eventually waits for what nothing tells of when it happens.
func eventually(done func() (bool, error)) error {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		ok, err := done()
		if ok {
			return err
		}
		if time.Now().After(end) {
			return errors.Join(errors.New("it does not happen"), err)
		}
	}
}

// steps makes steps of a minute each; "method=params" has parameters.
func steps(methods ...string) []kernel.Step {
	var all []kernel.Step
	for _, m := range methods {
		all = append(all, kernel.Step{Method: m, TimeoutMS: 60_000})
	}
	return all
}

// cluster has node 0, this one, and node 1, which has these steps.
func cluster(name string, steps ...kernel.Step) kernel.Cluster {
	return kernel.Cluster{
		Name: name,
		Nodes: []kernel.Node{
			{Number: 0, Steps: []kernel.Step{{Method: "watchdog", TimeoutMS: 60_000}}},
			{Number: 1, Steps: steps},
		},
	}
}

// fence joins cluster c with these steps for node 1, and fences that.
func (s *suite) fence(steps ...kernel.Step) error {
	if err := s.Join(ctx, cluster("c", steps...)); err != nil {
		return err
	}
	return s.Fence(ctx, "c", 1, life, "it is a test")
}

// life is the incarnation that tests fence.
const life = 0x1234567890abcdef

// await returns the next event of that kind, whatever comes before it.
func (s *suite) await(want uapi.Event) (kernel.Request, error) {
	timeout := time.After(patience)
	var before []uapi.Event
	for {
		select {
		case e := <-s.events:
			if e.Event == want {
				return e.Request, nil
			}
			before = append(before, e.Event)
		case <-timeout:
			return kernel.Request{}, fmt.Errorf("no event %v, but %v", want, before)
		}
	}
}

// sequence fails unless these are the next events.
func (s *suite) sequence(want ...uapi.Event) error {
	var got []uapi.Event
	timeout := time.After(patience)
	for len(got) < len(want) {
		select {
		case e := <-s.events:
			got = append(got, e.Event)
		case <-timeout:
			return fmt.Errorf("events %v, want %v", got, want)
		}
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("events %v, want %v", got, want)
	}
	return nil
}

// node1 is what the kernel shows of node 1 of cluster c.
func (s *suite) node1() (kernel.Request, error) {
	nodes, err := s.Nodes(ctx)
	for _, n := range nodes {
		if n.Cluster == "c" && n.Number == 1 && n.Last != nil {
			return *n.Last, nil
		}
	}
	return kernel.Request{}, errors.Join(errors.New("node 1 has no request"), err)
}

// expect turns an error that must be there into nil.
func expect(err, want error) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("got %w, want %v", orNone(err), want)
	}
	return nil
}

func orNone(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}
