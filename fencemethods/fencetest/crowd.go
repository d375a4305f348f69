// SPDX-License-Identifier: GPL-2.0-only

package fencetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/o2fence/o2fence/bridge/dispatch"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods"
)

const (
	hundred    = 100
	bystanders = 3 // nodes beside them that nobody fences: the first, one in the middle, and the last

	// step is what lies between the moments at which two machines go off. One after the other they would
	// need longer than crowdTime.
	step      = 10 * time.Millisecond
	crowdTime = 40 * time.Second // that the kernel gives each
	slowest   = 2                // times as long for both

	// slowCrowdTime is for programs, which take seconds of a processor's time, and share those that there are.
	slowCrowdTime = 10 * time.Minute
)

// crowd makes the machines of the case, and their peers.
func (x *trial) crowd() []*trial {
	var machines []*Machine
	for len(machines) < x.harness.many()+bystanders {
		machines = append(machines, newMachine(uint8(len(machines)+1)))
	}
	var peers []Peer
	if x.harness.Together != nil {
		peers = x.harness.Together(x.T, machines)
	} else {
		for _, m := range machines {
			peers = append(peers, x.harness.Start(x.T, m))
		}
	}
	var all []*trial
	for i, m := range machines {
		each := &trial{T: x.T, harness: x.harness, machine: m, peer: peers[i]}
		each.peer.Params = maps.Clone(each.peer.Params)
		delete(each.peer.Params, "retry_ms") // which is for the wires of other cases
		each.device = each.open(nil)
		all = append(all, each)
	}
	return all
}

func isBystander(i, all int) bool { return i == 0 || i == all/2 || i == all-1 }

// A hundred nodes are lost at once, as with a switch or a room. The kernel gives all orders, and the
// bridge's own dispatcher has them carried out. No fence begins before all have been taken, each machine
// goes off at a moment of its own, so that who reads another's state is found out, and some machines are
// not fenced at all: nobody may touch them.
func aHundredNodesAtOnce(x *trial) {
	for slower := 1; ; slower *= 2 {
		all := x.crowd()
		k := newCrowdKernel(x, all, slower)
		began := time.Now()
		machine := besideTimer(k.fence)
		x.Logf("%d nodes in %v", k.ordered, time.Since(began).Round(time.Millisecond))
		k.mustNotLie(all)
		// Where the machine that has all these servers is late itself, all is done once more, and slower.
		if len(k.failures) == 0 || x.Failed() || machine <= k.time/20 || slower == slowest {
			for _, node := range slices.Sorted(maps.Keys(k.failures)) {
				x.Error(k.failures[node])
			}
			return
		}
		x.Logf("%v were not enough for %d nodes, for the machine was late by up to %v", k.time, len(k.failures), machine)
	}
}

// mustNotLie looks at what must be true however little time there was.
func (k *crowdKernel) mustNotLie(all []*trial) {
	for i, x := range all {
		node := uint32(x.machine.Node())
		switch {
		case k.lies[node]:
			x.Attr("lie", "yes")
			x.Errorf("FALSE SUCCESS: node %d was on", node)
		case !isBystander(i, len(all)):
		case !x.isOn() || x.machine.record().commands != 0:
			x.Errorf("node %d was switched off, which nobody had ordered", node)
		default:
			x.mustNotBeOff()
		}
	}
}

// mustNotBeOff looks at what the device of a node that is on reads beside all those that are off.
func (x *trial) mustNotBeOff() {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), x.patience())
	defer cancel()
	if state, err := x.device.Status(ctx); state == fencemethods.Off {
		x.Attr("lie", "yes")
		x.Errorf("FALSE SUCCESS: node %d is on, and its Status = %v, %v", x.machine.Node(), state, err)
	}
}

// isOn asks the machine itself, whoever that is.
func (x *trial) isOn() bool {
	if x.peer.Running != nil {
		return x.peer.Running()
	}
	return x.machine.record().on
}

// A crowdKernel gives the orders, and hears how each has ended.
type crowdKernel struct {
	x       *trial
	all     map[uint32]*trial
	nodes   []dispatch.Node
	orders  chan kernel.Initiate
	ordered int
	time    time.Duration  // that each is given
	began   sync.WaitGroup // the fences that are ordered
	ended   sync.WaitGroup

	mu       sync.Mutex
	given    map[uint32]time.Time
	failures map[uint32]string // by node
	lies     map[uint32]bool
}

// A starter holds a fence back until all have begun.
type starter struct {
	fencemethods.Device
	began *sync.WaitGroup
}

func (s starter) Off(ctx context.Context) error {
	s.began.Done()
	s.began.Wait()
	return s.Device.Off(ctx)
}

func newCrowdKernel(x *trial, all []*trial, slower int) *crowdKernel {
	k := &crowdKernel{
		x: x, time: x.crowdTime() * time.Duration(slower), all: map[uint32]*trial{}, orders: make(chan kernel.Initiate),
		given: map[uint32]time.Time{}, failures: map[uint32]string{}, lies: map[uint32]bool{},
	}
	for i, each := range all {
		node := uint32(each.machine.Node())
		k.all[node] = each
		k.nodes = append(k.nodes, dispatch.Node{Cluster: cluster, Number: node, Jobs: []dispatch.Job{{
			Method: x.harness.Method.Name, Params: crowdParams(node), Device: starter{each.device, &k.began},
		}}})
		if !isBystander(i, len(all)) {
			k.ordered++
			each.machine.behave(Manners{Slow: time.Duration(i*37%hundred*slower) * step}) // neighbours are far apart
		}
	}
	k.began.Add(k.ordered)
	k.ended.Add(k.ordered)
	return k
}

func crowdParams(node uint32) []byte { return fmt.Appendf(nil, "node=%d\n", node) }

// fence has all nodes fenced but for the bystanders, and returns when all is answered.
func (k *crowdKernel) fence() {
	d := dispatch.New(k, k.nodes, dispatch.Options{
		Settled: func(context.Context, string, uint32) (bool, error) { return true, nil },
		Idle:    func() {}, Log: k.x.Errorf, Begin: func() {},
	})
	served := make(chan error, 1)
	go func() { served <- d.Serve() }()
	for i, n := range k.nodes {
		if !isBystander(i, len(k.nodes)) {
			k.order(n.Number)
		}
	}
	k.ended.Wait()
	close(k.orders)
	if err := <-served; !errors.Is(err, os.ErrClosed) {
		k.x.Error(err)
	}
}

// order is an INITIATE as the kernel sends it.
func (k *crowdKernel) order(node uint32) {
	ae := netlink.NewAttributeEncoder()
	ae.String(uint16(uapi.AttrCluster), cluster)
	ae.Uint32(uint16(uapi.AttrNode), node)
	ae.Uint64(uint16(uapi.AttrIncarnation), 0xabc)
	ae.Uint64(uint16(uapi.AttrRequest), uint64(node))
	ae.Uint32(uint16(uapi.AttrAttempt), 1)
	ae.String(uint16(uapi.AttrMethod), k.x.harness.Method.Name)
	ae.String(uint16(uapi.AttrReason), "missed 5 heartbeats")
	ae.Uint32(uint16(uapi.AttrTimeoutMS), uint32(k.time.Milliseconds()))
	ae.String(uint16(uapi.AttrParams), string(crowdParams(node)))
	attrs, err := ae.Encode()
	if err != nil {
		k.x.Fatal(err)
	}
	var in kernel.Initiate
	if _, err := in.Decode(append([]byte{byte(uapi.CmdInitiate), uapi.GenlVersion, 0, 0}, attrs...)); err != nil {
		k.x.Fatal(err)
	}
	k.mu.Lock()
	k.given[node] = time.Now()
	k.mu.Unlock()
	k.orders <- in
}

// Receive is dispatch.Kernel's.
func (k *crowdKernel) Receive(in *kernel.Initiate) (uapi.Cmd, error) {
	order, ok := <-k.orders
	if !ok {
		return 0, os.ErrClosed
	}
	*in = order
	return uapi.CmdInitiate, nil
}

// Fenced is dispatch.Kernel's. It looks at the node that is said to be off at once.
func (k *crowdKernel) Fenced(a *kernel.Answer) error {
	defer k.ended.Done()
	on := k.all[a.Node].isOn()
	k.mu.Lock()
	defer k.mu.Unlock()
	switch took := time.Since(k.given[a.Node]); {
	case a.Errno != 0:
		k.failures[a.Node] = a.Errmsg
	case on:
		k.lies[a.Node] = true
	case took > k.time:
		k.failures[a.Node] = fmt.Sprintf("node %d was fenced after %v, when the kernel had gone on", a.Node, took)
	}
	return nil
}

func (x *trial) crowdTime() time.Duration {
	switch {
	case x.harness.hurry > 0:
		return x.harness.hurry
	case x.harness.Slow:
		return slowCrowdTime
	}
	return crowdTime
}

// many is how many nodes are fenced at once.
func (h Harness) many() int {
	if h.Many == 0 {
		return hundred
	}
	return h.Many
}

// noteCrowd says in the table what the hundred are.
func (h Harness) noteCrowd(t *testing.T) {
	t.Helper()
	switch {
	case h.many() >= hundred:
		t.Attr("note", "a hundred "+h.Crowd)
	case h.Fewer == "":
		t.Errorf("%d are not a hundred, and nothing says why", h.Many)
	default:
		t.Attr("note", fmt.Sprintf("%d %s, not a hundred: %s", h.Many, h.Crowd, h.Fewer))
	}
}
