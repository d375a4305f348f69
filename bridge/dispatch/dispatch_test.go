// SPDX-License-Identifier: GPL-2.0-only

package dispatch

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods"
)

func TestANodeThatIsProvenOffIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := &stub{}
		f := serve(t, []Node{node(1, &stub{off: hang}), node(2, device)})
		asked := order(t, uapi.CmdInitiate, 2, 7, params)
		f.asked <- asked
		a := <-f.answers
		if a.Attempt != asked.in.Attempt || a.Errno != 0 || a.Errmsg != "" {
			t.Errorf("answered %+v to %+v", a, asked.in.Attempt)
		}
		if device.state != fencemethods.Off {
			t.Error("the node is not off")
		}
	})
}

func TestADeviceIsToldWhichRequestItServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got fencemethods.Request
		device := &stub{off: func(ctx context.Context) error { got, _ = fencemethods.RequestOf(ctx); return nil }}
		f := serve(t, []Node{node(1, device)})
		f.initiate(1, 7)
		<-f.answers
		got.Note = nil
		want := fencemethods.Request{Number: 7, Incarnation: 0xabc, Attempt: 1, Silent: time.Unix(3, 0).UTC()}
		want.Reason.Set([]byte("missed 5 heartbeats"))
		if got != want {
			t.Errorf("told %+v, want %+v", got, want)
		}
	})
}

// What others need of memory is given up when it is certain that they may go on, and not before.
func TestProvenIsCalledBeforeTheAnswerAndOnlyWhenTheNodeIsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{t: t, fakeKernel: newFakeKernel(), served: make(chan error, 1)}
		proven, answered := 0, 0
		f.taken = func() error {
			answered = proven
			return nil
		}
		unreachable := &fencemethods.Error{Kind: fencemethods.ErrUnreachable, Detail: "no answer"}
		nodes := []Node{node(1, &stub{off: func(context.Context) error { return unreachable }}), node(2, &stub{})}
		d := New(f, nodes, Options{
			Settled: f.isSettled, Idle: f.countIdle, Log: f.print, Begin: f.begin, Proven: func() { proven++ },
		})
		go func() { f.served <- d.Serve() }()
		defer f.close()
		f.initiate(1, 7)
		if <-f.answers; proven != 0 {
			t.Error("called for a node that was not proven off")
		}
		f.initiate(2, 8)
		<-f.answers
		synctest.Wait()
		if proven != 1 || answered != 1 {
			t.Errorf("called %d times, %d before the answer", proven, answered)
		}
	})
}

func TestAFailureIsReportedWithItsErrnoAndText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unreachable := &fencemethods.Error{Kind: fencemethods.ErrUnreachable, Detail: "no answer"}
		device := &stub{off: func(context.Context) error { return unreachable }}
		f := serve(t, []Node{node(1, device)})
		f.initiate(1, 7)
		if a := <-f.answers; a.Errno != syscall.EHOSTUNREACH || a.Errmsg != unreachable.Error() {
			t.Errorf("answered %+v", a)
		}
	})
}

// A fence that rests on somebody's word says whose, and only if it succeeds.
func TestWhoVouchesForASuccessIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var err error
		device := &stub{off: func(ctx context.Context) error {
			if r, ok := fencemethods.RequestOf(ctx); ok && r.Number == 7 {
				fencemethods.Vouch(ctx, "ann@admin: pulled both cords")
			}
			return err
		}}
		f := serve(t, []Node{node(1, device)})
		f.initiate(1, 7)
		if a := <-f.answers; a.Errno != 0 || a.Errmsg != "ann@admin: pulled both cords" {
			t.Errorf("answered %+v", a)
		}
		f.initiate(1, 8) // for which nobody vouches
		if a := <-f.answers; a.Errno != 0 || a.Errmsg != "" {
			t.Errorf("the next one: %+v", a)
		}
		err = fencemethods.ErrTimeout
		f.initiate(1, 7)
		if a := <-f.answers; a.Errno != syscall.ETIMEDOUT || a.Errmsg != err.Error() {
			t.Errorf("a failure: %+v", a)
		}
	})
}

func TestADeviceGivesUpBeforeTheKernelDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, []Node{node(1, &stub{off: hang})})
		began := time.Now()
		f.initiate(1, 7)
		if a := <-f.answers; a.Errno != syscall.ETIMEDOUT || time.Since(began) >= timeout {
			t.Errorf("answered %+v after %v", a, time.Since(began))
		}
	})
}

// To fence by another configuration could be to fence another machine.
func TestAnOrderOfAnotherConfigurationIsRefusedAndNotCarriedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := &stub{off: func(context.Context) error { t.Error("carried out"); return nil }}
		f := serve(t, []Node{node(1, device)})
		for what, asked := range map[string]*asked{
			"other parameters": order(t, uapi.CmdInitiate, 1, 7, "addr=192.0.2.2\n"),
			"a prefix":         order(t, uapi.CmdInitiate, 1, 8, params[:5]),
			"an unknown node":  order(t, uapi.CmdInitiate, 2, 9, params),
		} {
			f.asked <- asked
			a := <-f.answers
			if a.Attempt != asked.in.Attempt || a.Errno != syscall.ESTALE || !strings.Contains(a.Errmsg, "restart o2fenced") {
				t.Errorf("%s: answered %+v", what, a)
			}
		}
	})
}

func TestACanceledAttemptEndsAndIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := make(chan bool, 1)
		var ended error
		device := &stub{off: func(ctx context.Context) error {
			began <- true
			ended = hang(ctx)
			return ended
		}}
		f := serve(t, []Node{node(1, device)})
		f.initiate(1, 7)
		<-began
		f.cancel(1, 6)
		synctest.Wait()
		if ended != nil {
			t.Fatal("ended by the CANCEL of another attempt")
		}
		f.cancel(1, 7)
		f.nothing()
		if !errors.Is(ended, context.Canceled) {
			t.Errorf("ended by %v", ended)
		}
		f.cancel(1, 7) // which changes nothing
		device.off = nil
		f.initiate(1, 8)
		if a := <-f.answers; a.Request != 8 || a.Errno != 0 {
			t.Errorf("the next one: %+v", a)
		}
	})
}

func TestANewOrderSupersedesTheOneUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := make(chan bool)
		first := true
		device := &stub{off: func(ctx context.Context) error {
			if first {
				first = false
				began <- true
				return hang(ctx)
			}
			return nil
		}}
		f := serve(t, []Node{node(1, device)})
		f.initiate(1, 7)
		<-began
		f.initiate(1, 8)
		if a := <-f.answers; a.Request != 8 || a.Errno != 0 {
			t.Errorf("answered %+v", a)
		}
		f.nothing()
	})
}

func TestAnOrderThatIsCanceledBeforeItBeginsIsNotCarriedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, stubborn := make(chan bool), make(chan bool)
		calls := 0
		device := &stub{off: func(context.Context) error {
			calls++
			began <- true
			<-stubborn
			return nil
		}}
		f := serve(t, []Node{node(1, device)})
		f.initiate(1, 7)
		<-began
		f.initiate(1, 8)
		f.cancel(1, 8)
		synctest.Wait()
		close(stubborn)
		f.nothing()
		f.rest()
		if calls != 1 || f.idle != 1 {
			t.Errorf("%d orders carried out, idle %d times", calls, f.idle)
		}
	})
}

func TestAllNodesAreFencedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = uapi.NodesMax - 1
		var waiting sync.WaitGroup
		waiting.Add(all)
		var nodes []Node
		for n := range uint32(all) {
			nodes = append(nodes, node(n, &stub{off: func(context.Context) error {
				waiting.Done()
				waiting.Wait() // for all the others
				return nil
			}}))
		}
		f := serve(t, nodes)
		for n := range uint32(all) {
			f.initiate(n, uint64(n)+1)
		}
		fenced := map[uint32]bool{}
		for range all {
			a := <-f.answers
			if a.Errno != 0 || a.Request != uint64(a.Node)+1 {
				t.Errorf("answered %+v", a)
			}
			fenced[a.Node] = true
		}
		if len(fenced) != all {
			t.Errorf("%d nodes were fenced", len(fenced))
		}
		f.rest()
		if f.idle != 1 {
			t.Errorf("idle %d times", f.idle)
		}
	})
}

func TestAnAnswerIsRepeatedUntilTheKernelHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, []Node{node(1, &stub{})})
		tries := 0
		f.taken = func() error {
			if tries++; tries < 3 {
				return syscall.ENOBUFS
			}
			return nil
		}
		f.initiate(1, 7)
		for range 3 {
			if a := <-f.answers; a.Request != 7 {
				t.Errorf("answered %+v", a)
			}
		}
		f.nothing()
		if f.logged() != "" {
			t.Errorf("logged %q", f.logged())
		}
	})
}

func TestAnAnswerThatCannotBeGivenIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, []Node{node(1, &stub{})})
		f.taken = func() error { return syscall.ENOMEM }
		f.initiate(1, 7)
		for range replyTries {
			<-f.answers
		}
		f.nothing()
		if !strings.Contains(f.logged(), "node 1, request 7") {
			t.Errorf("logged %q", f.logged())
		}
	})
}

func TestEveryGoroutineHasBegunBeforeTheFirstOrderIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, []Node{node(1, &stub{}), node(2, &stub{})})
		f.initiate(1, 7) // is taken by Receive
		// Two workers, the one that turns strangers away, the one that keeps house, the receiver.
		if got := f.begun.Load(); got != 5 {
			t.Errorf("%d have begun", got)
		}
		<-f.answers
	})
}

func TestALostMessageIsNotTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, []Node{node(1, &stub{})})
		for _, err := range []error{syscall.ENOBUFS, kernel.ErrMalformed} {
			f.asked <- &asked{err: err}
		}
		f.initiate(1, 7)
		if a := <-f.answers; a.Errno != 0 {
			t.Errorf("answered %+v", a)
		}
		if got := strings.Count(f.logged(), "lost"); got != 2 {
			t.Errorf("logged %q", f.logged())
		}
	})
}

// That the node's return or the timer was first is no fault.
func TestARefusedAnswerIsLoggedUnlessItIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, []Node{node(1, &stub{})})
		for _, errno := range []syscall.Errno{syscall.ESTALE, syscall.EPERM} {
			f.asked <- &asked{err: &kernel.Refusal{Command: uapi.CmdFenced, Errno: errno}}
		}
		f.initiate(1, 7)
		if a := <-f.answers; a.Errno != 0 {
			t.Errorf("answered %+v", a)
		}
		if want := "an answer was refused: fenced: operation not permitted\n"; f.logged() != want {
			t.Errorf("logged %q, want %q", f.logged(), want)
		}
	})
}

func TestTheEndGivesUpWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := make(chan bool)
		device := &stub{off: func(ctx context.Context) error { began <- true; return hang(ctx) }}
		f := serve(t, []Node{node(1, device)})
		f.initiate(1, 7)
		<-began
		start := time.Now()
		f.close()
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %v", took)
		}
		f.nothing()
	})
}

func TestNothingIsAllocatedBetweenReceiveAndFenced(t *testing.T) {
	k := newFakeKernel()
	d := New(k, []Node{node(1, nothing{})}, Options{Idle: func() {}, Begin: func() {}})
	served := make(chan error, 1)
	go func() { served <- d.Serve() }()
	initiate := order(t, uapi.CmdInitiate, 1, 7, params)
	allocs := testing.AllocsPerRun(1000, func() {
		k.asked <- initiate
		if a := <-k.answers; a.Errno != 0 {
			t.Errorf("answered %+v", a)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per order", allocs)
	}
	close(k.asked)
	<-served
}

// nothing is a device that does nothing.
type nothing struct{ fencemethods.Device }

func (nothing) Off(ctx context.Context) error {
	_, _ = fencemethods.RequestOf(ctx)
	return nil
}
