// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/pressure/wire"
)

func fences(name, phase string, n int, took time.Duration, ok bool) []wire.Fence {
	var all []wire.Fence
	for range n {
		f := wire.Fence{Fencer: name, Phase: phase, Took: took, OK: ok}
		if !ok {
			f.Why = "i/o timeout"
		}
		all = append(all, f)
	}
	return all
}

// measured is a run in which all is as promised; o2fence's fences under pressure are what is passed.
func measured(pressed ...wire.Fence) *report {
	swap := fences(wire.O2fence, wire.Pressure, 50, 30*time.Millisecond, true)
	calm := fences(wire.O2fence, wire.Calm, 20, 10*time.Millisecond, true)
	pressed = append(pressed, fences(wire.Shell, wire.Pressure, 50, 15*time.Second, false)...)
	return &report{
		Fencers: summarize(calm, pressed, swap),
		Scenes:  []scene{{Name: "one", Pressure: newConditions([]wire.Sample{{Stuck: 2}}), VictimOff: true, WritersWentOn: true}},
	}
}

func TestWhatIsPromisedIsChecked(t *testing.T) {
	good := fences(wire.O2fence, wire.Pressure, 50, 30*time.Millisecond, true)
	if err := measured(good...).failure(); err != nil {
		t.Errorf("all is well, and: %v", err)
	}
	nothing := measured(good...)
	nothing.Scenes[0].Pressure = conditions{}
	alive := measured(good...)
	alive.Scenes[0].VictimOff = false
	complaint := measured(good...)
	complaint.Scenes[0].Faults = []string{"BUG"}
	for want, r := range map[string]*report{
		"99 of 100":            measured(append(good[1:50:50], fences(wire.O2fence, wire.Pressure, 1, time.Millisecond, false)...)...),
		"3.1 times":            measured(append(good[1:50:50], fences(wire.O2fence, wire.Pressure, 1, 31*time.Millisecond, true)...)...),
		"nothing was measured": {},
		"nothing was stuck":    nothing,
		"was not fenced":       alive,
		"complains: BUG":       complaint,
	} {
		if err := r.failure(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestAFenceThatFailedCountsWithItsTimeAndItsReason(t *testing.T) {
	for _, f := range measured().Fencers {
		if f.Name != wire.Shell {
			continue
		}
		if f.Fences != 50 || f.Succeeded != 0 || f.MS.With.P50 != 15_000 || f.Failures["i/o timeout"] != 50 {
			t.Errorf("%+v", f)
		}
	}
}
