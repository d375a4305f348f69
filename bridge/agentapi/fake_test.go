// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods"
)

const clusterConf = `cluster:
	node_count = 3
	heartbeat_mode = local
	name = web

node:
	ip_port = 7777
	ip_address = 192.0.2.10
	number = 0
	name = web0
	cluster = web

node:
	ip_port = 7777
	ip_address = 192.0.2.11
	number = 1
	name = web1
	cluster = web

node:
	ip_port = 7777
	ip_address = 192.0.2.12
	number = 2
	name = web2
	cluster = web
`

const fenceConf = `cluster:
	name = web

fence:
	node = web1
	then = on
	method = switch

fence:
	node = web2
	then = off
	method = switch
`

// A fakeKernel keeps requests as kmod/request.c does: numbers that grow, one request at a time for
// each node, a history, and events that may be lost.
type fakeKernel struct {
	mu       sync.Mutex
	last     map[uint32]*kernel.Request
	history  []kernel.Request
	lastID   uint64
	deaf     bool // its events are lost
	events   chan kernel.Event
	region   kernel.Region
	methods  []kernel.Method
	started  func(k *fakeKernel, node uint32) // what happens then
	refusals []error                          // of the next calls of Fence
}

const thisNode = 0

func newFakeKernel() *fakeKernel {
	return &fakeKernel{
		last: map[uint32]*kernel.Request{}, events: make(chan kernel.Event, 100),
		methods: []kernel.Method{{Name: "switch", Module: uapi.GenlName, PortID: 7}, {Name: "watchdog", Module: "o2fence_methods"}},
		started: func(k *fakeKernel, node uint32) { k.end(node, uapi.EventFenced, uapi.EventNotice) },
		region:  kernel.Region{Cluster: "web"},
	}
}

func (k *fakeKernel) Nodes(context.Context) ([]kernel.Node, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []kernel.Node
	for n := range uint32(3) {
		if n == thisNode {
			continue
		}
		node := kernel.Node{Cluster: "web", Number: n}
		if r := k.last[n]; r != nil {
			copied := snapshot(*r)
			node.Last = &copied
		}
		all = append(all, node)
	}
	return all, nil
}

func (k *fakeKernel) Methods(context.Context) ([]kernel.Method, error) { return k.methods, nil }

func (k *fakeKernel) Regions(context.Context) ([]kernel.Region, error) {
	return []kernel.Region{k.region}, nil
}

func (k *fakeKernel) Requests(context.Context) ([]kernel.Request, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.history), nil
}

func (k *fakeKernel) Fence(_ context.Context, _ string, node uint32, life kernel.Incarnation, reason string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.refusals) > 0 {
		err := k.refusals[0]
		k.refusals = k.refusals[1:]
		return err
	}
	if node == thisNode {
		return &kernel.Refusal{Command: uapi.CmdFence, Errno: syscall.ENOENT, Blamed: uapi.AttrNode}
	}
	if r := k.last[node]; r != nil && !slices.ContainsFunc(k.history, func(h kernel.Request) bool { return h.ID == r.ID }) {
		return &kernel.Refusal{Command: uapi.CmdFence, Errno: syscall.EALREADY}
	}
	k.begin(node, life, reason)
	if k.started != nil {
		go k.started(k, node)
	}
	return nil
}

func (k *fakeKernel) Close() error { return nil }

// begin makes a request; the caller holds mu.
func (k *fakeKernel) begin(node uint32, life kernel.Incarnation, reason string) {
	k.lastID++
	k.last[node] = &kernel.Request{
		Cluster: "web", Node: node, ID: k.lastID, Incarnation: life, Reason: reason, Method: "switch",
		At: map[uapi.Event]time.Time{},
	}
	k.tell(node, uapi.EventStarted)
}

// other begins a request that somebody else has made, up to a step of it.
func (k *fakeKernel) other(node uint32, steps ...uapi.Event) {
	k.mu.Lock()
	k.begin(node, 0xabc, "silent")
	k.mu.Unlock()
	k.end(node, steps...)
}

// end takes a request through the steps that follow.
func (k *fakeKernel) end(node uint32, steps ...uapi.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, step := range steps {
		k.tell(node, step)
		if ended(*k.last[node]) {
			k.history = append([]kernel.Request{snapshot(*k.last[node])}, k.history...)
		}
	}
}

func (k *fakeKernel) tell(node uint32, step uapi.Event) {
	r := k.last[node]
	r.State = step
	r.At[step] = time.Now()
	if step == uapi.EventAttemptFailed {
		r.Errno, r.Errmsg = syscall.EHOSTUNREACH, "no answer"
	}
	if !k.deaf {
		k.events <- kernel.Event{Event: step, Request: snapshot(*r)}
	}
}

func snapshot(r kernel.Request) kernel.Request {
	r.At = maps.Clone(r.At)
	return r
}

// A stream is a Listener of a fakeKernel.
type stream struct{ k *fakeKernel }

func (s stream) Events(ctx context.Context) iter.Seq2[kernel.Event, error] {
	return func(yield func(kernel.Event, error) bool) {
		for {
			select {
			case <-ctx.Done():
				yield(kernel.Event{}, ctx.Err())
				return
			case e := <-s.k.events:
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

func (stream) Close() error { return nil }

// A power switch of one node.
type powerSwitch struct {
	state fencemethods.State
	err   error // of everything
}

func (d *powerSwitch) Off(context.Context) error { panic("the agent fences by itself") }

func (d *powerSwitch) On(context.Context) error {
	if d.err == nil {
		d.state = fencemethods.On
	}
	return d.err
}

func (d *powerSwitch) Status(context.Context) (fencemethods.State, error) { return d.state, d.err }
func (d *powerSwitch) Check(context.Context) error                        { return d.err }
func (d *powerSwitch) Close() error                                       { return nil }

// A call is the agent's surroundings for a test.
type call struct {
	kernel *fakeKernel
	device *powerSwitch
	env    map[string]string
	out    bytes.Buffer
	errs   bytes.Buffer
}

func newCall() *call {
	return &call{kernel: newFakeKernel(), device: &powerSwitch{state: fencemethods.On}}
}

// agent is a call with these arguments, or, where there are none, this standard input.
func (c *call) agent(stdin string, args ...string) *Agent {
	return &Agent{
		Args: args, Stdin: strings.NewReader(stdin), Stdout: &c.out, Stderr: &c.errs,
		Getenv: func(name string) string { return c.env[name] },
		Load: func(string, string) (*config.Config, error) {
			return config.Parse(config.File{Text: clusterConf}, config.File{Text: fenceConf}, config.Schema{"switch": {}})
		},
		Dial:   func() (Kernel, error) { return c.kernel, nil },
		Listen: func() (Events, error) { return stream{c.kernel}, nil },
		Open: func(*config.Cluster, config.Node, config.Step) (fencemethods.Device, error) {
			return c.device, nil
		},
		IsKernel: func(method string) bool { return method == config.Watchdog },
	}
}

// run is a call by standard input.
func (c *call) run(t *testing.T, stdin string) int {
	t.Helper()
	c.out.Reset()
	c.errs.Reset()
	return c.agent(stdin).Run(t.Context())
}

func (c *call) want(t *testing.T, stdin string, code int, texts ...string) {
	t.Helper()
	got := c.run(t, stdin)
	text := c.out.String() + c.errs.String()
	if got != code {
		t.Errorf("%q: exit code %d, want %d\n%s", stdin, got, code, text)
	}
	for _, want := range texts {
		if !strings.Contains(text, want) {
			t.Errorf("%q: said %q, want %q", stdin, text, want)
		}
	}
}

var errSilent = errors.New("no answer")
