// SPDX-License-Identifier: GPL-2.0-only

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// The test's own program is the one inside.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == insideArg {
		Inside(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

// A yard is a running server.
type yard struct {
	*Server
	t      *testing.T
	dir    string // where a jail can see it: it has a /tmp of its own
	ended  chan error
	cancel context.CancelFunc
}

// startYard needs root and cgroup v2; test/agentapi runs these tests in a virtual machine that has both.
func startYard(t *testing.T) *yard {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if err := Available(CGroup); err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("/run", "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	y := &yard{t: t, dir: dir}
	y.start()
	t.Cleanup(func() { y.stop() })
	return y
}

func (y *yard) start() {
	y.t.Helper()
	self, err := os.Executable()
	if err != nil {
		y.t.Fatal(err)
	}
	s, err := Listen(y.socket(), y.cgroup(), self)
	if err != nil {
		y.t.Fatal(err)
	}
	s.Log = y.t.Logf
	ctx, cancel := context.WithCancel(context.Background())
	y.Server, y.cancel, y.ended = s, cancel, make(chan error, 1)
	go func() { y.ended <- s.Serve(ctx) }()
}

func (y *yard) stop() {
	y.t.Helper()
	y.cancel()
	if err := <-y.ended; err != nil {
		y.t.Error(err)
	}
	y.ended <- nil
}

func (y *yard) socket() string { return filepath.Join(y.dir, "socket") }

func (y *yard) cgroup() string { return filepath.Join(filepath.Dir(CGroup), "o2fence-test") }

var generous = Limits{MinKiB: 16 << 10, MaxKiB: 128 << 10, Processes: 64}

// jail makes one for a shell script.
func (y *yard) jail(limits Limits, script string) *Jail {
	y.t.Helper()
	program := filepath.Join(y.dir, "fence_test")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		y.t.Fatal(err)
	}
	j, err := Open(y.socket(), program, limits)
	if err != nil {
		y.t.Fatal(err)
	}
	y.t.Cleanup(func() { j.Close() })
	return j
}

const patience = 2 * time.Minute // under emulation

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// out is what a script writes to its standard output.
func (y *yard) out(script string) string {
	y.t.Helper()
	r, err := y.jail(generous, script).Run(within(y.t, patience), nil)
	if err != nil || r.End != Exited || r.Code != 0 {
		y.t.Fatalf("%s: %s %d, %v\n%s", script, r.End, r.Code, err, r.Stderr)
	}
	return string(r.Stdout)
}

// inmates are the processes of a jail, as its control group has them.
func (y *yard) inmates() (pids []string) {
	y.t.Helper()
	files, err := filepath.Glob(filepath.Join(y.cgroup(), "*", "cgroup.procs"))
	if err != nil {
		y.t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			y.t.Fatal(err)
		}
		pids = append(pids, strings.Fields(string(text))...)
	}
	return pids
}

func TestAProgramRunsAndItsEndIsTold(t *testing.T) {
	y := startYard(t)
	j := y.jail(generous, `read word; echo "out $word"; echo err >&2; [ "$word" = one ] || kill -15 $$; exit 3`)
	r, err := j.Run(within(t, patience), []byte("one\n"))
	if err != nil || r.End != Exited || r.Code != 3 || string(r.Stdout) != "out one\n" || string(r.Stderr) != "err\n" {
		t.Errorf("%s %d, %q, %q, %v", r.End, r.Code, r.Stdout, r.Stderr, err)
	}
	r, err = j.Run(within(t, patience), []byte("two\n"))
	if err != nil || r.End != Signaled || r.Code != 15 || string(r.Stdout) != "out two\n" {
		t.Errorf("%s %d, %q, %v", r.End, r.Code, r.Stdout, err)
	}
}

func TestAProcessWaitsInTheJailBeforeItIsWanted(t *testing.T) {
	y := startYard(t)
	j := y.jail(generous, `true`)
	before := y.inmates()
	if len(before) != 1 {
		t.Fatalf("%d processes wait", len(before))
	}
	if _, err := j.Run(within(t, patience), nil); err != nil {
		t.Fatal(err)
	}
	y.until("another one waits", func() bool { now := y.inmates(); return len(now) == 1 && now[0] != before[0] })
}

// until waits for what the server does after it has answered.
func (y *yard) until(what string, is func() bool) {
	y.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			y.t.Fatalf("%s: never", what)
		}
	}
}

func TestAtTheDeadlineAllIsKilled(t *testing.T) {
	y := startYard(t)
	j := y.jail(generous, `trap '' TERM HUP INT; setsid sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & echo begun; sleep 1000`)
	r := y.runOut(j)
	if r.End != Deadline || string(r.Stdout) != "begun\n" {
		t.Errorf("%s, %q", r.End, r.Stdout)
	}
	y.until("all are dead", func() bool { return len(y.inmates()) == 1 })
}

// runOut has a program run until its time is over. On a machine that is late the program may not have begun
// by then, and the server not have answered: which is no answer either way.
func (y *yard) runOut(j *Jail) (r Result) {
	y.t.Helper()
	const limit = 3 * time.Second
	fencetest.OnTime(y.t, spare, func() time.Duration {
		began := time.Now()
		var err error
		r, err = j.Run(within(y.t, limit), nil)
		took := time.Since(began)
		switch {
		case errors.Is(err, context.DeadlineExceeded), err == nil && len(r.Stdout) == 0:
			return max(took, 2*spare)
		case err != nil:
			y.t.Error(err)
		}
		return took - limit
	})
	return r
}

func TestWhatAProgramLeavesBehindIsKilled(t *testing.T) {
	y := startYard(t)
	y.out(`setsid sleep 1000 >/dev/null 2>&1 &`)
	y.until("all are dead", func() bool { return len(y.inmates()) <= 1 })
}

func TestARunThatNobodyWantsAnyMoreIsKilled(t *testing.T) {
	y := startYard(t)
	j := y.jail(generous, `echo begun; sleep 1000`)
	ctx, cancel := context.WithCancel(within(t, patience))
	time.AfterFunc(time.Second, cancel)
	if _, err := j.Run(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// The late answer to it is not taken for that to the next one.
	if r := y.runOut(j); r.End != Deadline {
		t.Errorf("%s", r.End)
	}
}

func TestOneThatDiedWhileItWaitedIsReplaced(t *testing.T) {
	y := startYard(t)
	j := y.jail(generous, `echo here`)
	pid, err := strconv.Atoi(y.inmates()[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	y.until("it is dead", func() bool { return len(y.inmates()) == 0 })
	if r, err := j.Run(within(t, patience), nil); err != nil || string(r.Stdout) != "here\n" {
		t.Errorf("%s %q, %v", r.End, r.Stdout, err)
	}
}

func TestTheMemoryLimitHolds(t *testing.T) {
	y := startYard(t)
	j := y.jail(Limits{MinKiB: 8 << 10, MaxKiB: 48 << 10, Processes: 64}, `head -c 300000000 /dev/zero | tail -n 1`)
	if r, err := j.Run(within(t, patience), nil); err != nil || r.End != Memory {
		t.Errorf("%s %d, %v", r.End, r.Code, err)
	}
}

func TestTheNumberOfProcessesIsLimited(t *testing.T) {
	y := startYard(t)
	j := y.jail(Limits{MinKiB: 8 << 10, MaxKiB: 128 << 10, Processes: 40},
		`n=0; while [ $n -lt 100 ]; do sleep 100 & n=$((n+1)); done; echo all`)
	r, err := j.Run(within(t, patience), nil)
	if err != nil || r.End != Exited || r.Code == 0 || strings.Contains(string(r.Stdout), "all") {
		t.Errorf("%s %d, %q, %v", r.End, r.Code, r.Stdout, err)
	}
}

func TestTheGuaranteeIsTheJailsAndEndsWithIt(t *testing.T) {
	y := startYard(t)
	minimum := func(path string) string {
		text, err := os.ReadFile(filepath.Join(y.cgroup(), path, "memory.min"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	j := y.jail(generous, `true`)
	y.jail(generous, `true`)
	if all, one := minimum("."), minimum("jail1"); all != fmt.Sprint(2*generous.MinKiB<<10) || one != fmt.Sprint(generous.MinKiB<<10) {
		t.Errorf("memory.min is %s of all and %s of one", all, one)
	}
	j.Close()
	y.until("it is given back", func() bool { return minimum(".") == fmt.Sprint(generous.MinKiB<<10) })
	if _, err := os.Stat(filepath.Join(y.cgroup(), "jail1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the group is still there: %v", err)
	}
}

func TestAGuaranteeThatAnAncestorDoesNotHaveIsRefused(t *testing.T) {
	y := startYard(t)
	if err := write(y.cgroup(), "cgroup.subtree_control", controllers); err != nil {
		t.Fatal(err)
	}
	between := filepath.Join(y.cgroup(), "between")
	if err := os.Mkdir(between, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(between)
	below, err := newTree(filepath.Join(between, "below"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(below.path)
	if _, err := below.add(generous); err == nil || !strings.Contains(err.Error(), "raise its memory.min") {
		t.Errorf("%v", err)
	}
}

func TestAProgramSeesAndChangesOnlyItsJail(t *testing.T) {
	t.Setenv("PASSWORD", "hunter2")
	y := startYard(t)
	for script, want := range map[string]string{
		`env | sort | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=`:                 "HOME=/\nLC_ALL=C\nMIBS=\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nTERM=dumb\n",
		`touch /etc/o2fence-test /run/o2fence-test 2>/dev/null && echo written; true`: "",
		`ls /tmp; touch /tmp/mine && echo ok`:                                         "ok\n",
		`mount -o remount,rw / 2>/dev/null && echo remounted; true`:                   "",
		`echo $$ > /sys/fs/cgroup/cgroup.procs 2>/dev/null && echo moved; true`:       "",
		`ls -d /proc/[0-9]* | wc -l | { read n; [ $n -lt 10 ] && echo few; }`:         "few\n",
		`ulimit -c`:                    "0\n",
		`cat /proc/self/oom_score_adj`: "-999\n",
		`awk '/NoNewPrivs/ {print $2}' /proc/self/status`: "1\n",
		`ls -l /proc/self/fd | grep -c -e socket`:         "",
	} {
		if strings.Contains(script, "grep -c") {
			script += "; true"
			want = "0\n"
		}
		if got := y.out(script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
}

func TestAProgramCanMakeItselfATerminal(t *testing.T) {
	y := startYard(t)
	const script = `exec /usr/bin/python3 -c 'import pty; pty.spawn(["/usr/bin/tty"])'`
	if got := y.out(script); !strings.HasPrefix(got, "/dev/pts/0") {
		t.Errorf("the terminal is %q", got)
	}
}

func TestAServerThatIsStartedAnewIsFoundAgain(t *testing.T) {
	y := startYard(t)
	j := y.jail(generous, `echo again`)
	y.stop()
	<-y.ended
	if _, err := j.Run(within(t, patience), nil); !errors.Is(err, ErrNoServer) {
		t.Errorf("without a server: %v", err)
	}
	y.start()
	if r, err := j.Run(within(t, patience), nil); err != nil || string(r.Stdout) != "again\n" {
		t.Errorf("%q, %v", r.Stdout, err)
	}
}

func TestTwoServersDoNotShareASocket(t *testing.T) {
	y := startYard(t)
	if _, err := Listen(y.socket(), y.cgroup(), "/bin/true"); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("%v", err)
	}
}

func TestWhatAnEarlierServerLeftIsKilled(t *testing.T) {
	y := startYard(t)
	left := filepath.Join(y.cgroup(), "left")
	if err := os.Mkdir(left, 0o755); err != nil {
		t.Fatal(err)
	}
	y.stop()
	<-y.ended
	y.start()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestAProgramThatOthersCanChangeIsRefused(t *testing.T) {
	y := startYard(t)
	program := filepath.Join(y.dir, "fence_loose")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for mode, text := range map[os.FileMode]string{0o777: "others than root", 0o644: "executable"} {
		if err := os.Chmod(program, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(y.socket(), program, generous); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), text) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := Open(y.socket(), filepath.Join(y.dir, "none"), generous); !errors.Is(err, ErrRefused) {
		t.Errorf("no file: %v", err)
	}
}
