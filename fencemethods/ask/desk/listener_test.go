// SPDX-License-Identifier: GPL-2.0-only

package desk

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ask/letter"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

const testKey = "0123456789abcdef0123456789abcdef"

// An asker speaks to a Listener by hand.
type asker struct {
	t    *testing.T
	l    *Listener
	d    *Desk
	conn *net.UDPConn
	seal *message.Seal
}

func newAsker(t *testing.T) *asker {
	t.Helper()
	d := New()
	l, err := NewListener(d, netip.MustParseAddrPort("127.0.0.1:0"), []fencemethods.Secret{fencemethods.Secret(testKey)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &asker{t: t, l: l, d: d, conn: conn, seal: message.NewSeal(fencemethods.Secret(testKey))}
}

// hello is the beginning of a question about web2.
func hello(id ID) message.Message {
	target := fencemethods.Target{Cluster: "web", Node: 2, Name: "web2"}
	m := message.Message{
		Kind: message.Hello, Op: message.Off, Node: message.TagOf(target), Sender: uint64(id),
		Requested: true, Number: 7, Attempt: 1, Left: 3600000, Client: message.Nonce{1, byte(id)},
	}
	q := letter.Question{Target: target, Asker: "web1", Reason: []byte("missed 5 heartbeats")}
	message.SetText(&m, q.Append(nil))
	return m
}

func (a *asker) send(m message.Message) {
	a.t.Helper()
	var p [message.Size]byte
	m.Encode(&p)
	a.seal.Close(&p)
	if _, err := a.conn.Write(p[:]); err != nil {
		a.t.Fatal(err)
	}
}

func (a *asker) receive() message.Message {
	a.t.Helper()
	var in [message.Size]byte
	_ = a.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := a.conn.Read(in[:]); err != nil {
		a.t.Fatal(err)
	}
	m, ok := message.Decode(in[:])
	if !ok {
		a.t.Fatalf("% x is no message", in)
	}
	return m
}

// order is the question itself, by a challenge of now.
func (a *asker) order(m message.Message) message.Message {
	a.t.Helper()
	a.send(m)
	c := a.receive()
	if c.Kind != message.Challenge {
		a.t.Fatalf("%+v, want a challenge", c)
	}
	m.Kind, m.Server, m.Clock = message.Order, c.Next, c.Clock
	return m
}

// wants sends a message and looks at the kind of the answer.
func (a *asker) wants(m message.Message, kind message.Kind) message.Message {
	a.t.Helper()
	a.send(m)
	got := a.receive()
	if got.Kind != kind {
		a.t.Errorf("answered %+v, want kind %d", got, kind)
	}
	return got
}

// silence makes sure that nothing was answered before this: a Check is answered last.
func (a *asker) silence() {
	a.t.Helper()
	m := hello(99)
	m.Op = message.Check
	a.wants(m, message.Challenge)
}

func TestAQuestionIsShownOnlyWithAChallengeOfNow(t *testing.T) {
	a := newAsker(t)
	order := a.order(hello(1))
	invented := order
	invented.Server[0]++
	a.wants(invented, message.Challenge)
	if all := a.d.Records(); len(all) != 0 {
		t.Errorf("shown: %+v", all)
	}
	a.wants(order, message.Working)
	if all := a.d.Records(); len(all) != 1 || all[0].State != Open {
		t.Errorf("not shown: %+v", all)
	}
	cancel := order
	cancel.Kind = message.Cancel
	a.send(cancel)
	for n := range ID(maxEnded) { // until it is forgotten
		later := a.order(hello(n + 2))
		a.wants(later, message.Working)
		later.Kind = message.Cancel
		a.send(later)
	}
	a.silence()
	a.l.mu.Lock()
	a.l.start = a.l.start.Add(-2 * freshFor) // which is how much later it is
	a.l.mu.Unlock()
	a.wants(order, message.Challenge)
	for _, r := range a.d.Records() {
		if r.State != Over {
			t.Errorf("an old question is shown: %+v", r)
		}
	}
}

func TestAQuestionIsEndedByWhoeverAskedItOnly(t *testing.T) {
	a := newAsker(t)
	order := a.order(hello(1))
	a.wants(order, message.Working)
	for _, change := range []func(*message.Message){
		func(m *message.Message) { m.Server[0]++ }, func(m *message.Message) { m.Client[0]++ },
		func(m *message.Message) { m.Op = message.Check },
	} {
		m := order
		m.Kind = message.Cancel
		change(&m)
		a.send(m)
	}
	a.silence()
	if all := a.d.Records(); len(all) != 1 || all[0].State != Open {
		t.Errorf("%+v", all)
	}
}

func TestWhatCannotBeReadIsRefused(t *testing.T) {
	for what, change := range map[string]func(*message.Message){
		"no letter":    func(m *message.Message) { message.SetText(m, "web2") },
		"another node": func(m *message.Message) { m.Node[0]++ },
		"on":           func(m *message.Message) { m.Op = message.On },
		"status":       func(m *message.Message) { m.Op = message.Status },
	} {
		a := newAsker(t)
		m := hello(1)
		change(&m)
		if got := a.wants(a.order(m), message.Done); got.Failure == 0 {
			t.Errorf("%s: answered %+v", what, got)
		}
		if all := a.d.Records(); len(all) != 0 {
			t.Errorf("%s: shown: %+v", what, all)
		}
	}
}

func TestAStrangerIsToldNothing(t *testing.T) {
	a := newAsker(t)
	a.seal = message.NewSeal(fencemethods.Secret("another key of more than 16 bytes"))
	for _, kind := range []message.Kind{message.Hello, message.Order} {
		m := hello(1)
		m.Kind = kind
		if got := a.wants(m, message.Unverified); got.Text() != "" || got.Next != (message.Nonce{}) {
			t.Errorf("told %+v", got)
		}
	}
	for _, p := range []string{"", "hello", fmt.Sprintf("%0408d", 0)} {
		_, _ = a.conn.Write([]byte(p))
	}
	m := hello(1)
	a.wants(m, message.Unverified) // and nothing before it
	if all := a.d.Records(); len(all) != 0 {
		t.Errorf("shown: %+v", all)
	}
}
