// SPDX-License-Identifier: GPL-2.0-only

package scsi

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// TestOffIsProven is the suite: the device is a disk, and the node's registration its power. The bus
// is no wire of the suite's kind; its faults have tests of their own.
func TestOffIsProven(t *testing.T) {
	s := &shelf{hosts: map[string]*host{}}
	m := method(s.open)
	open := m.New
	m.New = func(t fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
		t.Member = true // node 0
		return open(t, v)
	}
	fencetest.Run(t, fencetest.Harness{
		Method: m,
		Peer:   "a disk of the tests' own",
		Start:  s.start,
		Many:   20,
		Skip: map[string]string{
			"off and on again": "only the node itself can register again: TestAFencedNodeWritesNoMore",
		},
	})
}

// A shelf has the disks of all cases, by their names.
type shelf struct {
	mu    sync.Mutex
	hosts map[string]*host
}

func (s *shelf) open(wwid string) ([]bus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hosts[wwid].open(wwid)
}

// start makes a disk from which node 1 is cut off when m is switched off, and on which this one, 0, is
// registered.
func (s *shelf) start(t *testing.T, m *fencetest.Machine) fencetest.Peer {
	s.mu.Lock()
	wwid := fmt.Sprintf("naa.%016x", len(s.hosts))
	l := newLUN(wwid)
	a, b := newHost(0, 2, l), newHost(1, 2, l)
	s.hosts[wwid] = a
	s.mu.Unlock()
	for _, h := range []*host{a, b} {
		d, err := method(h.open).Open(fencemethods.Target{Cluster: "c", Node: h.number, Member: true, From: h.number}, map[string]string{"disks": wwid})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.On(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	// The machine is asked with every order and reading, for it may change in between.
	l.deaf = func() bool {
		_ = m.SetOn(false)
		on, err := m.On()
		return on || err != nil
	}
	l.broken = func() bool {
		on, err := m.On()
		if err == nil && !on {
			gone := reserve.KeyOf("c", 1)
			l.keys = slices.DeleteFunc(l.keys, func(r registration) bool { return r.key == gone })
		}
		return err != nil
	}
	return fencetest.Peer{Params: map[string]string{"disks": wwid}}
}
