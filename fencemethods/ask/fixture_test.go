// SPDX-License-Identifier: GPL-2.0-only

package ask

import (
	"context"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ask/desk"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

const (
	testKey  = "0123456789abcdef0123456789abcdef"
	otherKey = "fedcba9876543210fedcba9876543210"
	patience = 20 * time.Second // for what has to succeed: only a hang takes that long
	short    = time.Second      // for what has to fail, which takes all of it
)

var target = fencemethods.Target{Cluster: "web", Node: 2, Name: "web2"}

// params are impatient: a lost packet is sent again soon.
func params(t testing.TB, port int) map[string]string {
	return map[string]string{"addrs": "127.0.0.1", "port": strconv.Itoa(port), "key_file": fencetest.SecretFile(t, testKey), "repeat_ms": "100"}
}

func open(t testing.TB, p, others map[string]string) fencemethods.Device {
	t.Helper()
	for key, value := range others {
		p[key] = value
	}
	d, err := Method().Open(target, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// An admin is an admin machine: a Desk, its Listener, and somebody who reads the news.
type admin struct {
	t    testing.TB
	addr netip.AddrPort
	key  string
	read func(*admin, desk.Record) // called for each change
	ctx  context.Context           // for as long as the machine lives
	stop func()

	mu sync.Mutex
	*desk.Desk
}

// startAdmin starts one at addr, or at any port of 127.0.0.1.
func startAdmin(t testing.TB, addr string, read func(*admin, desk.Record)) *admin {
	t.Helper()
	a := &admin{t: t, addr: netip.MustParseAddrPort(addr), key: testKey, read: read}
	a.start()
	t.Cleanup(func() { a.stop() })
	return a
}

func (a *admin) start() {
	a.t.Helper()
	d := desk.New()
	l, err := desk.NewListener(d, a.addr, []fencemethods.Secret{fencemethods.Secret(a.key)})
	if err != nil {
		a.t.Fatal(err)
	}
	a.mu.Lock()
	a.Desk, a.addr = d, l.Addr()
	a.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	a.ctx = ctx
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.Serve(ctx); err != nil {
			a.t.Error(err)
		}
	})
	running.Go(func() {
		for news := d.News(ctx); news != nil; news = d.News(ctx) {
			for _, r := range news {
				l.Tell(r)
				if a.read != nil {
					running.Go(func() { a.read(a, r) })
				}
			}
		}
	})
	a.stop = func() {
		cancel()
		running.Wait()
	}
}

// restart is a machine that forgets all that was asked.
func (a *admin) restart() error {
	a.stop()
	a.start()
	return nil
}

func (a *admin) port() int { return int(a.addr.Port()) }

// says answers every question so.
func says(yes bool, who, why string) func(*admin, desk.Record) {
	return func(a *admin, r desk.Record) {
		if r.State == desk.Open {
			_, _ = a.Answer(r.Request, r.Node, yes, who, why)
		}
	}
}

// diligent powers the machine off, looks, and only then vouches.
func diligent(m *fencetest.Machine) func(*admin, desk.Record) {
	return func(a *admin, r desk.Record) {
		if r.State != desk.Open {
			return
		}
		for a.ctx.Err() == nil {
			on, err := m.On()
			if err == nil && !on {
				_, _ = a.Answer(r.Request, r.Node, true, "robot@admin", "looked at it")
				return
			}
			if on {
				_ = m.SetOn(false)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// await waits for a record of the admin's that is as wanted.
func (a *admin) await(what string, is func(desk.Record) bool) desk.Record {
	a.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		for _, r := range a.Records() {
			if is(r) {
				return r
			}
		}
	}
	a.t.Fatalf("%s: not seen; there is %+v", what, a.Records())
	return desk.Record{}
}

func isState(s desk.State) func(desk.Record) bool {
	return func(r desk.Record) bool { return r.State == s }
}
