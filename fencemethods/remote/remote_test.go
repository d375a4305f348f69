// SPDX-License-Identifier: GPL-2.0-only

package remote_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/fencemethods/remote"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
)

func TestAnOrderIsCarriedOutAndAnswered(t *testing.T) {
	type call struct {
		order   server.Order
		request fencemethods.Request
	}
	calls := make(chan call, 1)
	h := &hand{order: func(ctx context.Context, o server.Order) (server.Result, error) {
		request, _ := fencemethods.RequestOf(ctx)
		calls <- call{o, request}
		r := done(o)
		r.Text = "by hand"
		return r, nil
	}}
	s := serve(t, "127.0.0.1:0", web1(h))
	d := dialTo(t, s.Addr())
	want := fencemethods.Request{Number: 7, Incarnation: 0xabc, Attempt: 2, Silent: time.Now().Add(-time.Minute)}
	want.Reason.Set([]byte("missed 5 heartbeats"))
	for _, op := range []message.Op{message.Off, message.On, message.Status, message.Check} {
		r, err := d.Do(fencemethods.WithRequest(within(t, patience), want), op)
		got := <-calls
		if err != nil || r.Text != "by hand" || r.State != done(got.order).State {
			t.Errorf("%v: %+v, %v", op, r, err)
		}
		if got.order.Op != op || got.order.Target != node(1) {
			t.Errorf("%v: carried out %+v", op, got.order)
		}
		if late := got.request.Silent.Sub(want.Silent); late < -time.Millisecond || late > patience {
			t.Errorf("silent since %v, want %v", got.request.Silent, want.Silent)
		}
		got.request.Silent, got.request.Note = want.Silent, nil
		if got.request != want {
			t.Errorf("for %+v, want %+v", got.request, want)
		}
	}
	if h.count() != 4 {
		t.Errorf("carried out %d times", h.count())
	}
}

func TestWhoVouchesThereIsTold(t *testing.T) {
	h := &hand{order: func(ctx context.Context, o server.Order) (server.Result, error) {
		fencemethods.Vouch(ctx, "ann: I pulled the plug")
		return done(o), nil
	}}
	s := serve(t, "127.0.0.1:0", web1(h))
	r, err := dialTo(t, s.Addr()).Do(fencemethods.WithRequest(within(t, patience), fencemethods.Request{Number: 1}), message.Off)
	if err != nil || r.Text != "ann: I pulled the plug" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAServerMayHaveAnIPv6Address(t *testing.T) {
	if c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback}); err != nil {
		t.Skip("this machine has no IPv6:", err)
	} else {
		c.Close()
	}
	s := serve(t, "[::1]:0", web1(&hand{}))
	if _, err := dialTo(t, s.Addr()).Do(within(t, patience), message.Off); err != nil {
		t.Error(err)
	}
}

func TestAFailureKeepsItsKindAndItsText(t *testing.T) {
	for _, kind := range []error{
		fencemethods.ErrUnreachable, fencemethods.ErrAuth, fencemethods.ErrRefused, fencemethods.ErrProtocol,
		fencemethods.ErrBusy, fencemethods.ErrNotOff, fencemethods.ErrTimeout, fencemethods.ErrUnsupported,
	} {
		h := &hand{order: func(context.Context, server.Order) (server.Result, error) {
			return server.Result{}, &fencemethods.Error{Method: "ipmi", Node: "web1", Op: "off", Kind: kind, Detail: "no answer", Advice: "look"}
		}}
		s := serve(t, "127.0.0.1:0", web1(h))
		_, err := dialTo(t, s.Addr()).Do(within(t, patience), message.Off)
		wantError(t, err, kind, "ipmi: no answer; look")
	}
}

// A failure has to fit what the history takes, with the longest names there are.
func TestALongFailureIsCut(t *testing.T) {
	h := &hand{order: func(context.Context, server.Order) (server.Result, error) {
		return server.Result{}, &fencemethods.Error{Kind: fencemethods.ErrTimeout, Detail: strings.Repeat("no ", 99)}
	}}
	s := serve(t, "127.0.0.1:0", web1(h))
	_, err := dialTo(t, s.Addr()).Do(within(t, patience), message.Status)
	wantError(t, err, fencemethods.ErrTimeout, "no no")
	e, _ := errors.AsType[*fencemethods.Error](err)
	e.Method, e.Node, e.Op = strings.Repeat("m", 16), strings.Repeat("n", 64), message.Status.String()
	if n := len(err.Error()); n > 255 {
		t.Errorf("%d bytes", n)
	}
}

func TestAnErrorThatNobodyThoughtOfIsNoSuccess(t *testing.T) {
	h := &hand{order: func(context.Context, server.Order) (server.Result, error) {
		return server.Result{State: fencemethods.Off}, errors.New("the cat sits on the switch")
	}}
	s := serve(t, "127.0.0.1:0", web1(h))
	_, err := dialTo(t, s.Addr()).Do(within(t, patience), message.Off)
	wantError(t, err, fencemethods.ErrRefused, "the cat sits on the switch")
}

// Success without the state is none, whoever claims it.
func TestOffIsOnlyWhatWasReadAsOff(t *testing.T) {
	for _, state := range []fencemethods.State{fencemethods.Unknown, fencemethods.On} {
		h := &hand{order: func(context.Context, server.Order) (server.Result, error) {
			return server.Result{State: state}, nil
		}}
		s := serve(t, "127.0.0.1:0", web1(h))
		_, err := dialTo(t, s.Addr()).Do(within(t, patience), message.Off)
		wantError(t, err, fencemethods.ErrTimeout, "nobody knows")
	}
}

func TestAnOrderThatIsNotWantedIsTakenBack(t *testing.T) {
	began, ended := make(chan bool, 1), make(chan error, 1)
	h := &hand{order: func(ctx context.Context, o server.Order) (server.Result, error) {
		began <- true
		r, err := hang(ctx, o)
		ended <- err
		return r, err
	}}
	s := serve(t, "127.0.0.1:0", web1(h))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	go func() { <-began; cancel() }()
	if _, err := dialTo(t, s.Addr()).Do(ctx, message.Off); !errors.Is(err, context.Canceled) {
		t.Errorf("%v: want %v", err, context.Canceled)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("there it ended by %v", err)
	}
}

func TestTheDeadlineIsKeptOnBothSides(t *testing.T) {
	ended := make(chan time.Time, 1)
	h := &hand{order: func(ctx context.Context, o server.Order) (server.Result, error) {
		r, err := hang(ctx, o)
		ended <- time.Now()
		return r, err
	}}
	s := serve(t, "127.0.0.1:0", web1(h))
	const allowed = short / 10 // for the client; the server has to be ready by then
	fencetest.OnTime(t, allowed, func() time.Duration {
		ctx := within(t, short)
		deadline, _ := ctx.Deadline()
		_, err := dialTo(t, s.Addr()).Do(ctx, message.Off)
		client := time.Since(deadline)
		wantError(t, err, fencemethods.ErrTimeout, "")
		return max(client, (<-ended).Sub(deadline)+allowed)
	})
}

func TestSilenceAndRefusalAreToldApart(t *testing.T) {
	t.Parallel()
	s := serve(t, "127.0.0.1:0", web1(&hand{}))
	mute, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	for name, c := range map[string]struct {
		config remote.Config
		limit  time.Duration
		kind   error
		text   string
	}{
		"no answer":       {remote.Config{Servers: []netip.AddrPort{addrOf(mute)}}, short, fencemethods.ErrUnreachable, "no answer"},
		"nothing listens": {remote.Config{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}}, short, fencemethods.ErrUnreachable, "nothing listens"},
		"wrong key":       {remote.Config{Servers: []netip.AddrPort{s.Addr()}, Key: key(otherKey)}, patience, fencemethods.ErrAuth, "cannot verify this node"},
		"unknown node":    {remote.Config{Servers: []netip.AddrPort{s.Addr()}, Target: node(2)}, patience, fencemethods.ErrRefused, "no node of this cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := dial(t, c.config).Do(within(t, c.limit), message.Off)
			wantError(t, err, c.kind, c.text)
			if e, ok := errors.AsType[*fencemethods.Error](err); !ok || e.Advice == "" || strings.Contains(err.Error(), otherKey) {
				t.Errorf("%v: no advice, or the key", err)
			}
		})
	}
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// The key of one node's clients is none for another node.
func TestAKeyIsForItsNodes(t *testing.T) {
	t.Parallel()
	h := &hand{}
	s := serve(t, "127.0.0.1:0", web1(h),
		server.Node{Target: node(2), Handler: h, Keys: []fencemethods.Secret{key(otherKey)}})
	_, err := dial(t, remote.Config{Servers: []netip.AddrPort{s.Addr()}, Target: node(2)}).Do(within(t, patience), message.Off)
	wantError(t, err, fencemethods.ErrAuth, "cannot verify")
	if h.count() != 0 {
		t.Error("carried out")
	}
}

func TestTheSecondServerIsAskedWhenTheFirstIsOfNoUse(t *testing.T) {
	t.Parallel()
	mute, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	cut := serve(t, "127.0.0.1:0", web1(&hand{order: func(context.Context, server.Order) (server.Result, error) {
		return server.Result{}, &fencemethods.Error{Kind: fencemethods.ErrUnreachable}
	}}))
	slow := serve(t, "127.0.0.1:0", web1(&hand{order: hang}))
	good := serve(t, "127.0.0.1:0", web1(&hand{}))
	for name, first := range map[string]netip.AddrPort{"silent": addrOf(mute), "fails": cut.Addr(), "takes all the time": slow.Addr()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := dialTo(t, first, good.Addr()).Do(within(t, patience), message.Off); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a server has said is told rather than that the other one is silent.
func TestOfTwoFailuresTheOneThatSaysMoreIsTold(t *testing.T) {
	t.Parallel()
	cut := serve(t, "127.0.0.1:0", web1(&hand{order: func(context.Context, server.Order) (server.Result, error) {
		return server.Result{}, &fencemethods.Error{Kind: fencemethods.ErrAuth, Detail: "wrong password"}
	}}))
	for _, addrs := range [][]netip.AddrPort{
		{netip.MustParseAddrPort("127.0.0.1:9"), cut.Addr()},
		{cut.Addr(), netip.MustParseAddrPort("127.0.0.1:9")},
	} {
		_, err := dialTo(t, addrs...).Do(within(t, short), message.Off)
		wantError(t, err, fencemethods.ErrAuth, "wrong password")
	}
}

func TestAnOrderAllocatesNothing(t *testing.T) {
	h := &plain{}
	s := serve(t, "127.0.0.1:0", web1(h))
	d := dialTo(t, s.Addr())
	ctx := within(t, time.Minute)
	allocs := testing.AllocsPerRun(200, func() {
		if _, err := d.Do(ctx, message.Off); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations of client and server per order", allocs)
	}
}

type plain struct{}

func (*plain) Order(_ context.Context, o server.Order) (server.Result, error) { return done(o), nil }

// With nothing answering, a client allocates for every wait in vain. It has to be little.
func TestWaitingInVainCostsLittle(t *testing.T) {
	d := dialTo(t, netip.MustParseAddrPort("127.0.0.1:9"), netip.MustParseAddrPort("127.0.0.1:10"))
	const seconds, perMinute = 2, remote.MemoryKiB << 10
	ctx := within(t, seconds*time.Second)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := d.Do(ctx, message.Off); err == nil {
		t.Error("nothing listens, yet there is no error")
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) * 60 / seconds; got > perMinute {
		t.Errorf("%d bytes a minute", got)
	}
}

func TestAKeyThatCouldBeGuessedIsRefused(t *testing.T) {
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.ReadKey(name); err == nil || !strings.Contains(err.Error(), "16 bytes") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v: want a word on the 16 bytes", err)
	}
}
