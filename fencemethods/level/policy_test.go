// SPDX-License-Identifier: GPL-2.0-only

package level

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// failing fails so many times.
func failing(times int, kind error) *stub {
	s := &stub{}
	s.off = func(context.Context) error {
		if s.offs <= times {
			return &fencemethods.Error{Kind: kind}
		}
		return nil
	}
	return s
}

func TestADeviceIsTriedAgainWithEverLongerPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := failing(3, fencemethods.ErrUnreachable)
		took, err := fence(t, Retry(d, 3, time.Second))
		if err != nil || d.offs != 4 || took != 7*time.Second {
			t.Errorf("%v after %d tries and %v", err, d.offs, took)
		}
	})
}

func TestADeviceIsNotTriedMoreOftenThanConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := failing(3, fencemethods.ErrProtocol)
		if _, err := fence(t, Retry(d, 2, time.Second)); !errors.Is(err, fencemethods.ErrProtocol) || d.offs != 3 {
			t.Errorf("%v after %d tries", err, d.offs)
		}
	})
}

func TestWhatTryingAgainCannotChangeIsNotTriedAgain(t *testing.T) {
	for _, kind := range []error{fencemethods.ErrAuth, fencemethods.ErrRefused, fencemethods.ErrUnsupported} {
		d := failing(1, kind)
		if _, err := fence(t, Retry(d, 9, time.Second)); !errors.Is(err, kind) || d.offs != 1 {
			t.Errorf("%v after %d tries", err, d.offs)
		}
	}
}

func TestAPauseThatWouldEndAfterTheDeadlineIsNotMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, err := fence(t, Retry(failing(9, fencemethods.ErrBusy), 9, patience/4))
		if !errors.Is(err, fencemethods.ErrBusy) || took != patience/4*3 {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestRetriesOfOneMemberHoldUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openMembers(t, Any,
			Member{Name: "a", Device: Retry(failing(9, fencemethods.ErrUnreachable), 9, time.Second)},
			Member{Name: "b", Device: &stub{off: in(5 * time.Second)}})
		if took, err := fence(t, d); err != nil || took != 5*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestADelayedFenceBeginsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if took, err := fence(t, Delay(&stub{}, time.Second, 0)); err != nil || took != time.Second {
			t.Errorf("%v after %v", err, took)
		}
		seen := map[time.Duration]bool{}
		d := Delay(&stub{}, time.Second, 2*time.Second)
		for range 20 {
			took, err := fence(t, d)
			if err != nil || took < time.Second || took > 3*time.Second {
				t.Errorf("%v after %v", err, took)
			}
			seen[took] = true
		}
		if len(seen) < 2 {
			t.Error("it is always the same time")
		}
	})
}

func TestADelayedFenceThatIsCalledOffDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &stub{}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		time.AfterFunc(time.Second, cancel)
		if err := Delay(d, 2*time.Second, 0).Off(ctx); !errors.Is(err, context.Canceled) || d.offs != 0 {
			t.Errorf("%v after %d orders", err, d.offs)
		}
	})
}

func TestADelayLongerThanItsTimeIsNoSuccess(t *testing.T) {
	d := &stub{}
	if _, err := fence(t, Delay(d, 2*patience, 0)); !errors.Is(err, fencemethods.ErrTimeout) || d.offs != 0 {
		t.Errorf("%v after %d orders", err, d.offs)
	}
}
