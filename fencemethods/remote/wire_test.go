// SPDX-License-Identifier: GPL-2.0-only

package remote_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/remote"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
	"github.com/o2fence/o2fence/test/bmc/wire"
)

func TestOnABadWireAnOrderIsCarriedOutOnce(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]wire.Fault{
		"lossy": wire.Lossy(), "answers twice": wire.Double, "answers out of order": wire.Shuffle,
		"garbage": wire.Noise, "damaged": wire.Corrupt(), "forged": wire.Forgery,
		"questions twice": func(p wire.Packet) {
			p.Pass()
			if !p.Answer {
				p.Pass()
			}
		},
		"questions out of order": func(p wire.Packet) {
			if !p.Answer && p.N%2 == 0 {
				time.AfterFunc(150*time.Millisecond, p.Pass)
				return
			}
			p.Pass()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &hand{order: func(_ context.Context, o server.Order) (server.Result, error) {
				time.Sleep(300 * time.Millisecond) // so that it is asked for meanwhile
				return done(o), nil
			}}
			w, _ := wired(t, h)
			w.SetFault(fault)
			if _, err := dialTo(t, w.Addr()).Do(within(t, patience), message.Off); err != nil {
				t.Error(err)
			}
			if h.count() != 1 {
				t.Errorf("carried out %d times", h.count())
			}
		})
	}
}

func TestCutAnswersAreNotBelieved(t *testing.T) {
	t.Parallel()
	w, _ := wired(t, &hand{})
	w.SetFault(wire.Truncate)
	_, err := dialTo(t, w.Addr()).Do(within(t, short), message.Off)
	wantError(t, err, fencemethods.ErrProtocol, "no relay")
}

func TestWhoFellSilentIsToldFromWhoIsAtItStill(t *testing.T) {
	t.Parallel()
	for text, mute := range map[string]bool{"fell silent": true, "is at it still": false} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			w, _ := wired(t, &hand{order: func(ctx context.Context, _ server.Order) (server.Result, error) {
				<-t.Context().Done() // it does not even end by its deadline
				return server.Result{}, ctx.Err()
			}})
			var told atomic.Bool
			w.SetFault(func(p wire.Packet) {
				if p.Answer && mute && told.Load() {
					return
				}
				told.Store(told.Load() || p.Answer && kindOf(t, p.Data) == message.Working)
				p.Pass()
			})
			_, err := dialTo(t, w.Addr()).Do(within(t, short), message.Off)
			wantError(t, err, fencemethods.ErrTimeout, text)
		})
	}
}

func TestOldAnswersAreNotBelieved(t *testing.T) {
	t.Parallel()
	var deaf atomic.Bool
	h := &hand{order: func(ctx context.Context, o server.Order) (server.Result, error) {
		if deaf.Load() {
			return hang(ctx, o)
		}
		return done(o), nil
	}}
	w, _ := wired(t, h)
	d := dialTo(t, w.Addr())
	var tape wire.Tape
	w.SetFault(tape.Record)
	if _, err := d.Do(within(t, patience), message.Off); err != nil {
		t.Fatal(err)
	}
	deaf.Store(true)
	w.SetFault(tape.Play)
	_, err := d.Do(within(t, short), message.Off)
	wantError(t, err, fencemethods.ErrTimeout, "")
}

// Whoever recorded a fence once cannot have the node fenced again, by the server of then or by the
// next one.
func TestOldOrdersAreNotCarriedOut(t *testing.T) {
	h := &hand{}
	w, s := wired(t, h)
	var heard tap
	w.SetFault(heard.hear)
	for range 2 { // so that the first order is not the last one known
		if _, err := dialTo(t, w.Addr()).Do(within(t, patience), message.Off); err != nil {
			t.Fatal(err)
		}
	}
	next := &hand{}
	for name, c := range map[string]struct {
		at *server.Server
		h  *hand
		n  int
	}{"same server": {s, h, 2}, "next server": {serve(t, "127.0.0.1:0", web1(next)), next, 0}} {
		orders := 0
		for _, p := range heard.questions {
			if kindOf(t, p) == message.Order {
				orders++
			}
			answered(t, c.at, p)
		}
		if orders < 2 || c.h.count() != c.n {
			t.Errorf("%s: %d recorded orders, %d carried out, want %d", name, orders, c.h.count(), c.n)
		}
	}
}

// answered sends a question, and waits for its answer: by then it has had its effect.
func answered(t *testing.T, s *server.Server, p []byte) message.Message {
	t.Helper()
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
	var in [message.Size]byte
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(in[:]); err != nil {
		t.Fatal(err)
	}
	m, ok := message.Decode(in[:])
	if !ok {
		t.Fatalf("answered %x", in)
	}
	return m
}

func TestAnOrderThatComesAfterItsCancelIsNotCarriedOut(t *testing.T) {
	h := &hand{}
	w, s := wired(t, h)
	var mu sync.Mutex
	var held, cancels [][]byte
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	w.SetFault(func(p wire.Packet) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case p.Answer || kindOf(t, p.Data) == message.Hello:
			p.Pass()
		case kindOf(t, p.Data) == message.Order:
			held = append(held, p.Data)
			cancel()
		default:
			cancels = append(cancels, p.Data)
			p.Pass()
		}
	})
	if _, err := dialTo(t, w.Addr()).Do(ctx, message.Off); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v: want %v", err, context.Canceled)
	}
	awaitTrue(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(cancels) == 2 })
	for _, p := range held {
		answered(t, s, cancelled(p, cancels[0], t, s))
	}
	if h.count() != 0 {
		t.Errorf("carried out %d times", h.count())
	}
}

// cancelled sends the cancel once more, which has no answer, right before the order.
func cancelled(order, cancel []byte, t *testing.T, s *server.Server) []byte {
	t.Helper()
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(cancel); err != nil {
		t.Fatal(err)
	}
	return order
}

func awaitTrue(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not become true")
		}
	}
}

func TestAServerMayRestartInTheMiddle(t *testing.T) {
	t.Parallel()
	began := make(chan bool, 1)
	first, err := server.New(dialable, []server.Node{web1(&hand{order: func(ctx context.Context, o server.Order) (server.Result, error) {
		began <- true
		return hang(ctx, o)
	}})}, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- first.Serve() }()
	addr := first.Addr()
	result := make(chan error, 1)
	go func() {
		_, err := dialTo(t, addr).Do(within(t, patience), message.Off)
		result <- err
	}()
	<-began
	first.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	next := &hand{}
	serve(t, addr.String(), web1(next))
	if err := <-result; err != nil {
		t.Error(err)
	}
	if next.count() != 1 {
		t.Errorf("the next one carried out %d orders", next.count())
	}
}

func TestAFenceWaitsForAFenceAndForNothingElse(t *testing.T) {
	t.Parallel()
	began, finish := make(chan message.Op, 9), make(chan bool)
	h := &hand{order: func(ctx context.Context, o server.Order) (server.Result, error) {
		began <- o.Op
		select {
		case <-finish:
			return done(o), nil
		case <-ctx.Done():
			return server.Result{}, ctx.Err()
		}
	}}
	s := serve(t, "127.0.0.1:0", web1(h))
	do := func(op message.Op, patience time.Duration) chan error {
		result := make(chan error, 1)
		go func() {
			_, err := dialTo(t, s.Addr()).Do(within(t, patience), op)
			result <- err
		}()
		return result
	}
	check := do(message.Check, short)
	if op := <-began; op != message.Check {
		t.Fatalf("began %v", op)
	}
	first := do(message.Off, patience)
	if op := <-began; op != message.Off {
		t.Fatalf("began %v", op)
	}
	wantError(t, <-check, fencemethods.ErrBusy, "somebody else")
	second := do(message.Off, short)
	wantError(t, <-second, fencemethods.ErrBusy, "somebody else")
	third := do(message.Off, patience)
	finish <- true
	if err := <-first; err != nil {
		t.Error(err)
	}
	finish <- true
	if err := <-third; err != nil {
		t.Error(err)
	}
}

// A client that has given up and asks anew does not wait for what it has given up.
func TestANewOrderOfAClientTakesThePlaceOfItsOldOne(t *testing.T) {
	stubborn := true
	h := &hand{order: func(ctx context.Context, o server.Order) (server.Result, error) {
		if stubborn {
			stubborn = false
			return hang(ctx, o)
		}
		return done(o), nil
	}}
	w, _ := wired(t, h)
	w.SetFault(func(p wire.Packet) {
		if p.Answer || kindOf(t, p.Data) != message.Cancel {
			p.Pass()
		}
	})
	d := dialTo(t, w.Addr())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	go func() {
		awaitTrue(t, func() bool { return h.count() == 1 })
		cancel()
	}()
	if _, err := d.Do(ctx, message.Off); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := d.Do(within(t, short), message.Off); err != nil {
		t.Error(err)
	}
}

// The word that a server cannot verify us is not sealed: it must not end what goes on, nor what the
// server has not answered yet.
func TestAForgedRefusalDoesNotEndAnOrder(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]int64{"beside answers": 0, "before the first answer": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := wired(t, &hand{order: func(_ context.Context, o server.Order) (server.Result, error) {
				time.Sleep(time.Second)
				return done(o), nil
			}})
			var answers atomic.Int64
			w.SetFault(func(p wire.Packet) {
				if !p.Answer || answers.Add(1) > lost {
					p.Pass()
				}
				if !p.Answer {
					return
				}
				m, _ := message.Decode(p.Data)
				m.Kind = message.Unverified
				var forged [message.Size]byte
				m.Encode(&forged)
				for range 5 {
					p.Deliver(forged[:])
				}
			})
			if _, err := dial(t, remote.Config{Servers: addrs(w)}).Do(within(t, patience), message.Off); err != nil {
				t.Error(err)
			}
		})
	}
}
