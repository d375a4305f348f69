// SPDX-License-Identifier: GPL-2.0-only

package remote_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/remote"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
	"github.com/o2fence/o2fence/test/bmc/wire"
)

const (
	testKey  = "0123456789abcdef0123456789abcdef"
	otherKey = "fedcba9876543210fedcba9876543210"
	patience = 20 * time.Second // for what has to succeed: only a hang takes that long
	short    = 2 * time.Second  // for what has to fail, which takes all of it
)

func node(number uint8) fencemethods.Target {
	return fencemethods.Target{Cluster: "web", Node: number, Name: "web" + string('0'+rune(number))}
}

func key(s string) fencemethods.Secret { return fencemethods.Secret(s) }

// A hand carries orders out as its test says, and counts them.
type hand struct {
	order func(context.Context, server.Order) (server.Result, error) // nil: success

	mu    sync.Mutex
	calls int
}

func (h *hand) Order(ctx context.Context, o server.Order) (server.Result, error) {
	h.mu.Lock()
	h.calls++
	h.mu.Unlock()
	if h.order != nil {
		return h.order(ctx, o)
	}
	return done(o), nil
}

func (h *hand) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls
}

// done is the result that an order asks for.
func done(o server.Order) server.Result {
	if o.Op == message.On {
		return server.Result{State: fencemethods.On}
	}
	return server.Result{State: fencemethods.Off}
}

// hang ends when it is told to.
func hang(ctx context.Context, _ server.Order) (server.Result, error) {
	<-ctx.Done()
	return server.Result{}, ctx.Err()
}

// serve starts a server for web1 at addr.
func serve(t testing.TB, addr string, nodes ...server.Node) *server.Server {
	t.Helper()
	s, err := server.New(netip.MustParseAddrPort(addr), nodes, server.Options{Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func web1(h server.Handler) server.Node {
	return server.Node{Target: node(1), Handler: h, Keys: []fencemethods.Secret{key(testKey)}}
}

func dial(t testing.TB, c remote.Config) *remote.Client {
	t.Helper()
	if c.Key == nil {
		c.Key = key(testKey)
	}
	if c.Target.Name == "" {
		c.Target = node(1)
	}
	c.Peer = "relay"
	d, err := remote.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func dialTo(t testing.TB, addrs ...netip.AddrPort) *remote.Client {
	return dial(t, remote.Config{Servers: addrs})
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// wired is a server for web1 behind a wire that can fail.
func wired(t *testing.T, h server.Handler) (*wire.Wire, *server.Server) {
	t.Helper()
	s := serve(t, "127.0.0.1:0", web1(h))
	w, err := wire.New(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w, s
}

func wantError(t *testing.T, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("%v: want %v and %q", err, kind, text)
	}
}

// A tap hears what goes over a wire.
type tap struct {
	mu                 sync.Mutex
	questions, answers [][]byte
}

func (p *tap) hear(packet wire.Packet) {
	p.mu.Lock()
	if packet.Answer {
		p.answers = append(p.answers, bytes.Clone(packet.Data))
	} else {
		p.questions = append(p.questions, bytes.Clone(packet.Data))
	}
	p.mu.Unlock()
	packet.Pass()
}

func kindOf(t *testing.T, p []byte) message.Kind {
	m, ok := message.Decode(p)
	if !ok {
		t.Errorf("%x is no message", p)
	}
	return m.Kind
}

var dialable = netip.MustParseAddrPort("127.0.0.1:0")

func addrs(w *wire.Wire) []netip.AddrPort { return []netip.AddrPort{w.Addr()} }
