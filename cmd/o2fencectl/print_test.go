// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods/ask"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares what print writes with a file of testdata.
func golden(t *testing.T, name string, print func(*tool)) {
	t.Helper()
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	var out strings.Builder
	print(&tool{out: &out})
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestTablesFitTheTerminal(t *testing.T) {
	for _, name := range []string{"status.txt", "history.txt", "methods.txt", "check.txt", "plan.txt", "grants.txt"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if width := len(strings.TrimRight(line, "\n")); width > lineWidth || strings.HasSuffix(line, " \n") {
				t.Errorf("%s: %d columns: %q", name, width, line)
			}
		}
	}
}

func at(seconds float64) time.Time {
	return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

// fenced, failing and failed are requests as the kernel tells them.
var (
	fenced = kernel.Request{
		Cluster: "web", Node: 2, Incarnation: 0xabc, ID: 3, Attempt: 1, State: uapi.EventNotice, Method: "ipmi",
		Reason: "missed its heartbeats",
		At: map[uapi.Event]time.Time{
			uapi.EventSilent: at(0), uapi.EventStarted: at(0.1), uapi.EventInitiated: at(0.11),
			uapi.EventFenced: at(1.3), uapi.EventNotice: at(1.35),
		},
	}
	failing = kernel.Request{
		Cluster: "web", Node: 3, ID: 4, Attempt: 2, State: uapi.EventInitiated, Method: "watchdog",
		Reason: "missed its heartbeats",
		At:     map[uapi.Event]time.Time{uapi.EventStarted: at(20), uapi.EventInitiated: at(30)},
	}
	failed = kernel.Request{
		Cluster: "web", Node: 1, ID: 2, Attempt: 3, State: uapi.EventFailed, Method: "manual", Errno: syscall.ETIMEDOUT,
		Errmsg: "ipmi web1: off: unreachable: no answer from 192.0.2.11:623; check the address and the network",
		Reason: "ordered by root@web2: it answers nothing on the console since the power supply was changed",
		At:     map[uapi.Event]time.Time{uapi.EventStarted: at(-3600), uapi.EventFailed: at(-3000.5)},
	}
)

func stepsOf(methods ...string) []kernel.Step {
	var all []kernel.Step
	for _, m := range methods {
		all = append(all, kernel.Step{Method: m, TimeoutMS: 20000})
	}
	return all
}

func testStatus() *Status {
	node := func(number uint32, name string, last *kernel.Request, methods ...string) NodeStatus {
		return NodeStatus{Name: name, Node: kernel.Node{Cluster: "web", Number: number, Steps: stepsOf(methods...), Last: last}}
	}
	silent := &kernel.Request{Cluster: "web", Node: 4, At: map[uapi.Event]time.Time{uapi.EventSilent: at(40)}}
	carried := []kernel.Method{{Name: "ipmi", Module: "o2fence", PortID: 7}, {Name: "snmp+snmp", Module: "o2fence"}, {Name: "watchdog", Module: "o2fence_methods"}}
	levels := node(5, "web5", nil, "snmp+snmp", "watchdog")
	levels.Uncarried = uncarried(levels.Steps, carried)
	return &Status{
		Clusters: []ClusterStatus{{Name: "web", Fencing: 1}},
		Nodes: []NodeStatus{
			node(1, "web1", nil, "ipmi", "watchdog"),
			node(2, "web2", &fenced, "ipmi", "watchdog"),
			node(3, "web3", &failing, "ipmi", "watchdog"),
			node(4, "web4", silent, "watchdog"),
			levels,
		},
		Regions: []kernel.Region{
			{Cluster: "web", UUID: "A", Rules: kernel.Rules{Missed: 5, PeriodMS: 2000}, Live: []uint32{1, 4}, Silent: []uint32{3, 4}},
			{Cluster: "other", UUID: "B", Rules: kernel.Rules{Missed: 3, PeriodMS: 2000}, Live: []uint32{2}, Silent: []uint32{}},
		},
		Mounts: []MountStatus{
			{Point: "/srv", Source: "/dev/sda1", Regions: []string{"A"}, Protected: true},
			{Point: "/home", Source: "/dev/sdb1", Regions: []string{"C"}},
		},
	}
}

func TestStatusForPeople(t *testing.T) {
	golden(t, "status.txt", func(t *tool) { t.printStatus(testStatus()) })
}

func TestStatusOfNothingForPeople(t *testing.T) {
	golden(t, "status-nothing.txt", func(t *tool) { t.printStatus(&Status{}) })
}

func TestHistoryForPeople(t *testing.T) {
	names := map[uint32]string{1: "web1", 2: "web2"}
	golden(t, "history.txt", func(t *tool) {
		t.printHistory([]kernel.Request{fenced, failed}, func(_ string, n uint32) string { return names[n] })
	})
}

func TestMethodForPeople(t *testing.T) {
	all := known()
	all[0].Module, all[0].Carried = "o2fence_methods", true
	all[3].Module, all[3].Used = "o2fence", true
	all = append(all, MethodStatus{Name: "ipmi|kdump", Module: "o2fence", Left: true}, MethodStatus{Name: "snmp+snmp", Module: "o2fence", Left: true})
	golden(t, "methods.txt", func(t *tool) {
		t.printMethods(all)
		t.printParams(all[2].Params)
	})
}

func TestChecksForPeople(t *testing.T) {
	golden(t, "check.txt", func(o *tool) {
		err := o.printChecks([]Check{
			{Node: "web1", Level: 1, Method: "ipmi", OK: true, State: "on", MS: 42},
			{Node: "web1", Level: 2, Method: "watchdog", OK: true, State: "unknown"},
			{Node: "web2", Level: 1, Method: "ipmi", State: "unknown", MS: 20000, Error: failed.Errmsg},
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestPlansForPeople(t *testing.T) {
	psu := config.Step{Method: "snmp", TimeoutMS: 31100, Retries: 2, BackoffMS: 1000}
	cluster := &config.Cluster{Missed: 5, PeriodMS: 2000, Threshold: 31, Nodes: []config.Node{{
		Name: "web1", Steps: []config.Step{
			{
				Method: "snmp+snmp", TimeoutMS: 31100, DelayMS: 9000, DelayRandomMS: 1000, Level: config.All,
				Members: []config.Step{psu, {Method: "snmp", TimeoutMS: 31100}},
			},
			{Method: "watchdog", TimeoutMS: 86400000},
		},
	}, {
		Name: "web2", Steps: []config.Step{
			{
				Method: "kdump|ipmi", TimeoutMS: 30000, Level: config.Any,
				Members: []config.Step{{Method: "kdump"}, {Method: "ipmi", AfterMS: 15000}},
			},
			{Method: "test", TimeoutMS: 20000},
			{Method: "manual", TimeoutMS: 86400000},
		},
	}}}
	golden(t, "plan.txt", func(o *tool) {
		o.printPlans(append(planOf(cluster, cluster.Nodes[0]), planOf(cluster, cluster.Nodes[1])...))
	})
}

func TestEventsForPeople(t *testing.T) {
	golden(t, "events.txt", func(o *tool) {
		say := func(e kernel.Event, name string) {
			if err := o.printEvent(e, name); err != nil {
				t.Error(err)
			}
		}
		for _, e := range []uapi.Event{uapi.EventSilent, uapi.EventStarted, uapi.EventInitiated, uapi.EventFenced, uapi.EventNotice} {
			say(kernel.Event{Event: e, Request: fenced}, "web2")
		}
		say(kernel.Event{Event: uapi.EventFailed, Request: failed}, "web1")
		attempt := failed
		attempt.At = map[uapi.Event]time.Time{uapi.EventAttemptFailed: at(-3100)}
		say(kernel.Event{Event: uapi.EventAttemptFailed, Request: attempt}, "web1")
		say(kernel.Event{Lost: true}, "")
	})
}

// Other programs read these, so that a key must not change.
func TestJSONKeys(t *testing.T) {
	golden(t, "status.json", func(o *tool) {
		if err := o.printJSON(testStatus()); err != nil {
			t.Error(err)
		}
	})
	golden(t, "history.json", func(o *tool) {
		if err := o.printJSON([]kernel.Request{fenced}); err != nil {
			t.Error(err)
		}
	})
	golden(t, "event.json", func(o *tool) {
		if err := o.printJSONLine(kernel.Event{Event: uapi.EventFenced, Request: fenced}); err != nil {
			t.Error(err)
		}
	})
}

func TestJSONListsAreNeverNull(t *testing.T) {
	for _, v := range []any{known(), &Status{Clusters: []ClusterStatus{}, Nodes: []NodeStatus{}, Regions: []kernel.Region{}, Mounts: []MountStatus{}}} {
		b, err := json.Marshal(v)
		if err != nil || strings.Contains(string(b), "null") {
			t.Errorf("%s, %v", b, err)
		}
	}
}

func TestAMountWithoutProtectionIsBad(t *testing.T) {
	s := testStatus()
	if s.protected() {
		t.Error("all is well, although /home is not protected")
	}
	s.Mounts = s.Mounts[:1]
	if !s.protected() {
		t.Error("not all is well")
	}
}

func TestGrants(t *testing.T) {
	golden(t, "grants.txt", func(c *tool) {
		c.printGrants(memsafe.Account{
			ReserveKiB: 76224, OwnKiB: 67584, ClaimedKiB: 8640, LeftKiB: 180000,
			Grants: []memsafe.Grant{{
				Name: "o2fenced", BudgetKiB: 6592, Sockets: 5,
				Processes: []memsafe.ProcessState{{PID: 812, Threads: 9, Flagged: 9, LockedKiB: 41208}},
			}, {
				Name: "iscsid", BudgetKiB: 2048, Sockets: 3,
				Processes: []memsafe.ProcessState{
					{PID: 900, Threads: 7, Flagged: 7}, {PID: 907, Threads: 1, Flagged: 1, LockedKiB: 5120},
				},
			}, {
				Name: "sh", Processes: []memsafe.ProcessState{{PID: 1200, Threads: 1, Flagged: 1}},
			}},
		})
	})
}

// Between his look at the node and his word, one fence may have ended and another one begun.
func TestNobodyVouchesForAnotherFenceThanHeMeans(t *testing.T) {
	manual := &kernel.Request{ID: 7, Method: config.Manual, State: uapi.EventInitiated}
	for _, c := range []struct {
		request *kernel.Request
		number  uint64
		want    string // "": he may
	}{
		{manual, 0, ""},
		{manual, 7, ""},
		{manual, 6, "node web2 is being fenced by request 7, and not by 6 any more"},
		{nil, 0, "not being fenced"},
		{&kernel.Request{State: 0}, 0, "not being fenced"},
		{&kernel.Request{ID: 7, State: uapi.EventNotice}, 7, "not being fenced"},
		{&kernel.Request{ID: 7, Method: ask.Name, State: uapi.EventInitiated}, 7, "--request"},
		{&kernel.Request{ID: 7, Method: "ipmi|ask", State: uapi.EventInitiated}, 0, "--request"},
	} {
		err := vouchable(c.request, "web2", c.number)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v, %d: %v; want %q", c.request, c.number, err, c.want)
		}
	}
}
