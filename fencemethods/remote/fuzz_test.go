// SPDX-License-Identifier: GPL-2.0-only

package remote

import (
	"net/netip"
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

// FuzzGenuine looks for a datagram that a client believes without the key.
func FuzzGenuine(f *testing.F) {
	c, err := New(Config{Key: fencemethods.Secret("0123456789abcdef"), Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	c.question = message.Message{Kind: message.Order, Op: message.Off, Node: c.tag, Client: message.Nonce{1}, Server: message.Nonce{2}}
	wrong := message.NewSeal(fencemethods.Secret("0123456789abcdef" + "x"))
	for _, kind := range []message.Kind{message.Challenge, message.Working, message.Busy, message.Done, message.Unverified} {
		m := c.question
		m.Kind, m.State, m.Next = kind, fencemethods.Off, message.Nonce{3}
		var p [message.Size]byte
		m.Encode(&p)
		wrong.Close(&p)
		f.Add(p[:])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		s := c.servers[0]
		s.begin()
		if c.genuine(s, p) || s.heard || s.failed != nil {
			t.Errorf("%x: believed without the key", p)
		}
	})
}
