// SPDX-License-Identifier: GPL-2.0-only

package ktap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResultsDirectivesAndNoiseAreToldApart(t *testing.T) {
	got := Parse(strings.NewReader(`
[    1.000000] KTAP version 1
[    1.000001][  T12] 1..5
o2dlm: some message in between
<6>[    1.000002] ok 1 register
# expected -EEXIST
not ok 2 - duplicate
ok 3 pins # SKIP no such module: o2cb
not ok 4 timer # TIMEOUT 45 seconds
ok 5
`))
	want := Report{Results: []Result{
		{Name: "register", OK: true},
		{Name: "duplicate", Diagnostics: []string{"expected -EEXIST"}},
		{Name: "pins", OK: true, Skip: true, Reason: "no such module: o2cb"},
		{Name: "timer", Reason: "45 seconds"},
		{Name: "5", OK: true},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSubtestsHangOffTheirParent(t *testing.T) {
	got := Parse(strings.NewReader(`KTAP version 1
1..2
    # Subtest: core
    KTAP version 1
    1..2
      1..1
      ok 1 deep
    ok 1 a
    ok 2 b
ok 1 core
ok 2 glue
`))
	want := Report{Results: []Result{
		{Name: "core", OK: true, Subtests: []Result{
			{
				Name: "a", OK: true, Diagnostics: []string{"Subtest: core"},
				Subtests: []Result{{Name: "deep", OK: true}},
			},
			{Name: "b", OK: true},
		}},
		{Name: "glue", OK: true},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStreamThatProvesNothingIsAProblem(t *testing.T) {
	for name, c := range map[string]struct{ stream, problem string }{
		"silence":           {"", "no KTAP version line"},
		"no version":        {"1..1\nok 1 a\n", "no KTAP version line"},
		"no plan":           {"KTAP version 1\nok 1 a\n", "no plan"},
		"cut off":           {"KTAP version 1\n1..2\nok 1 a\n", "2 planned, 1 reported"},
		"unplanned":         {"KTAP version 1\n1..1\nok 1 a\nok 2 b\n", "1 planned, 2 reported"},
		"number left out":   {"KTAP version 1\n1..2\nok 1 a\nok 3 c\n", "result 3 (c) where 2 was due"},
		"number repeated":   {"KTAP version 1\n1..2\nok 1 a\nok 1 a\n", "result 1 (a) where 2 was due"},
		"two plans":         {"KTAP version 1\n1..1\n1..1\nok 1 a\n", "a second plan: 1..1"},
		"bail out":          {"KTAP version 1\n1..1\nok 1 a\nBail out! no disk\n", "Bail out! no disk"},
		"fault":             {"KTAP version 1\n1..1\n[ 1.2] BUG: sleeping function\nok 1 a\n", "kernel fault: BUG: sleeping function"},
		"subtests cut off":  {"KTAP version 1\n1..1\n  1..2\n  ok 1 a\nok 1 b\n", "subtests: 2 planned, 1 reported"},
		"subtests unbacked": {"KTAP version 1\n1..1\nok 1 a\n  1..1\n  not ok 1 b\n", "results of no test: 1"},
		"subtests no plan":  {"KTAP version 1\n1..1\n  ok 1 a\nok 1 b\n", "subtests: no plan"},
		"overlong line":     {"KTAP version 1\n1..0\n" + strings.Repeat("x", 2<<20), "reading: bufio.Scanner: token too long"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Parse(strings.NewReader(c.stream)).Problems
			if len(got) == 0 || got[0] != c.problem {
				t.Errorf("problems %q, want first %q", got, c.problem)
			}
		})
	}
}

func TestKernelFaultsAreRecognised(t *testing.T) {
	for _, line := range []string{
		"[   12.345678] WARNING: CPU: 0 PID: 1 at kmod/request.c:12 f+0x1/0x2 [o2fence]",
		"[   12.345678] WARNING: possible circular locking dependency detected",
		"BUG: kernel NULL pointer dereference, address: 0000000000000008",
		"watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
		"Oops: 0002 [#1] PREEMPT SMP NOPTI",
		"kernel BUG at mm/slub.c:1!",
		"Kernel panic - not syncing: Fatal exception",
		" Call Trace:",
		"INFO: task mount.ocfs2:123 blocked for more than 120 seconds.",
		"rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
		"BUG: KASAN: slab-use-after-free in f",
		"general protection fault, probably for non-canonical address",
		"refcount_t: underflow; use-after-free.",
	} {
		if !Fault(line) {
			t.Errorf("not recognised: %s", line)
		}
	}
	for _, line := range []string{
		"[    5.1] o2dlm: Node 2 leaves domain",
		"o2cb: o2dlm has evicted node 2 from domain",
		"ocfs2: Mounting device (254,0) on (node 0, slot 0) with ordered data mode.",
		"warning: `sh' uses 32-bit capabilities",
	} {
		if Fault(line) {
			t.Errorf("wrongly recognised: %s", line)
		}
	}
}

func TestPrinterAndParserAgree(t *testing.T) {
	var out bytes.Buffer
	p := NewPrinter(&out, 3)
	p.Result("good", nil)
	p.Result("absent", fmt.Errorf("set-up: %w", Skip("no device")))
	if p.ExitCode() == 0 {
		t.Error("exit code 0 before the plan is fulfilled")
	}
	p.Result("bad", errors.New("first line\nsecond line"))
	want := Report{Results: []Result{
		{Name: "good", OK: true},
		{Name: "absent", OK: true, Skip: true, Reason: "no device"},
		{Name: "bad", Diagnostics: []string{"first line", "second line"}},
	}}
	if diff := cmp.Diff(want, Parse(&out)); diff != "" {
		t.Error(diff)
	}
	if p.ExitCode() != 1 {
		t.Error("exit code 0 after a failure")
	}
}

// streamVariable names, in this test's own second life, the stream that Run is to report.
const streamVariable = "KTAP_TEST_STREAM"

func TestRunReportsSubtests(t *testing.T) {
	if stream, ok := os.LookupEnv(streamVariable); ok {
		Run(t, strings.NewReader(stream))
		return
	}
	for name, c := range map[string]struct {
		stream string
		passes bool
		prints string
	}{
		"ok":      {"KTAP version 1\n1..1\nok 1 a\n", true, "--- PASS: TestRunReportsSubtests/a"},
		"skip":    {"KTAP version 1\n1..1\nok 1 a # SKIP why\n", true, "--- SKIP: TestRunReportsSubtests/a"},
		"not ok":  {"KTAP version 1\n1..1\nnot ok 1 a\n", false, "--- FAIL: TestRunReportsSubtests/a"},
		"nested":  {"KTAP version 1\n1..1\n  1..1\n  not ok 1 b\nok 1 a\n", false, "--- FAIL: TestRunReportsSubtests/a/b"},
		"problem": {"KTAP version 1\n1..2\nok 1 a\n", false, "2 planned, 1 reported"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestRunReportsSubtests$", "-test.v")
			cmd.Env = append(os.Environ(), streamVariable+"="+c.stream)
			out, err := cmd.CombinedOutput()
			if (err == nil) != c.passes || !strings.Contains(string(out), c.prints) {
				t.Errorf("%v, want pass %v and %q in:\n%s", err, c.passes, c.prints, out)
			}
		})
	}
}
