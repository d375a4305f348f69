// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/bpf"
	"github.com/o2fence/o2fence/bpf/symbol"
	"github.com/o2fence/o2fence/bpf/verdict"
)

func TestAWrongCommandLineIsRefusedWithWhatWouldBeRight(t *testing.T) {
	for line, want := range map[string]string{
		"":                                 "one of --pid PID, --comm NAME and -- COMMAND",
		"--pid 1 --comm o2fenced":          "one of --pid PID, --comm NAME and -- COMMAND",
		"--pid 0":                          "above 0",
		"--pid x":                          "see: o2fence-audit --help",
		"--pid 1 --for -1s":                "a time such as 10s",
		"--pid 1 --for 10s --fences 2":     "without --for",
		"--pid 1 --for 10s --within 1m":    "without --for",
		"--pid 1 --after 1s":               "goes with --for",
		"--pid 1 --fences 0":               "1 or more",
		"--pid 1 --wait 0s":                "a time such as 100ms",
		"--pid 1 --claim -1":               "KiB, 0 or more",
		"--pid 1 --buffer 5":               "a power of two, from 4",
		"--pid 1 --live --json":            "choose one",
		"--pid 1 --colour":                 "unknown flag: --colour",
		"--claim 5 --svg /tmp/picture.svg": "one of --pid PID",
	} {
		root := newRoot(&tool{})
		root.SetArgs(strings.Fields(line))
		err := root.Execute()
		if exitCode(verdict.None, err) != exitUsage || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestEachOutcomeHasAnExitCodeOfItsOwn(t *testing.T) {
	for _, test := range []struct {
		verdict verdict.Class
		err     error
		want    int
	}{
		{verdict.None, nil, 0},
		{verdict.Bounded, nil, 10},
		{verdict.Forbidden, nil, 11},
		{verdict.Unknown, nil, 12},
		{verdict.None, errors.New("disk full"), 1},
		{verdict.None, usageError{errors.New("what?")}, 2},
		{verdict.None, fmt.Errorf("bpf: %w", bpf.ErrNoBTF), 3},
		{verdict.None, fmt.Errorf("bpf: %w", bpf.ErrNoTracepoint), 3},
		{verdict.None, fmt.Errorf("bpf: %w", bpf.ErrPermission), 4},
		{verdict.None, fmt.Errorf("symbol: %w", symbol.ErrHidden), 4},
		{verdict.None, fs.ErrPermission, 4},
		{verdict.Forbidden, errors.New("disk full"), 1},
	} {
		if got := exitCode(test.verdict, test.err); got != test.want {
			t.Errorf("%v, %v: %d", test.verdict, test.err, got)
		}
	}
}

// sleeper starts a process of a name that no other has.
func sleeper(t *testing.T, name string) int {
	t.Helper()
	cmd := exec.Command("sh", "-c", "printf "+name+" >/proc/$$/comm; echo; read x")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestAProcessIsFoundByItsNameIfItIsTheOnlyOne(t *testing.T) {
	name := fmt.Sprintf("aud%d", os.Getpid())
	if _, err := find(name); err == nil || !strings.Contains(err.Error(), "no process has the name") {
		t.Error(err)
	}
	first := sleeper(t, name)
	if pid, err := find(name); pid != first || err != nil {
		t.Errorf("%d, %v", pid, err)
	}
	second := sleeper(t, name)
	if _, err := find(name); err == nil || !strings.Contains(err.Error(), fmt.Sprint(second)) {
		t.Error(err)
	}
}

func TestAProcessThatDoesNotExistIsAnError(t *testing.T) {
	if _, err := attach(1<<22 - 1); err == nil || !strings.Contains(err.Error(), "there is no process") {
		t.Error(err)
	}
}

func report() *verdict.Report {
	log := symbol.Frame{Func: "main.log", File: "/src/daemon/main.go", Line: 42, Go: true}
	return &verdict.Report{
		Verdict: verdict.Forbidden, Reasons: []string{"3 forbidden events", "1 events were lost"},
		Program: "daemon", PID: 12, Windows: 2, Watched: 12345678 * time.Nanosecond, Lost: 1, ClaimKiB: 64, TakenKiB: 3,
		Sites: []*verdict.Site{
			{
				Class: verdict.Forbidden, Why: "it may wait for a disk", Kind: "file access", Blame: log.String(),
				Count: 2, Comm: "daemon", PID: 12, Syscall: "openat", Text: "/var/log/x", Stack: []symbol.Frame{log},
			},
			{
				Class: verdict.Forbidden, Why: "for a lock or a disk", Kind: "long wait", Blame: log.String(),
				Count: 1, Comm: "daemon", PID: 12, Longest: 1234 * time.Millisecond,
			},
			{
				Class: verdict.Bounded, Why: "from the reserve", Kind: "slab allocation", Blame: "o2fence_tell [o2fence]",
				Count: 1, Bytes: 512, Comm: "o2fence/1", PID: 7, Kernel: true, Flagged: true, GFP: "GFP_NOWAIT",
			},
			{
				Class: verdict.Bounded, Why: "from the reserve", Kind: "slab allocation", Blame: "o2fence_tell [o2fence]",
				Count: 2, Bytes: 20480, Comm: "o2fence/1", PID: 7, Kernel: true, Flagged: true, GFP: "GFP_ATOMIC",
			},
		},
	}
}

const printed = `FORBIDDEN: 3 forbidden events; 1 events were lost
daemon (12), what it started, and o2fence/*: 2 windows, 12.35ms; 3 KiB of 64 KiB from the reserve; 1 events lost

Forbidden: it may wait for a disk
COUNT  SIZE  WHAT                      THREAD  WHO
    2  -     file access (/var/log/x)  daemon  main.log /src/daemon/main.go:42

Forbidden: for a lock or a disk
COUNT  SIZE    WHAT       THREAD  WHO
    1  1.234s  long wait  daemon  main.log /src/daemon/main.go:42

Bounded: from the reserve
COUNT  SIZE    WHAT             THREAD     WHO
    3  20 KiB  slab allocation  o2fence/1  o2fence_tell [o2fence]
`

func TestAReportIsPrintedTheWorstFirst(t *testing.T) {
	var out bytes.Buffer
	if err := (&tool{out: &out}).print(report()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(printed, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestStacksArePrintedOnRequest(t *testing.T) {
	var out bytes.Buffer
	if err := (&tool{out: &out, stacks: true}).print(report()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"forbidden file access, 2 times, by daemon (12)\n    main.log /src/daemon/main.go:42\n",
		"bounded slab allocation, 1 times, by o2fence/1 (7), GFP_NOWAIT, PF_MEMALLOC\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestTheLiveViewShowsWhatFits(t *testing.T) {
	v := &liveView{report: report(), height: 6}
	got := v.content()
	for _, want := range []string{"FORBIDDEN", "so far", "... and 3 more", "q ends it"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if lines := strings.Count(got, "\n") + 1; lines > 6 {
		t.Errorf("%d lines", lines)
	}
}
