// SPDX-License-Identifier: GPL-2.0-only

package fencetest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/fencemethods"
)

// WithinBudget measures what an operation that has to fail allocates until its time is over, and reports
// an error when that is more than m's MemoryKiB in a minute. What was allocated before, once for all, is
// added as first. Whatever serves the device has to be in another process; see Apart.
func WithinBudget(t *testing.T, m fencemethods.Method, first uint64, limit time.Duration, op func(context.Context) error) {
	t.Helper()
	memsafe.StartThreads(threads) // as o2fenced does: the runtime would start one now and then, and that is not m's
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var err error
	allocated := Allocated(func() { err = op(ctx) })
	if err == nil {
		t.Error("FALSE SUCCESS")
	}
	perMinute := first + allocated*uint64(time.Minute)/uint64(limit)
	t.Logf("%d KiB a minute", perMinute>>10)
	if budget := uint64(m.MemoryKiB) << 10; perMinute > budget {
		t.Errorf("%d bytes a minute, more than the %d of MemoryKiB", perMinute, budget)
	}
}

// threads are more than an operation has blocked in system calls.
const threads = 8

// Allocated is how many bytes of heap f takes, and whatever else runs meanwhile.
func Allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Apart runs this test binary once more, as the server of a device, so that what that allocates is not
// counted. The environment's setting and the arguments tell its TestMain to serve; what it prints first
// is scanned into said. The server has to end with its standard input, for which ServeUntilTheEnd is.
func Apart(t testing.TB, setting string, args []string, said ...any) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), setting)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	if _, err := fmt.Fscan(stdout, said...); err != nil {
		t.Fatal(err)
	}
}

// ServeUntilTheEnd says what Apart waits for, and returns when its process is to end.
func ServeUntilTheEnd(say ...any) {
	fmt.Println(say...)
	_, _ = io.Copy(io.Discard, os.Stdin)
}
