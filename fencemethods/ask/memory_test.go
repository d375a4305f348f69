// SPDX-License-Identifier: GPL-2.0-only

package ask

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ask/desk"
	"github.com/o2fence/o2fence/fencemethods/ask/letter"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

// serveVar makes this test binary an admin machine for another one, whose allocations are counted.
const serveVar = "O2FENCE_TEST_SERVE_DESK"

func TestMain(m *testing.M) {
	if os.Getenv(serveVar) == "" {
		os.Exit(m.Run())
	}
	if err := serveDesk(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveDesk says where it listens on standard output. It confirms all that it is asked when it is told
// to on standard input, and ends with that.
func serveDesk() error {
	d := desk.New()
	l, err := desk.NewListener(d, netip.MustParseAddrPort("127.0.0.1:0"), []fencemethods.Secret{fencemethods.Secret(testKey)})
	if err != nil {
		return err
	}
	go func() {
		for news := d.News(context.Background()); news != nil; news = d.News(context.Background()) {
			for _, r := range news {
				l.Tell(r)
			}
		}
	}()
	go func() { _ = l.Serve(context.Background()) }()
	fmt.Println(l.Addr().Port())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		for _, r := range d.Records() {
			if r.State == desk.Open {
				_, _ = d.Answer(r.Request, r.Node, true, "ann", "pulled both cords")
			}
		}
	}
	return nil
}

// openApart returns a device whose admin machine is another process, and what has that confirm.
func openApart(t testing.TB) (d *device, confirm func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveVar+"=yes")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	var port int
	if _, err := fmt.Fscan(stdout, &port); err != nil {
		t.Fatal(err)
	}
	values, err := Method().Parse(params(t, port))
	if err != nil {
		t.Fatal(err)
	}
	own, err := New(target, values)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	return own.(*device), func() { _, _ = io.WriteString(stdin, "\n") }
}

// A question may stand for a day.
func TestNothingIsAllocatedWhileSomebodyIsAsked(t *testing.T) {
	d, _ := openApart(t)
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
	d, confirm := openApart(t)
	ctx, note := serving(within(t, patience), 7)
	var before, after runtime.MemStats
	ended := make(chan bool)
	go func() { // so that Off is alone
		defer close(ended)
		runtime.ReadMemStats(&before)
		if err := d.Off(ctx); err != nil {
			t.Error(err)
		}
		runtime.ReadMemStats(&after)
	}()
	for {
		select {
		case <-ended:
			n := after.Mallocs - before.Mallocs
			t.Logf("%d allocations", n)
			if n > 20 || note.Take() == "" {
				t.Error("expected no more than 20, and who vouches")
			}
			return
		case <-time.After(100 * time.Millisecond):
			confirm()
		}
	}
}

// With nobody at any of the most machines that there can be.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	p := params(t, 9)
	p["addrs"] = "127.0.0.9,127.0.0.10,127.0.0.11,127.0.0.12,127.0.0.13,127.0.0.14,127.0.0.15,127.0.0.16"
	d := open(t, p, nil)
	const seconds = 2
	ctx := within(t, seconds*time.Second)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := d.Off(ctx); !errors.Is(err, fencemethods.ErrUnreachable) {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	perMinute := (after.TotalAlloc - before.TotalAlloc) * 60 / seconds
	if budget := uint64(Method().MemoryKiB) << 10; perMinute > budget {
		t.Errorf("%d bytes a minute, more than the %d of MemoryKiB", perMinute, budget)
	}
}

func TestALetterHasRoom(t *testing.T) {
	long := strings.Repeat("x", 64)
	q := letter.Question{Target: fencemethods.Target{Cluster: long, Name: long, Node: 254}, Asker: long, Taken: true, Reason: make([]byte, 255)}
	if n := len(q.Append(nil)); n > letter.Room {
		t.Errorf("%d bytes, more than %d", n, letter.Room)
	}
}
