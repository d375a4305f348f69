// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
)

var membershipTests = []test{
	{"a registered method is listed with its module", listed},
	{"a second method of the same name is refused", duplicate},
	{"what was joined is shown", shown},
	{"a join with a missing method is refused, names it and leaves nothing behind", missingMethod},
	{"a join whose node has no kernel method at the end is refused", userSpaceLast},
	{"a cluster is joined once", joinedTwice},
	{"method modules are pinned from join to leave", pins},
	{"two clusters at once have pins of their own", twoClusters},
	{"leaving is refused while a fence is under way", leaveWhileFencing},
}

func (s *suite) method(name string) (kernel.Method, error) {
	methods, err := s.Methods(ctx)
	for _, m := range methods {
		if m.Name == name {
			return m, nil
		}
	}
	return kernel.Method{}, errors.Join(fmt.Errorf("%s is not listed", name), err)
}

func listed(s *suite) error {
	for name, module := range map[string]string{
		"watchdog": "o2fence_methods", "manual": "o2fence_methods", "core-ok": "core_methods",
	} {
		m, err := s.method(name)
		if err != nil {
			return err
		}
		if m.Module != module || m.PortID != 0 {
			return fmt.Errorf("%+v", m)
		}
	}
	return nil
}

func duplicate(s *suite) error {
	if err := unload("core_methods"); err != nil {
		return err
	}
	err := expect(s.load("core_methods", "also=watchdog"), syscall.EEXIST)
	if _, gone := s.method("core-ok"); gone == nil {
		return errors.New("the module that was refused has left its methods")
	}
	if m, err := s.method("watchdog"); err != nil || m.Module != "o2fence_methods" {
		return fmt.Errorf("the first one: %+v, %w", m, err)
	}
	return errors.Join(err, s.load("core_methods", ""))
}

func shown(s *suite) error {
	c := cluster("c", steps("core-fail", "manual")...)
	if err := s.Join(ctx, c); err != nil {
		return err
	}
	nodes, err := s.Nodes(ctx)
	if err != nil {
		return err
	}
	if len(nodes) != 1 || nodes[0].Cluster != "c" || nodes[0].Number != 1 || nodes[0].Last != nil ||
		!slices.EqualFunc(nodes[0].Steps, c.Nodes[1].Steps, sameStep) {
		return fmt.Errorf("nodes %+v", nodes)
	}
	return s.Leave(ctx, "c")
}

func sameStep(a, b kernel.Step) bool { return a.Method == b.Method && a.TimeoutMS == b.TimeoutMS }

func missingMethod(s *suite) error {
	c := cluster("c", steps("core-ok")...)
	c.Nodes = append(c.Nodes, kernel.Node{Number: 2, Name: "web2", Steps: steps("core-ok", "core-absent", "watchdog")})
	err := s.Join(ctx, c)
	if err := expect(err, kernel.ErrUnknownMethod); err != nil {
		return err
	}
	if text := err.Error(); !strings.Contains(text, "core-absent") || !strings.Contains(text, "web2") {
		return fmt.Errorf("the refusal reads: %s", text)
	}
	return s.nothingJoined()
}

// nothingJoined fails when a node or a pin is there.
func (s *suite) nothingJoined() error {
	nodes, err := s.Nodes(ctx)
	if err != nil || len(nodes) > 0 {
		return fmt.Errorf("left behind: %+v, %w", nodes, err)
	}
	for _, module := range []string{"core_methods", "o2fence_methods"} {
		if pinned, err := s.pinned(module); err != nil || pinned {
			return fmt.Errorf("%s is pinned: %v, %w", module, pinned, err)
		}
	}
	return nil
}

func userSpaceLast(s *suite) error {
	if _, err := s.bridge("core-bound"); err != nil {
		return err
	}
	err := s.Join(ctx, cluster("c", steps("core-ok", "core-bound")...))
	if r, ok := errors.AsType[*kernel.Refusal](err); !ok || r.Text == "" {
		return fmt.Errorf("got %w", orNone(err))
	}
	return s.nothingJoined()
}

func joinedTwice(s *suite) error {
	c := cluster("c", steps("core-ok")...)
	if err := s.Join(ctx, c); err != nil {
		return err
	}
	if err := expect(s.Join(ctx, c), kernel.ErrExists); err != nil {
		return err
	}
	if err := s.Leave(ctx, "c"); err != nil {
		return err
	}
	if err := expect(s.Leave(ctx, "c"), kernel.ErrUnknownCluster); err != nil {
		return err
	}
	return s.nothingJoined()
}

func pins(s *suite) error {
	if err := s.Join(ctx, cluster("c", steps("core-ok", "watchdog")...)); err != nil {
		return err
	}
	for _, module := range []string{"core_methods", "o2fence_methods"} {
		if pinned, err := s.pinned(module); err != nil || !pinned {
			return fmt.Errorf("%s is not pinned, %w", module, err)
		}
	}
	if err := s.Leave(ctx, "c"); err != nil {
		return err
	}
	return s.nothingJoined()
}

func twoClusters(s *suite) error {
	if err := errors.Join(
		s.Join(ctx, cluster("c", steps("core-ok")...)),
		s.Join(ctx, cluster("d", steps("core-ok")...)),
		s.Fence(ctx, "d", 1, life, "only here"),
	); err != nil {
		return err
	}
	if r, err := s.await(uapi.EventNotice); err != nil || r.Cluster != "d" {
		return fmt.Errorf("fenced in %q: %w", r.Cluster, err)
	}
	if err := s.Leave(ctx, "c"); err != nil {
		return err
	}
	if pinned, err := s.pinned("core_methods"); err != nil || !pinned {
		return fmt.Errorf("the other cluster's pin is gone, %w", err)
	}
	if err := s.Leave(ctx, "d"); err != nil {
		return err
	}
	return s.nothingJoined()
}

func leaveWhileFencing(s *suite) error {
	if err := s.fence(steps("manual")...); err != nil {
		return err
	}
	if err := expect(s.Leave(ctx, "c"), kernel.ErrBusy); err != nil {
		return err
	}
	r, err := s.await(uapi.EventInitiated)
	if err != nil {
		return err
	}
	if err := s.Confirm(ctx, r, "tester: pulled the plug"); err != nil {
		return err
	}
	if _, err := s.await(uapi.EventNotice); err != nil {
		return err
	}
	return s.Leave(ctx, "c")
}
