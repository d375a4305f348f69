// SPDX-License-Identifier: GPL-2.0-only

package dispatch

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods"
)

const (
	cluster = "web"
	params  = "addr=192.0.2.1\n"
	timeout = 20 * time.Second
)

// order is what the kernel sends, through the real decoder.
func order(t *testing.T, cmd uapi.Cmd, node uint32, request uint64, params string) *asked {
	t.Helper()
	ae := netlink.NewAttributeEncoder()
	ae.String(uint16(uapi.AttrCluster), cluster)
	ae.Uint32(uint16(uapi.AttrNode), node)
	ae.Uint64(uint16(uapi.AttrIncarnation), 0xabc)
	ae.Uint64(uint16(uapi.AttrRequest), request)
	ae.Uint32(uint16(uapi.AttrAttempt), 1)
	ae.String(uint16(uapi.AttrMethod), "stub")
	ae.String(uint16(uapi.AttrReason), "missed 5 heartbeats")
	at := make([]byte, 8*(uapi.EventSilent+1))
	binary.NativeEndian.PutUint64(at[8*uapi.EventSilent:], uint64(3*time.Second))
	ae.Bytes(uint16(uapi.AttrAt), at)
	ae.Uint32(uint16(uapi.AttrTimeoutMS), uint32(timeout.Milliseconds()))
	ae.String(uint16(uapi.AttrParams), params)
	attrs, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var a asked
	if a.cmd, err = a.in.Decode(append([]byte{byte(cmd), uapi.GenlVersion, 0, 0}, attrs...)); err != nil {
		t.Fatal(err)
	}
	return &a
}

type asked struct {
	cmd uapi.Cmd
	in  kernel.Initiate
	err error
}

// A fakeKernel asks, and takes answers, or does not.
type fakeKernel struct {
	asked   chan *asked // closed: the socket is closed
	answers chan kernel.Answer
	taken   func() error // whether an answer can be given; nil: it can
}

func newFakeKernel() *fakeKernel {
	return &fakeKernel{asked: make(chan *asked), answers: make(chan kernel.Answer, uapi.NodesMax)}
}

func (k *fakeKernel) Receive(in *kernel.Initiate) (uapi.Cmd, error) {
	a, ok := <-k.asked
	if !ok {
		return 0, os.ErrClosed
	}
	*in = a.in
	return a.cmd, a.err
}

func (k *fakeKernel) Fenced(a *kernel.Answer) error {
	k.answers <- *a
	if k.taken != nil {
		return k.taken()
	}
	return nil
}

// A stub is a device. Its power is what was last commanded with success.
type stub struct {
	off func(context.Context) error // nil: it goes off

	mu    sync.Mutex
	state fencemethods.State
	ons   int
}

func (s *stub) Off(ctx context.Context) error {
	if s.off != nil {
		if err := s.off(ctx); err != nil {
			return err
		}
	}
	s.set(fencemethods.Off)
	return nil
}

func (s *stub) On(ctx context.Context) error {
	s.set(fencemethods.On)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ons++
	return ctx.Err()
}

func (s *stub) set(state fencemethods.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

func (s *stub) Status(ctx context.Context) (fencemethods.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, ctx.Err()
}

func (*stub) Check(context.Context) error { return nil }
func (*stub) Close() error                { return nil }

// hang is a device that does not answer.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func node(number uint32, device fencemethods.Device) Node {
	return Node{
		Cluster: cluster, Number: number,
		Jobs: []Job{{Method: "stub", Params: []byte(params), Device: device}},
	}
}

// A fixture is a Dispatcher that serves a fake kernel, in a bubble of package synctest.
type fixture struct {
	t *testing.T
	*fakeKernel
	*Dispatcher

	mu      sync.Mutex
	log     strings.Builder
	settled bool
	idle    int
	served  chan error
	closed  bool
	begun   atomic.Int32
}

// serve starts one, which ends with the test.
func serve(t *testing.T, nodes []Node) *fixture {
	f := newFixture(t, nodes)
	f.start()
	return f
}

func newFixture(t *testing.T, nodes []Node) *fixture {
	f := &fixture{t: t, fakeKernel: newFakeKernel(), settled: true, served: make(chan error, 1)}
	f.Dispatcher = New(f.fakeKernel, nodes, Options{Settled: f.isSettled, Idle: f.countIdle, Log: f.print, Begin: f.begin})
	return f
}

func (f *fixture) start() {
	go func() { f.served <- f.Serve() }()
	f.t.Cleanup(f.close)
}

// close closes the socket, unless the test has done so.
func (f *fixture) close() {
	if f.closed {
		return
	}
	f.closed = true
	close(f.asked)
	if err := <-f.served; err != os.ErrClosed {
		f.t.Errorf("Serve: %v", err)
	}
}

func (f *fixture) isSettled(_ context.Context, name string, _ uint32) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != cluster {
		f.t.Errorf("is cluster %q settled?", name)
	}
	return f.settled, nil
}

func (f *fixture) begin() { f.begun.Add(1) }

func (f *fixture) countIdle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle++
}

func (f *fixture) print(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(&f.log, format+"\n", args...)
}

func (f *fixture) logged() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

func (f *fixture) initiate(node uint32, request uint64) {
	f.t.Helper()
	f.asked <- order(f.t, uapi.CmdInitiate, node, request, params)
}

func (f *fixture) cancel(node uint32, request uint64) {
	f.t.Helper()
	f.asked <- order(f.t, uapi.CmdCancel, node, request, params)
}

// rest lets so much time pass that the house is kept.
func (f *fixture) rest() {
	time.Sleep(quiet)
	synctest.Wait()
}

// nothing fails the test when there is an answer once all is quiet.
func (f *fixture) nothing() {
	f.t.Helper()
	synctest.Wait()
	select {
	case a := <-f.answers:
		f.t.Errorf("answered: %+v", a)
	default:
	}
}
