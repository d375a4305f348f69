// SPDX-License-Identifier: GPL-2.0-only

package relay

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
)

// A stub fails with err, and remembers how long it was given.
type stub struct {
	fencemethods.Device
	err  error
	left time.Duration
}

func (s *stub) Off(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	s.left = time.Until(deadline)
	return s.err
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestWhatIsLeftIsSharedByTheMethodsThatAreLeft(t *testing.T) {
	down := errors.New("down")
	first, second, third := &stub{err: down}, &stub{err: down}, &stub{}
	h := &handler{steps: []step{{first, time.Hour}, {second, time.Minute}, {third, time.Second}}}
	r, err := h.Order(within(t, 10*time.Hour), server.Order{Op: message.Off})
	if err != nil || r.State != fencemethods.Off {
		t.Errorf("%v, %v", r, err)
	}
	for _, c := range []struct {
		got, want time.Duration
	}{{first.left, time.Hour}, {second.left, time.Minute}, {third.left, 10 * time.Hour}} {
		if c.got > c.want || c.got < c.want*9/10 {
			t.Errorf("one had %v, want %v", c.got, c.want)
		}
	}
}

// What failed first is of the method that was to do it.
func TestTheFirstFailureIsTold(t *testing.T) {
	h := &handler{steps: []step{{&stub{err: fencemethods.ErrAuth}, time.Second}, {&stub{err: fencemethods.ErrTimeout}, time.Second}}}
	if r, err := h.Order(within(t, time.Minute), server.Order{Op: message.Off}); !errors.Is(err, fencemethods.ErrAuth) || r.State != fencemethods.Unknown {
		t.Errorf("%v, %v", r, err)
	}
}

func TestAPartEndsWithTheWholeAndBefore(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	p := &part{ctx, time.Now().Add(time.Hour)}
	if err := p.Err(); err != nil {
		t.Errorf("at the beginning: %v", err)
	}
	p.deadline = time.Now()
	if err := p.Err(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after its deadline: %v", err)
	}
	cancel()
	if err := p.Err(); !errors.Is(err, context.Canceled) {
		t.Errorf("after the whole's end: %v", err)
	}
}

func TestAnOrderAllocatesNothing(t *testing.T) {
	h := &handler{steps: []step{{&stub{err: fencemethods.ErrAuth}, time.Second}, {&stub{}, time.Second}}}
	ctx := within(t, time.Minute)
	if n := testing.AllocsPerRun(100, func() { _, _ = h.Order(ctx, server.Order{Op: message.Off}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
