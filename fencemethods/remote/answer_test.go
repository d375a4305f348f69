// SPDX-License-Identifier: GPL-2.0-only

package remote

import (
	"net/netip"
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

// Whoever seals all of these has the key. What differs is what they are the answer to.
func TestAnAnswerIsToOneQuestion(t *testing.T) {
	c, err := New(Config{
		Peer: "relay", Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")},
		Key: fencemethods.Secret("0123456789abcdef0123456789abcdef"), Target: fencemethods.Target{Cluster: "web", Node: 1, Name: "web1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ours, other := message.Nonce{1}, message.Nonce{2}
	c.question = message.Message{Kind: message.Order, Op: message.Off, Node: c.tag, Client: ours, Server: ours}
	done := message.Message{Kind: message.Done, Op: message.Off, State: fencemethods.Off, Node: c.tag, Client: ours, Server: ours}
	for _, a := range []struct {
		what  string
		alter func(*message.Message)
		want  bool
	}{
		{"this very one", func(*message.Message) {}, true},
		{"another operation", func(m *message.Message) { m.Client = other }, false},
		{"an earlier order of this one", func(m *message.Message) { m.Server = other }, false},
		{"another node", func(m *message.Message) { m.Node[0]++ }, false},
		{"another order", func(m *message.Message) { m.Op = message.On }, false},
		{"a question", func(m *message.Message) { m.Kind = message.Order }, false},
		{"a challenge", func(m *message.Message) { m.Kind, m.Next = message.Challenge, other }, true},
		{"a challenge with nothing in it", func(m *message.Message) { m.Kind = message.Challenge }, false},
	} {
		m, p := done, [message.Size]byte{}
		a.alter(&m)
		m.Encode(&p)
		c.seal.Close(&p)
		if got := c.genuine(c.servers[0], p[:]); got != a.want {
			t.Errorf("%s: taken %v", a.what, got)
		}
	}
	c.question.Kind, c.question.Server = message.Hello, message.Nonce{}
	done.Server = message.Nonce{}
	var p [message.Size]byte
	done.Encode(&p)
	c.seal.Close(&p)
	if c.genuine(c.servers[0], p[:]) {
		t.Error("nothing was ordered, and it is done")
	}
}

// A server of another version may mean something else by it.
func TestASuccessWithoutTheStateThatWasOrderedIsNone(t *testing.T) {
	c, err := New(Config{
		Peer: "relay", Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}, Key: fencemethods.Secret("0123456789abcdef"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := c.servers[0]
	for op, right := range map[message.Op]fencemethods.State{message.Off: fencemethods.Off, message.On: fencemethods.On} {
		for _, state := range []fencemethods.State{fencemethods.Unknown, fencemethods.Off, fencemethods.On} {
			s.begin()
			c.answer = message.Message{Kind: message.Done, Op: op, State: state}
			if got := c.done(s); got != (state == right) || got == (s.failed != nil) {
				t.Errorf("%v, and the state is %v: done %v, %v", op, state, got, s.failed)
			}
		}
	}
}
