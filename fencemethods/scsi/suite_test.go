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
		Method:   m,
		Peer:     "a disk of the tests' own",
		Start:    s.start,
		Together: s.startCrowd,
		Crowd:    "registrations with one disk",
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

// start makes a disk from which node 1 is cut off when m is switched off.
func (s *shelf) start(t *testing.T, m *fencetest.Machine) fencetest.Peer {
	return s.startCrowd(t, []*fencetest.Machine{m})[0]
}

// startCrowd makes a disk from which each machine's node is cut off when it is switched off, and on which
// this one, 0, is registered.
func (s *shelf) startCrowd(t *testing.T, machines []*fencetest.Machine) (peers []fencetest.Peer) {
	s.mu.Lock()
	wwid := fmt.Sprintf("naa.%016x", len(s.hosts))
	l := newLUN(wwid)
	own := newHost(0, 2, l)
	s.hosts[wwid] = own
	s.mu.Unlock()
	register(t, own, wwid)
	owner := map[reserve.Key]*fencetest.Machine{}
	for _, m := range machines {
		h := newHost(m.Node(), 2, l)
		register(t, h, wwid)
		owner[reserve.KeyOf("c", m.Node())] = m
		peers = append(peers, fencetest.Peer{Params: map[string]string{"disks": wwid}, Running: h.writes})
	}
	// The machine is asked with every order and reading, for it may change in between.
	l.deaf = func(theirs reserve.Key) bool {
		_ = owner[theirs].SetOn(false)
		on, err := owner[theirs].On()
		return on || err != nil
	}
	l.broken = func() bool {
		broken := false
		l.keys = slices.DeleteFunc(l.keys, func(r registration) bool {
			m := owner[r.key]
			if m == nil {
				return false
			}
			on, err := m.On()
			broken = broken || err != nil
			return err == nil && !on
		})
		return broken
	}
	return peers
}

func register(t *testing.T, h *host, wwid string) {
	t.Helper()
	d, err := method(h.open).Open(fencemethods.Target{Cluster: "c", Node: h.number, Member: true, From: h.number}, map[string]string{"disks": wwid})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.On(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
}
