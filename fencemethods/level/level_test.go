// SPDX-License-Identifier: GPL-2.0-only

package level

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/limit"
)

// A stub is a device that obeys, unless it was told how to go off.
type stub struct {
	off func(context.Context) error
	on  func(context.Context) error

	mu     sync.Mutex
	state  fencemethods.State
	status error
	offs   int
}

func (s *stub) Off(ctx context.Context) error {
	s.mu.Lock()
	s.offs++
	off := s.off
	s.mu.Unlock()
	if off != nil {
		if err := off(ctx); err != nil {
			return err
		}
	}
	s.set(fencemethods.Off)
	return nil
}

func (s *stub) On(ctx context.Context) error {
	if s.on != nil {
		return s.on(ctx)
	}
	s.set(fencemethods.On)
	return nil
}

func (s *stub) Status(context.Context) (fencemethods.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.status
}

func (*stub) Check(context.Context) error { return nil }
func (*stub) Close() error                { return nil }

func (s *stub) set(state fencemethods.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

// behave sets how it goes off.
func (s *stub) behave(off func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = off
}

func (s *stub) ordered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offs
}

// hang obeys no more than its deadline.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func refuse(context.Context) error {
	return &fencemethods.Error{Kind: fencemethods.ErrRefused, Detail: "no outlet 9", Advice: "check outlets"}
}

func in(d time.Duration) func(context.Context) error {
	return func(context.Context) error { time.Sleep(d); return nil }
}

// openLevel opens a level of these devices, the first of which is named a.
func openLevel(t *testing.T, rule Rule, devices ...*stub) fencemethods.Device {
	t.Helper()
	var members []Member
	for i, d := range devices {
		members = append(members, Member{Name: string(rune('a' + i)), Device: d})
	}
	return openMembers(t, rule, members...)
}

func openMembers(t *testing.T, rule Rule, members ...Member) fencemethods.Device {
	t.Helper()
	d, err := Method("level", rule, members, func() {}).Open(fencemethods.Target{Name: "web1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

const patience = 20 * time.Second

// fence switches off with a deadline, and returns how long that took.
func fence(t *testing.T, d fencemethods.Device) (time.Duration, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	err := d.Off(ctx)
	return time.Since(began), err
}

func TestAllAreSwitchedAtOnceAndAllHaveToBeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, err := fence(t, openLevel(t, All, &stub{off: in(3 * time.Second)}, &stub{off: in(4 * time.Second)}))
		if err != nil || took != 4*time.Second {
			t.Errorf("%v after %v; want no error after the slower one's time", err, took)
		}
	})
}

func TestOneThatStaysOnFailsTheLevelAndIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := fence(t, openLevel(t, All, &stub{}, &stub{off: refuse}, &stub{}))
		if !errors.Is(err, fencemethods.ErrRefused) || err.Error() != "level web1: off: command refused: b: no outlet 9; check outlets" {
			t.Error(err)
		}
	})
}

func TestOneThatDoesNotAnswerFailsTheLevelAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, err := fence(t, openLevel(t, All, &stub{}, &stub{off: hang}))
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, fencemethods.ErrTimeout) || !strings.Contains(err.Error(), ": b") {
			t.Error(err)
		}
		if took != patience {
			t.Errorf("after %v", took)
		}
	})
}

// While the second outlet was being switched, the first came back.
func TestAnOutletThatComesBackIsSwitchedOffAgainBeforeTheLevelCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &stub{}
		second := &stub{off: func(context.Context) error { time.Sleep(time.Second); return nil }}
		first.off = func(context.Context) error {
			if first.offs == 1 {
				time.AfterFunc(time.Second/2, func() { first.set(fencemethods.On) })
			}
			return nil
		}
		if _, err := fence(t, openLevel(t, All, first, second)); err != nil {
			t.Error(err)
		}
		if first.offs != 2 || first.state != fencemethods.Off {
			t.Errorf("the first is %v after %d orders", first.state, first.offs)
		}
	})
}

func TestAnOutletThatComesBackAgainAndAgainIsNotOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		restless := &stub{}
		// Each time the other one has been switched, the first is on again.
		other := &stub{off: func(context.Context) error {
			time.Sleep(time.Millisecond)
			restless.set(fencemethods.On)
			return nil
		}}
		took, err := fence(t, openLevel(t, All, restless, other))
		if !errors.Is(err, fencemethods.ErrNotOff) || !strings.Contains(err.Error(), "a: off, and then on again") || took > patience {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestWhatCannotBeReadAfterwardsIsNotOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := &stub{status: &fencemethods.Error{Kind: fencemethods.ErrUnreachable}}
		if _, err := fence(t, openLevel(t, All, &stub{}, lost)); !errors.Is(err, fencemethods.ErrUnreachable) {
			t.Error(err)
		}
	})
}

func TestTheEarliestProofWinsAndTheOthersAreCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended error
		slow := &stub{off: func(ctx context.Context) error { ended = hang(ctx); return ended }}
		took, err := fence(t, openLevel(t, Any, slow, &stub{off: in(time.Second)}))
		if err != nil || took != time.Second {
			t.Errorf("%v after %v", err, took)
		}
		synctest.Wait()
		if ended != context.Canceled {
			t.Errorf("the other ended by %v", ended)
		}
	})
}

func TestAFailureLeavesItToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if _, err := fence(t, openLevel(t, Any, &stub{off: refuse}, &stub{off: in(time.Second)})); err != nil {
			t.Error(err)
		}
	})
}

func TestWhenAllHaveFailedEachIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := func(context.Context) error { return &fencemethods.Error{Kind: fencemethods.ErrUnreachable} }
		_, err := fence(t, openLevel(t, Any, &stub{off: refuse}, &stub{off: lost}))
		const want = "level web1: off: command refused: a: no outlet 9; b: unreachable; run o2fencectl check"
		if err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	})
}

func TestALateOneWaitsItsTimeAndIsCalledOffBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		power := &stub{}
		const head = 5 * time.Second
		dump := &stub{off: in(head - 1)}
		d := openMembers(t, Any, Member{Name: "dump", Device: dump}, Member{Name: "power", Device: power, After: head})
		if _, err := fence(t, d); err != nil {
			t.Fatal(err)
		}
		time.Sleep(patience)
		if power.ordered() != 0 {
			t.Error("the power was cut although the dump had begun")
		}
		dump.behave(hang)
		if took, err := fence(t, d); err != nil || took != head {
			t.Errorf("%v after %v; want no error after %v", err, took, head)
		}
	})
}

func TestALateOneBeginsAtOnceWhenTheOthersHaveFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openMembers(t, Any,
			Member{Name: "dump", Device: &stub{off: func(ctx context.Context) error { time.Sleep(time.Second); return refuse(ctx) }}},
			Member{Name: "power", Device: &stub{off: refuse}, After: 5 * time.Second},
			Member{Name: "last", Device: &stub{}, After: 10 * time.Second})
		if took, err := fence(t, d); err != nil || took != time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// A program or disk that hangs beyond its deadline.
func TestAMemberThatDoesNotEndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		stuck := &stub{off: func(context.Context) error { <-release; return nil }}
		good := &stub{off: in(time.Second)}
		either := openLevel(t, Any, stuck, good)
		for range 2 {
			if took, err := fence(t, either); err != nil || took != time.Second {
				t.Errorf("%v after %v", err, took)
			}
		}
		if got := stuck.ordered(); got != 1 {
			t.Errorf("ordered %d times although it had not ended", got)
		}
		release <- struct{}{}
		synctest.Wait()
		good.behave(hang)
		stuck.behave(nil)
		if took, err := fence(t, either); err != nil || took != 0 || stuck.ordered() != 2 {
			t.Errorf("once it has ended: %v after %v, %d orders", err, took, stuck.ordered())
		}
	})
}

func TestAMemberThatEndsLateHasItsTurnThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := &stub{off: in(30 * time.Second)} // whatever its deadline
		both := openLevel(t, All, stuck, &stub{})
		took, err := fence(t, both)
		if !errors.Is(err, fencemethods.ErrTimeout) || !strings.Contains(err.Error(), "a: has not ended") || took > patience*11/10 {
			t.Errorf("%v after %v", err, took)
		}
		stuck.behave(nil)
		if _, err := fence(t, both); err != nil || stuck.ordered() != 2 {
			t.Errorf("%v after %d orders", err, stuck.ordered())
		}
	})
}

func TestAFenceThatIsCalledOffEndsAtOnce(t *testing.T) {
	for _, rule := range []Rule{All, Any} {
		synctest.Test(t, func(t *testing.T) {
			stuck := &stub{off: func(context.Context) error { time.Sleep(time.Second); return nil }}
			late := &stub{}
			d := openMembers(t, rule, Member{Name: "a", Device: stuck}, Member{Name: "b", Device: late, After: time.Second / 2})
			ctx, cancel := context.WithCancel(t.Context())
			ctx, stop := context.WithTimeout(ctx, patience)
			defer stop()
			time.AfterFunc(time.Second/4, cancel)
			began := time.Now()
			if err := d.Off(ctx); !errors.Is(err, context.Canceled) || time.Since(began) != time.Second/4 {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		})
	}
}

func TestEachMemberIsToldWhichRequestItServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := fencemethods.Request{Number: 7, Incarnation: 0xabc, Attempt: 2}
		var told atomic.Int32
		ask := func(ctx context.Context) error {
			if r, ok := fencemethods.RequestOf(ctx); ok && r.Number == want.Number && r.Attempt == want.Attempt {
				told.Add(1)
			}
			return nil
		}
		d := openLevel(t, All, &stub{off: ask}, &stub{off: ask})
		ctx, cancel := context.WithTimeout(fencemethods.WithRequest(t.Context(), want), patience)
		defer cancel()
		if err := d.Off(ctx); err != nil || told.Load() != 2 {
			t.Errorf("%v, %d were told", err, told.Load())
		}
	})
}

// The history says on whose word a fence rests, and of nobody on whose it does not.
func TestWhoVouchesIsNotedWhenItsMemberCounts(t *testing.T) {
	vouch := func(who string, after time.Duration) *stub {
		return &stub{off: func(ctx context.Context) error {
			fencemethods.Vouch(ctx, who)
			time.Sleep(after)
			return nil
		}}
	}
	for rule, want := range map[Rule]string{All: "ann; ben", Any: "ben"} {
		synctest.Test(t, func(t *testing.T) {
			note := new(fencemethods.Note)
			d := openLevel(t, rule, vouch("ann", 2*time.Second), vouch("ben", time.Second))
			ctx, cancel := context.WithTimeout(fencemethods.WithRequest(t.Context(), fencemethods.Request{Note: note}), patience)
			defer cancel()
			if err := d.Off(ctx); err != nil || note.Take() != want {
				t.Errorf("%v, noted something else than %q", err, want)
			}
		})
	}
}

func TestStatesOfTheMembersTogether(t *testing.T) {
	const u, off, on = fencemethods.Unknown, fencemethods.Off, fencemethods.On
	for _, c := range []struct{ first, second, all, any fencemethods.State }{
		{on, on, on, on},
		{off, off, off, off},
		{off, on, on, off},
		{off, u, u, off},
		{on, u, on, on},
		{u, u, u, u},
	} {
		for rule, want := range map[Rule]fencemethods.State{All: c.all, Any: c.any} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			got, err := openLevel(t, rule, &stub{state: c.first}, &stub{state: c.second}).Status(ctx)
			cancel()
			if got != want || err != nil {
				t.Errorf("rule %d, %v and %v: %v, %v; want %v", rule, c.first, c.second, got, err, want)
			}
		}
	}
}

func TestOnSwitchesOnWhateverIsOff(t *testing.T) {
	const off, on = fencemethods.Off, fencemethods.On
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cannot := func(context.Context) error { return fencemethods.ErrUnsupported }
	mustNot := func(context.Context) error { t.Error("switched on, though it is not off"); return nil }
	first, second := &stub{state: off}, &stub{state: off}
	half := openLevel(t, All, first, &stub{state: off, on: cannot}, &stub{state: on, on: mustNot}, second)
	if err := half.On(ctx); err != nil {
		t.Error(err)
	}
	if first.state != on || second.state != on {
		t.Error("not both are on")
	}
	none := openLevel(t, Any, &stub{state: off, on: cannot}, &stub{state: off, on: cannot})
	if err := none.On(ctx); !errors.Is(err, fencemethods.ErrUnsupported) {
		t.Error(err)
	}
	broken := func(context.Context) error { return &fencemethods.Error{Kind: fencemethods.ErrUnreachable} }
	if err := openLevel(t, All, first, &stub{state: off, on: broken}).On(ctx); !errors.Is(err, fencemethods.ErrUnreachable) {
		t.Error(err)
	}
}

func TestErrorsFitTheWire(t *testing.T) {
	long := func(context.Context) error {
		return &fencemethods.Error{Kind: fencemethods.ErrUnsupported, Detail: strings.Repeat("é", 200), Advice: strings.Repeat("x", 100)}
	}
	for n := 1; n <= 8; n++ {
		var members []Member
		for range n {
			members = append(members, Member{Name: "redfish 2001:db8::1234:5678", Device: &stub{off: long}})
		}
		name := strings.Repeat("m", 64)
		d, err := Method(name, Any, members, func() {}).Open(fencemethods.Target{Name: strings.Repeat("n", 64)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		if _, err = fence(t, d); err == nil || len(err.Error()) > 255 {
			t.Errorf("%d members: %d bytes: %v", n, len(err.Error()), err)
		}
	}
}

func TestEveryGoroutineHasBegunWhenTheLevelIsOpen(t *testing.T) {
	var begun atomic.Int32
	members := []Member{{Name: "a", Device: &stub{}}, {Name: "b", Device: &stub{}}}
	d, err := Method("level", All, members, func() { begun.Add(1) }).Open(fencemethods.Target{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if begun.Load() != 2 {
		t.Errorf("%d have begun", begun.Load())
	}
}

// nothing is a device that is off, and costs nothing.
type nothing struct{ fencemethods.Device }

func (nothing) Off(context.Context) error { return nil }
func (nothing) Close() error              { return nil }
func (nothing) Status(context.Context) (fencemethods.State, error) {
	return fencemethods.Off, nil
}

func TestAFenceAllocatesNothing(t *testing.T) {
	// A context that was canceled needs a new channel: one for each that is called off.
	for rule, want := range map[Rule]float64{All: 0, Any: 1} {
		members := []Member{{Name: "a", Device: nothing{}}, {Name: "b", Device: nothing{}}}
		d := openMembers(t, rule, members...)
		l := limit.New()
		allocs := testing.AllocsPerRun(1000, func() {
			l.StartFor(patience, fencemethods.Request{Number: 7})
			if err := d.Off(l); err != nil {
				t.Error(err)
			}
			l.Stop()
		})
		if allocs > want {
			t.Errorf("rule %d: %v allocations, want %v", rule, allocs, want)
		}
	}
}
