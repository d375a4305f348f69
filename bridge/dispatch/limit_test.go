// SPDX-License-Identifier: GPL-2.0-only

package dispatch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

func TestALimitHoldsForOneThingAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimit()
		for what, end := range map[string]func(){
			"canceled": l.cancel, "run out": func() { after(time.Second) }, "stopped": func() { after(time.Second / 2) },
		} {
			l.start(time.Second)
			end()
			l.stop()
			first := l.Err()
			l.start(time.Second)
			after(time.Second * 3 / 4) // when the first would have run out
			if err := l.Err(); err != nil {
				t.Errorf("after one that was %s (%v): %v", what, first, err)
			}
			<-l.Done()
			if err := l.Err(); err != context.DeadlineExceeded {
				t.Errorf("in the end: %v", err)
			}
			l.stop()
		}
	})
}

func TestALimitThatIsOverCannotBeCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimit()
		l.start(time.Second)
		l.stop()
		l.cancel()
		after(time.Minute)
		if err := l.Err(); err != nil {
			t.Errorf("it has become %v", err)
		}
	})
}

func TestALimitForgetsTheRequestOfTheThingBefore(t *testing.T) {
	l := newLimit()
	l.startFor(time.Second, fencemethods.Request{Number: 7})
	l.stop()
	l.start(time.Second)
	defer l.stop()
	if r, ok := fencemethods.RequestOf(l); ok {
		t.Errorf("still of %+v", r)
	}
}
