// SPDX-License-Identifier: GPL-2.0-only

package fencetest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A recorder is a test whose errors are no errors.
type recorder struct {
	testing.TB
	errors []string
}

func (*recorder) Helper()             {}
func (*recorder) Logf(string, ...any) {}
func (r *recorder) Failed() bool      { return len(r.errors) > 0 }

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestWhatIsLateIsFoundOut(t *testing.T) {
	const allowed = 20 * time.Millisecond
	r := &recorder{TB: t}
	OnTime(r, allowed, func() time.Duration { time.Sleep(2 * allowed); return 2 * allowed })
	if len(r.errors) != 1 {
		t.Errorf("errors %q", r.errors)
	}
	r = &recorder{TB: t}
	OnTime(r, allowed, func() time.Duration { return allowed })
	if len(r.errors) != 0 {
		t.Errorf("on time: errors %q", r.errors)
	}
}

// A process that is stopped for a while is late, whatever it does.
func TestWhatIsLateWithTheMachineIsTriedAgain(t *testing.T) {
	if os.Getenv("O2FENCE_STOPPED") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "O2FENCE_STOPPED=yes")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "attempt 1:") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	const limit = 200 * time.Millisecond
	first := true
	InTime(t, limit, func() {
		if first {
			first = false
			wake := exec.Command("sh", "-c", fmt.Sprintf("sleep 0.5; kill -CONT %d", os.Getpid()))
			if err := wake.Start(); err != nil {
				t.Fatal(err)
			}
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			_ = wake.Wait()
		}
	})
	if first {
		t.Error("nothing was tried")
	}
}
