// SPDX-License-Identifier: GPL-2.0-only

package relay

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/rig"
	"github.com/o2fence/o2fence/test/vm"
)

// bounded is the exit code of o2fence-audit for a process that took only what cannot wait, and no more
// than its claim.
const bounded = 10

// An audit watches a process in a machine.
type audit struct {
	process  *vm.Process
	out, err text
}

// watch starts o2fence-audit, and returns when it watches.
func watch(ctx context.Context, t *testing.T, r *rig.Rig, m *vm.VM, args ...string) *audit {
	t.Helper()
	a := &audit{}
	var err error
	a.process, err = m.Start(ctx, vm.Command{Args: append([]string{r.Program("o2fence-audit"), "--stacks"}, args...), Stdout: &a.out, Stderr: &a.err})
	check(t, err)
	for !strings.Contains(a.err.String(), "watching") {
		if ctx.Err() != nil {
			t.Fatalf("o2fence-audit does not watch: %s", a.err.String())
		}
		time.Sleep(100 * time.Millisecond)
	}
	return a
}

// isBounded waits for the end of the audit.
func (a *audit) isBounded(ctx context.Context, t *testing.T) {
	t.Helper()
	err := a.process.Wait(ctx)
	if exit, ok := errors.AsType[*vm.ExitError](err); !ok || exit.Code != bounded {
		t.Errorf("o2fence-audit: %v, want exit code %d\n%s%s", err, bounded, a.err.String(), a.out.String())
	}
	verdict, _, _ := strings.Cut(a.out.String(), "\n\n")
	t.Log(verdict)
}

// A text keeps what a program prints.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (x *text) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(b)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}
