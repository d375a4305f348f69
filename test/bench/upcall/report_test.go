// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/o2fence/o2fence/test/bench/plot"
	"github.com/o2fence/o2fence/test/bench/upcall/sample"
)

// measured is a report of a run in which each way took so many µs for one node, and the two of the
// bridge so many for two.
func measured(us map[string]int64, two ...int64) *report {
	var rounds []sample.Round
	for _, name := range []string{sample.Kernel, sample.Bridge, sample.Waiting, sample.Helper, sample.Pacemaker, sample.Script} {
		rounds = append(rounds, sample.Round{Way: name, Nodes: 1, Fences: []sample.Fence{fence(5, us[name])}})
		if name == sample.Bridge || name == sample.Waiting {
			half := two[0] / 2
			rounds = append(rounds, sample.Round{Way: name, Nodes: 2, Fences: []sample.Fence{fence(0, half), fence(half, half)}})
			two = two[1:]
		}
	}
	return summarize(rounds)
}

// fence is asked for at 0.
func fence(initiated, us int64) sample.Fence {
	return sample.Fence{Initiated: initiated * 1000, Fenced: (initiated + us) * 1000}
}

var good = map[string]int64{
	sample.Kernel: 1, sample.Bridge: 10, sample.Waiting: 100, sample.Helper: 500, sample.Pacemaker: 3000, sample.Script: 4000,
}

func TestEachMissedBarIsNamed(t *testing.T) {
	for _, c := range []struct {
		name    string
		us      int64
		two     int64
		waiting int64
		allocs  error
		want    string
		far     bool
	}{
		{sample.Bridge, 10, 90, 900, nil, "", false},
		{sample.Helper, 499, 90, 900, nil, "usermodehelper's p50", true},
		{sample.Pacemaker, 2999, 90, 900, nil, "pacemaker-fenced's p50", true},
		{sample.Bridge, 10, 100, 900, nil, "bridge: until all of 2", true},
		{sample.Bridge, 10, 90, 1000, nil, "bridge-50ms: until all of 2", false},
		{sample.Bridge, 10, 90, 900, errors.New("1 allocation"), "allocations", false},
	} {
		us := map[string]int64{}
		for name := range good {
			us[name] = good[name]
		}
		us[c.name] = c.us
		r := measured(us, c.two, c.waiting)
		r.bars(c.allocs)
		err := r.failure()
		if c.want == "" && err != nil {
			t.Errorf("all is well, and yet: %v", err)
		}
		if errors.Is(err, errFar) != c.far {
			t.Errorf("%s: %v", c.want, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), ";")) {
			t.Errorf("%s of %d µs, %d µs for two, %v: %v", c.name, c.us, c.two, c.allocs, err)
		}
	}
}

func TestThereIsNoVerdictWithoutAllWays(t *testing.T) {
	r := summarize([]sample.Round{{Way: sample.Bridge, Nodes: 1, Fences: []sample.Fence{fence(0, 1)}}})
	if r.failure() == nil {
		t.Error("it is good")
	}
}

func TestTheTimeUntilAllAreFencedIsThatOfTheRound(t *testing.T) {
	bridge := measured(good, 90, 900).way(sample.Bridge)
	want := atOnce{Nodes: 2, Rounds: 1, US: plot.Summary{P50: 45, P99: 45, Max: 45}, AllUS: plot.Summary{P50: 90, P99: 90, Max: 90}}
	if got := bridge.AtOnce[1]; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := bridge.AskedUS.P50; got != 15 {
		t.Errorf("%v µs since it was asked for, want 15", got)
	}
}
