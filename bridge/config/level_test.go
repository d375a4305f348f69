// SPDX-License-Identifier: GPL-2.0-only

package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/o2fence/o2fence/bridge/config"
)

const twoStrips = `fence:
	node = web1
	level = all
	timeout_ms = 15000
	method = psu
	addr = 10.0.1.8
	outlet = 3
	method = psu
	addr = 10.0.1.9
	outlet = 3
	retries = 2
	level = any
	method = listen
	method = ipmi
	addr = 10.0.1.1
	user = fence
	after_ms = 5000
	retries = 3
	backoff_ms = 200
	level = one
	method = test
	method = watchdog
`

// stepsOf parses a stanza of web1 and returns its steps.
func stepsOf(t *testing.T, fence string) []config.Step {
	t.Helper()
	return parse(t, fence).Clusters[0].Nodes[0].Steps
}

func TestALevelIsOneMethodToTheKernel(t *testing.T) {
	const params = "addr=10.0.1.9\noutlet=3\n\nbackoff_ms=1000\nretries=2\n"
	want := []config.Step{
		{Method: "psu+psu", TimeoutMS: 15000, Level: config.All, Members: []config.Step{
			{Method: "psu", TimeoutMS: 15000, Params: []byte("addr=10.0.1.8\noutlet=3\n")},
			{Method: "psu", TimeoutMS: 15000, Params: []byte(params), Retries: 2, BackoffMS: 1000},
		}},
		{Method: "listen|ipmi", TimeoutMS: 20000, Level: config.Any, Members: []config.Step{
			{Method: "listen", TimeoutMS: 20000},
			{
				Method: "ipmi", TimeoutMS: 20000, AfterMS: 5000, Retries: 3, BackoffMS: 200,
				Params: []byte("addr=10.0.1.1\nuser=fence\n\nafter_ms=5000\nbackoff_ms=200\nretries=3\n"),
			},
		}},
		{Method: "test", TimeoutMS: 20000},
		{Method: "watchdog", TimeoutMS: 86400000},
	}
	got := stepsOf(t, twoStrips)
	digests := cmp.FilterPath(func(p cmp.Path) bool { return len(p) < 4 && p.Last().String() == ".Params" }, cmp.Ignore())
	if diff := cmp.Diff(want, got, digests, cmpopts.IgnoreFields(config.Step{}, "Values"), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, s := range got[:2] {
		if text := string(s.Params); len(text) != len("sha256=")+64+1 || !strings.HasPrefix(text, "sha256=") {
			t.Errorf("%s has the parameters %q", s.Method, text)
		}
	}
	var names []string
	for _, s := range parse(t, twoStrips).Clusters[0].Nodes[0].Devices() {
		names = append(names, s.Method)
	}
	if diff := cmp.Diff([]string{"psu", "psu", "listen", "ipmi", "test", "watchdog"}, names); diff != "" {
		t.Error(diff)
	}
}

// The bridge tells by them whether its configuration is the one that was joined with.
func TestParametersOfALevelChangeWithAnythingInIt(t *testing.T) {
	seen := map[string]string{}
	for name, change := range map[string][2]string{
		"nothing":        {"", ""},
		"an address":     {"10.0.1.8", "10.0.1.7"},
		"another outlet": {"outlet = 3\n\tretries", "outlet = 4\n\tretries"},
		"the retries":    {"retries = 2", "retries = 1"},
		"no retries":     {"\tretries = 2\n", ""},
		"the order":      {"addr = 10.0.1.8\n\toutlet = 3\n\tmethod = psu\n\taddr = 10.0.1.9", "addr = 10.0.1.9\n\toutlet = 3\n\tmethod = psu\n\taddr = 10.0.1.8"},
		"the rule":       {"level = all", "level = any"},
	} {
		s := stepsOf(t, strings.Replace(twoStrips, change[0], change[1], 1))[0]
		if other, same := seen[string(s.Params)]; same {
			t.Errorf("%s: the same parameters as with %s", name, other)
		}
		seen[string(s.Params)] = name
	}
	if seen[string(stepsOf(t, twoStrips)[0].Params)] != "nothing" {
		t.Error("the same configuration has other parameters the second time")
	}
}

func TestADelayIsOfTheFirstMethodAndMakesItsTimeLonger(t *testing.T) {
	steps := stepsOf(t, "fence:\n\tnode = web1\n\tdelay_ms = 900\n\tdelay_random_ms = 90\n\tmethod = test\n\tmethod = test\n\tmethod = manual\n")
	want := []config.Step{
		{
			Method: "test", TimeoutMS: 21100, DelayMS: 900, DelayRandomMS: 90,
			Params: []byte("\ndelay_ms=900\ndelay_random_ms=90\n"),
		},
		{Method: "test", TimeoutMS: 20000},
		{Method: "manual", TimeoutMS: 86400000},
	}
	if diff := cmp.Diff(want, steps, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// With the defaults, a node is silent for 10 s when the order comes, and has reset itself after 62.5 s.
func TestTheWatchdogEndsWhatHasNotEnded(t *testing.T) {
	const list = "fence:\n\tnode = web1\n\tuntil = watchdog\n\tmethod = test\n\ttimeout_ms = 30000\n\tmethod = test\n\ttimeout_ms = 30000\n\tmethod = watchdog\n"
	c := parse(t, list)
	n := c.Clusters[0].Nodes[0]
	if n.Steps[0].TimeoutMS != 30000 || n.Steps[1].TimeoutMS != 22500 {
		t.Errorf("steps %+v", n.Steps)
	}
	const want = "fence.conf:3: node web1: until = watchdog: test gets 22500 ms instead of 30000"
	if got := texts(c.Warnings); !slices.Contains(got, want) {
		t.Errorf("warnings %q", got)
	}
	if diff := cmp.Diff([]uint64{30000, 52500, 52500}, c.Clusters[0].EndsMS(n)); diff != "" {
		t.Error(diff)
	}
}

func TestTheWorstCaseIsTheSumOfAllTimes(t *testing.T) {
	for name, test := range map[string]struct {
		methods string
		want    []uint64
	}{
		"the watchdog waits no longer than it must": {"method = test\n\tmethod = watchdog", []uint64{20000, 52500}},
		"and not at all when it may be believed": {
			"method = test\n\ttimeout_ms = 60000\n\tmethod = watchdog", []uint64{60000, 60000},
		},
		"a wait begins with its turn": {"method = test\n\tmethod = watchdog\n\twait = 70000", []uint64{20000, 90000}},
		"an administrator has a day":  {"method = test\n\tmethod = manual", []uint64{20000, 86420000}},
		"a level is one":              {"level = all\n\tmethod = test\n\tmethod = test\n\tlevel = one\n\tmethod = watchdog", []uint64{20000, 52500}},
	} {
		c := parse(t, "fence:\n\tnode = web1\n\t"+test.methods+"\n").Clusters[0]
		if diff := cmp.Diff(test.want, c.EndsMS(c.Nodes[0])); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
