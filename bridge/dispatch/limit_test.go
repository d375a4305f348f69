// SPDX-License-Identifier: GPL-2.0-only

package dispatch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
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
