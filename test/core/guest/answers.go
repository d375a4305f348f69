// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
)

var answerTests = []test{
	{"manual waits for an administrator, and any socket may answer", manual},
	{"a stale request, attempt or incarnation is refused", stale},
	{"an answer from a socket that was not asked is refused", foreign},
	{"a method that answers twice is refused the second time", answersTwice},
	{"of racing answers exactly one counts", racingAnswers},
	{"an answer that races the timer completes the attempt once", racingTimer},
}

func manual(s *suite) error {
	if err := s.fence(steps("manual")...); err != nil {
		return err
	}
	r, err := s.await(uapi.EventInitiated)
	if err != nil {
		return err
	}
	other, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer other.Close()
	if err := other.Confirm(ctx, r, "alice: pulled the plug"); err != nil {
		return err
	}
	if r, err := s.await(uapi.EventNotice); err != nil || r.Errmsg != "alice: pulled the plug" {
		return fmt.Errorf("%+v, %w", r, err)
	}
	return s.Leave(ctx, "c")
}

func stale(s *suite) error {
	if err := s.fence(steps("core-fail", "manual")...); err != nil {
		return err
	}
	r, err := s.awaitMethod("manual")
	if err != nil {
		return err
	}
	for what, change := range map[string]func(r *kernel.Request){
		"request":     func(r *kernel.Request) { r.ID-- },
		"attempt":     func(r *kernel.Request) { r.Attempt-- },
		"incarnation": func(r *kernel.Request) { r.Incarnation++ },
	} {
		changed := r
		change(&changed)
		if err := expect(s.Confirm(ctx, changed, "late"), kernel.ErrStale); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if _, err := s.await(uapi.EventRefused); err != nil {
			return err
		}
	}
	if err := s.Confirm(ctx, r, "in time"); err != nil {
		return err
	}
	if _, err := s.await(uapi.EventNotice); err != nil {
		return err
	}
	if err := expect(s.Confirm(ctx, r, "late"), kernel.ErrStale); err != nil {
		return err
	}
	return s.Leave(ctx, "c")
}

// awaitMethod returns the next request that is initiated with a method.
func (s *suite) awaitMethod(method string) (kernel.Request, error) {
	for {
		if r, err := s.await(uapi.EventInitiated); err != nil || r.Method == method {
			return r, err
		}
	}
}

func foreign(s *suite) error {
	b, err := s.bridge("core-bound")
	if err != nil {
		return err
	}
	if err := s.fence(steps("core-bound", "core-ok")...); err != nil {
		return err
	}
	asked, err := b.next("initiate")
	if err != nil {
		return err
	}
	r, err := s.await(uapi.EventInitiated)
	if err != nil {
		return err
	}
	if err := expect(s.Confirm(ctx, r, "I am nobody"), kernel.ErrPermission); err != nil {
		return err
	}
	if err := b.answer(asked, 0, ""); err != nil {
		return fmt.Errorf("who was asked: %w", err)
	}
	return s.endsWith(uapi.EventNotice, "core-bound", 1)
}

func answersTwice(s *suite) error {
	if err := s.fence(steps("core-twice")...); err != nil {
		return err
	}
	if err := s.endsWith(uapi.EventNotice, "core-twice", 1); err != nil {
		return err
	}
	accepted, err1 := parameter("core_methods", "accepted")
	refused, err2 := parameter("core_methods", "refused")
	if accepted != 1 || refused != 1 {
		return errors.Join(fmt.Errorf("%d accepted, %d refused", accepted, refused), err1, err2)
	}
	return nil
}

// racers send the same answer at once, so often.
const racers, races = 8, 50

func racingAnswers(s *suite) error {
	if err := s.Join(ctx, cluster("c", steps("manual")...)); err != nil {
		return err
	}
	clients, err := dialAll(racers)
	if err != nil {
		return err
	}
	for range races {
		if err := s.Fence(ctx, "c", 1, life, "a race"); err != nil {
			return err
		}
		r, err := s.await(uapi.EventInitiated)
		if err != nil {
			return err
		}
		if n, err := race(clients, r); err != nil || n != 1 {
			return fmt.Errorf("%d answers were taken, %w", n, err)
		}
		if err := s.endedOnce(r); err != nil {
			return err
		}
	}
	for _, c := range clients {
		c.Close()
	}
	return s.Leave(ctx, "c")
}

func dialAll(n int) ([]*kernel.Client, error) {
	var clients []*kernel.Client
	for range n {
		c, err := kernel.Dial()
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
	}
	return clients, nil
}

// race has all clients answer at once, and tells how many answers were taken.
func race(clients []*kernel.Client, r kernel.Request) (int, error) {
	var taken atomic.Int32
	errs := make([]error, len(clients))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			<-start
			err := c.Confirm(ctx, r, fmt.Sprint("racer ", i))
			if err == nil {
				taken.Add(1)
			} else {
				errs[i] = expect(err, kernel.ErrStale)
			}
		})
	}
	close(start)
	wg.Wait()
	return int(taken.Load()), errors.Join(errs...)
}

// endedOnce fails unless the request ends, with one FENCED before.
func (s *suite) endedOnce(r kernel.Request) error {
	fenced := 0
	for {
		e, ok := <-s.events
		switch {
		case !ok || e.Lost:
			return errors.New("events were lost")
		case e.Request.ID != r.ID:
			return fmt.Errorf("a stranger's %v", e.Event)
		case e.Event == uapi.EventFenced:
			fenced++
		case e.Event == uapi.EventNotice && fenced == 1:
			return nil
		case e.Event != uapi.EventRefused:
			return fmt.Errorf("%v after %d FENCED", e.Event, fenced)
		}
	}
}

// racingTimer answers just when the timer goes off: then the attempt fails or succeeds, not both.
func racingTimer(s *suite) error {
	const timeout = 8 * time.Millisecond
	step := kernel.Step{Method: "manual", TimeoutMS: uint32(timeout.Milliseconds())}
	if err := s.Join(ctx, cluster("c", step, steps("core-ok")[0])); err != nil {
		return err
	}
	taken := 0
	for i := range races {
		if err := s.Fence(ctx, "c", 1, life, "a race"); err != nil {
			return err
		}
		r, err := s.await(uapi.EventInitiated)
		if err != nil {
			return err
		}
		// From the same moment on, later each time: some come too early, some too late.
		time.Sleep(time.Until(r.At[uapi.EventInitiated].Add(timeout * time.Duration(2*i) / races)))
		mine := s.Confirm(ctx, r, "in time?") == nil
		end, err := s.await(uapi.EventNotice)
		if err != nil {
			return err
		}
		if mine != (end.Attempt == 1) || end.Attempt > 2 {
			return fmt.Errorf("the answer was taken: %v, but the end is %+v", mine, end)
		}
		if mine {
			taken++
		}
	}
	fmt.Printf("# %d of %d answers were in time\n", taken, races)
	if taken == 0 || taken == races {
		return errors.New("there was no race")
	}
	return s.Leave(ctx, "c")
}
