// SPDX-License-Identifier: GPL-2.0-only

package limit

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

func TestALimitHoldsForOneThingAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		for what, end := range map[string]func(){
			"canceled": l.Cancel, "run out": func() { pass(time.Second) }, "stopped": func() { pass(time.Second / 2) },
		} {
			l.Start(time.Second)
			end()
			l.Stop()
			first := l.Err()
			l.Start(time.Second)
			pass(time.Second * 3 / 4) // when the first would have run out
			if err := l.Err(); err != nil {
				t.Errorf("after one that was %s (%v): %v", what, first, err)
			}
			<-l.Done()
			if err := l.Err(); err != context.DeadlineExceeded {
				t.Errorf("in the end: %v", err)
			}
			l.Stop()
		}
	})
}

func TestWhoLooksFindsThatItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		l.Start(time.Second)
		defer l.Stop()
		pass(time.Second - 1)
		if err := l.Err(); err != nil {
			t.Errorf("too early: %v", err)
		}
		pass(1)
		if err := l.Err(); err != context.DeadlineExceeded {
			t.Errorf("at its end: %v", err)
		}
		<-l.Done()
	})
}

func TestALimitThatIsOverCannotBeCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		l.Start(time.Second)
		l.Stop()
		l.Cancel()
		pass(time.Minute)
		if err := l.Err(); err != nil {
			t.Errorf("it has become %v", err)
		}
	})
}

func TestALimitForgetsTheRequestOfTheThingBefore(t *testing.T) {
	l := New()
	l.StartFor(time.Second, fencemethods.Request{Number: 7})
	l.Stop()
	l.Start(time.Second)
	defer l.Stop()
	if r, ok := fencemethods.RequestOf(l); ok {
		t.Errorf("still of %+v", r)
	}
}

// pass lets so much time pass, and all that is due happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
