// SPDX-License-Identifier: GPL-2.0-only

package ask

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ask/desk"
	"github.com/o2fence/o2fence/fencemethods/ask/letter"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

// serveVar makes this test binary an admin machine for another one, whose allocations are counted. There,
// somebody confirms all that is asked, or nobody does.
const (
	serveVar = "O2FENCE_TEST_SERVE_DESK"
	somebody = serveVar + "=somebody"
	nobody   = serveVar + "=nobody"
)

func TestMain(m *testing.M) {
	if os.Getenv(serveVar) == "" {
		os.Exit(m.Run())
	}
	if err := serveDesk(os.Getenv(serveVar) == "somebody"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveDesk(confirm bool) error {
	d := desk.New()
	l, err := desk.NewListener(d, netip.MustParseAddrPort("127.0.0.1:0"), []fencemethods.Secret{fencemethods.Secret(testKey)})
	if err != nil {
		return err
	}
	go func() {
		for news := d.News(context.Background()); news != nil; news = d.News(context.Background()) {
			for _, r := range news {
				l.Tell(r)
				if confirm && r.State == desk.Open {
					_, _ = d.Answer(r.Request, r.Node, true, "ann", "pulled both cords")
				}
			}
		}
	}()
	go func() { _ = l.Serve(context.Background()) }()
	fencetest.ServeUntilTheEnd(l.Addr().Port())
	return nil
}

// openApart returns a device whose admin machine is another process.
func openApart(t testing.TB, who string) *device {
	t.Helper()
	var port int
	fencetest.Apart(t, who, nil, &port)
	values, err := Method().Parse(params(t, port))
	if err != nil {
		t.Fatal(err)
	}
	own, err := New(target, values)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	return own.(*device)
}

// A question may stand for a day.
func TestNothingIsAllocatedWhileSomebodyIsAsked(t *testing.T) {
	d := openApart(t, nobody)
	ctx, _ := serving(within(t, time.Minute), 7)
	deadline, _ := ctx.Deadline()
	d.begin(ctx, message.Off, deadline)
	for ; d.talks[0].question.Kind != message.Order; time.Sleep(nap) {
		d.work(time.Now())
	}
	heard := d.heard
	before := runtime.NumGoroutine()
	got := testing.AllocsPerRun(50, func() {
		d.work(time.Now())
		if done, err := d.verdict(ctx, time.Now()); done {
			t.Error("it has ended: ", err)
		}
		time.Sleep(nap)
	})
	if got > 0 {
		t.Errorf("%v allocations", got)
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, %d before", after, before)
	}
	if d.heard == heard {
		t.Error("the machine did not answer")
	}
}

// What is left are the words of the answer, and their way into the history.
func TestAnAnswerAllocatesItsWords(t *testing.T) {
	d := openApart(t, somebody)
	ctx, note := serving(within(t, patience), 7)
	got := testing.AllocsPerRun(5, func() {
		if err := d.Off(ctx); err != nil {
			t.Fatal(err)
		}
		if note.Take() == "" {
			t.Error("nobody vouches")
		}
	})
	if got > 20 {
		t.Errorf("%v allocations", got)
	}
}

// With nobody at any of the most machines that there can be.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	p := params(t, 9)
	p["addrs"] = "127.0.0.9,127.0.0.10,127.0.0.11,127.0.0.12,127.0.0.13,127.0.0.14,127.0.0.15,127.0.0.16"
	d := open(t, p, nil)
	fencetest.WithinBudget(t, Method(), 0, 2*time.Second, d.Off)
}

func TestALetterHasRoom(t *testing.T) {
	long := strings.Repeat("x", 64)
	q := letter.Question{Target: fencemethods.Target{Cluster: long, Name: long, Node: 254}, Asker: long, Taken: true, Reason: make([]byte, 255)}
	if n := len(q.Append(nil)); n > letter.Room {
		t.Errorf("%d bytes, more than %d", n, letter.Room)
	}
}

func TestWhatTheKernelMayHoldIsWithinTheBudget(t *testing.T) {
	d := openApart(t, nobody)
	total := 0
	err := d.socket.raw.Control(func(fd uintptr) {
		for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
			n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option)
			if err != nil {
				t.Error(err)
			}
			total += n
		}
	})
	if err != nil || total == 0 || total > Method().ReserveKiB()<<10 {
		t.Errorf("%d bytes may wait in the socket, KernelKiB allows %d KiB: %v", total, Method().ReserveKiB(), err)
	}
}
