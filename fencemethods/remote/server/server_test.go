// SPDX-License-Identifier: GPL-2.0-only

package server

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

const (
	testKey  = "0123456789abcdef0123456789abcdef"
	patience = 20 * time.Second
)

var target = fencemethods.Target{Cluster: "web", Node: 1, Name: "web1"}

// calls is a Handler that tells of each order and, unless it is to obey, waits until it is given up.
type calls struct {
	began, ended chan message.Op
	obey         bool
}

func newCalls() *calls {
	return &calls{began: make(chan message.Op, 9), ended: make(chan message.Op, 9)}
}

func (c *calls) Order(ctx context.Context, o Order) (Result, error) {
	c.began <- o.Op
	if !c.obey {
		<-ctx.Done()
	}
	c.ended <- o.Op
	return Result{State: fencemethods.Off}, ctx.Err()
}

// A bench is a server with a client's socket, whose datagrams the test makes by itself.
type bench struct {
	*testing.T
	*Server
	conn *net.UDPConn
	seal *message.Seal
	in   [message.Size]byte
}

func newBench(t *testing.T, h Handler) *bench {
	t.Helper()
	nodes := []Node{{Target: target, Handler: h, Keys: []fencemethods.Secret{fencemethods.Secret(testKey)}}}
	s, err := New(netip.MustParseAddrPort("127.0.0.1:0"), nodes, Options{Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		conn.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &bench{t, s, conn, message.NewSeal(fencemethods.Secret(testKey)), [message.Size]byte{}}
}

// say sends m, sealed, and returns the next answer.
func (b *bench) say(m message.Message) message.Message {
	b.Helper()
	var out [message.Size]byte
	m.Encode(&out)
	b.seal.Close(&out)
	if _, err := b.conn.Write(out[:]); err != nil {
		b.Fatal(err)
	}
	return b.hear()
}

func (b *bench) hear() message.Message {
	b.Helper()
	if err := b.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		b.Fatal(err)
	}
	if _, err := b.conn.Read(b.in[:]); err != nil {
		b.Fatal(err)
	}
	m, ok := message.Decode(b.in[:])
	if !ok || !b.seal.Genuine(b.in[:]) {
		b.Fatalf("%x is not genuine", b.in)
	}
	return m
}

func (b *bench) hello(client byte) message.Message {
	return message.Message{
		Kind: message.Hello, Op: message.Off, Node: message.TagOf(target), Client: message.Nonce{client}, Sender: uint64(client),
	}
}

// order makes an order of a hello, by the challenge that it got.
func order(m, challenge message.Message, left time.Duration) message.Message {
	m.Kind, m.Server, m.Clock = message.Order, challenge.Next, challenge.Clock
	m.Left = uint32(left.Milliseconds())
	return m
}

func (b *bench) age(by time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.start = b.start.Add(-by)
}

// What was held up on its way is not carried out when it comes at last, by somebody's design or not.
func TestAnOrderThatWasLongOnItsWayIsChallengedAnew(t *testing.T) {
	h := newCalls()
	h.obey = true
	b := newBench(t, h)
	hello := b.hello(1)
	late := order(hello, b.say(hello), time.Minute)
	b.age(freshFor + time.Second)
	again := b.say(late)
	if again.Kind != message.Challenge || len(h.began) != 0 {
		t.Fatalf("answered %+v", again)
	}
	if m := b.say(order(hello, again, time.Minute)); m.Kind != message.Working && m.Kind != message.Done {
		t.Errorf("answered %+v", m)
	}
	if op := <-h.began; op != message.Off {
		t.Errorf("began %v", op)
	}
}

func TestAClockOfTheFutureIsRefused(t *testing.T) {
	h := newCalls()
	b := newBench(t, h)
	hello := b.hello(1)
	m := order(hello, b.say(hello), time.Minute)
	m.Clock += 1 << 40
	if m := b.say(m); m.Kind != message.Challenge || len(h.began) != 0 {
		t.Errorf("answered %+v", m)
	}
}

// Time counts from the challenge on: whoever holds an order up for a while does not prolong it.
func TestTheTimeLeftCountsFromTheChallenge(t *testing.T) {
	h := newCalls()
	b := newBench(t, h)
	hello := b.hello(1)
	m := order(hello, b.say(hello), 2*time.Second)
	b.age(2 * time.Second)
	if m := b.say(m); m.Kind != message.Working {
		t.Fatalf("answered %+v", m)
	}
	<-h.ended // at once
	if m := b.hear(); m.Kind != message.Done || m.Failure.Kind() != fencemethods.ErrTimeout {
		t.Errorf("answered %+v", m)
	}
}

func TestAnOrderThatNobodyAsksAboutIsGivenUp(t *testing.T) {
	h := newCalls()
	b := newBench(t, h)
	hello := b.hello(1)
	m := order(hello, b.say(hello), time.Hour)
	b.say(m)
	<-h.began
	b.places[0].expire(time.Now().Add(lease - time.Second))
	if m := b.say(m); m.Kind != message.Working {
		t.Fatalf("given up too early: %+v", m)
	}
	b.places[0].expire(time.Now().Add(lease + time.Second))
	<-h.ended
	if m := b.say(m); m.Kind != message.Challenge {
		t.Errorf("answered %+v, for nobody knows whether it is wanted", m)
	}
}

func TestIdleIsCalledWhenTheLastOrderHasEnded(t *testing.T) {
	h := newCalls()
	b := newBench(t, h)
	idle := make(chan bool, 9)
	b.options.Idle = func() { idle <- true }
	for client := range byte(3) { // superseded, given up and carried out
		hello := b.hello(client)
		hello.Sender = 1
		b.say(order(hello, b.say(hello), time.Hour))
		<-h.began
	}
	if len(idle) != 0 {
		t.Error("idle while an order was carried out")
	}
	b.places[0].expire(time.Now().Add(time.Hour))
	<-idle
	if got := b.active.Load(); got != 0 {
		t.Errorf("%d are active", got)
	}
}

func TestWhatTheKernelMayHoldIsWithinTheBudget(t *testing.T) {
	total := 0
	err := newBench(t, newCalls()).raw.Control(func(fd uintptr) {
		for _, option := range []int{syscall.SO_RCVBUF, syscall.SO_SNDBUF} {
			n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, option)
			if err != nil {
				t.Error(err)
			}
			total += n
		}
	})
	if err != nil || total == 0 || total > KernelKiB<<10 {
		t.Errorf("%d bytes may wait in the socket, KernelKiB allows %d KiB: %v", total, KernelKiB, err)
	}
}

// FuzzHeard looks for a datagram that has an order carried out without the key.
func FuzzHeard(f *testing.F) {
	h := newCalls()
	nodes := []Node{{Target: target, Handler: h, Keys: []fencemethods.Secret{fencemethods.Secret(testKey)}}}
	s, err := New(netip.MustParseAddrPort("127.0.0.1:0"), nodes, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	wrong := message.NewSeal(fencemethods.Secret(testKey + "x"))
	for _, kind := range []message.Kind{message.Hello, message.Order, message.Cancel} {
		m := message.Message{Kind: kind, Op: message.Off, Node: message.TagOf(target), Server: s.places[0].next, Left: 1000}
		var p [message.Size]byte
		m.Encode(&p)
		wrong.Close(&p)
		f.Add(p[:])
	}
	from := netip.MustParseAddrPort("127.0.0.1:9")
	f.Fuzz(func(t *testing.T, p []byte) {
		before := s.places[0].next
		s.heard(p, from)
		if s.places[0].stage != none || s.places[0].next != before {
			t.Errorf("%x: taken without the key", p)
		}
	})
}
