// SPDX-License-Identifier: GPL-2.0-only

package fencetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	attempts = 10               // that OnTime makes at most
	most     = 8                // times as much as was meant to be enough
	tick     = time.Millisecond // of the timer beside an attempt
)

// OnTime reports an error unless attempt, which returns how late it was, is late by no more than allowed.
//
// A machine that does other things too, or shares its processors with others, makes everything late. So
// an attempt that is late is held against what it has tried only if the machine was not: a bare timer that
// ran in this process all the while was on time, and no thread had to wait for a processor for long, both
// by a tenth of what is allowed. Otherwise nothing was shown, and there is another attempt. There have to
// be only so many: what is late in all of them is late.
func OnTime(t testing.TB, allowed time.Duration, attempt func() (late time.Duration)) {
	t.Helper()
	for n := range attempts {
		var late time.Duration
		machine := besideTimer(func() { late = attempt() })
		switch {
		case late <= allowed:
			return
		case machine <= allowed/10:
			t.Errorf("%v late, and the machine was not: %v are allowed", late, allowed)
			return
		case t.Failed():
			return
		}
		t.Logf("attempt %d: %v late, and the machine by up to %v", n+1, late, machine)
	}
	t.Errorf("late by more than %v in each of %d attempts", allowed, attempts)
}

// InTime is OnTime for what has to end within limit, give or take a tenth.
func InTime(t testing.TB, limit time.Duration, do func()) {
	t.Helper()
	OnTime(t, limit/10, func() time.Duration {
		start := time.Now()
		do()
		return time.Since(start) - limit
	})
}

// EnoughTime does what cannot succeed, and needs some time to find out what is wrong: limit, or more of it
// on a machine that is late itself. Right tells whether it has found out. The last error is returned.
func EnoughTime(t testing.TB, limit time.Duration, right func(error) bool, do func(context.Context) error) (err error) {
	t.Helper()
	for given := limit; given <= most*limit; given *= 2 {
		machine := besideTimer(func() {
			ctx, cancel := context.WithTimeout(t.Context(), given)
			defer cancel()
			err = do(ctx)
		})
		if right(err) || machine <= given/20 {
			break
		}
		t.Logf("%v were not enough, for the machine was late by up to %v: %v", given, machine, err)
	}
	return err
}

// besideTimer does something beside a bare timer, and returns by how much the machine made anything of this
// process late: the timer, or a thread that waited for a processor.
func besideTimer(do func()) (machine time.Duration) {
	var over atomic.Bool
	var timer sync.WaitGroup
	before := waits()
	running := make(chan bool, 1)
	timer.Go(func() {
		for !over.Load() {
			start := time.Now()
			select {
			case running <- true:
			default:
			}
			time.Sleep(tick)
			machine = max(machine, time.Since(start)-tick)
		}
	})
	<-running
	func() {
		defer timer.Wait() // also where do ends the test
		defer over.Store(true)
		do()
	}()
	for thread, waited := range waits() {
		machine = max(machine, waited-before[thread])
	}
	return machine
}

// waits are how long the threads of this process have waited for a processor since they began, by their
// numbers: the second number of a thread's schedstat (Documentation/scheduler/sched-stats.rst), in ns.
// Where the kernel does not count that, there are none.
func waits() map[string]time.Duration {
	files, _ := filepath.Glob("/proc/self/task/*/schedstat")
	all := map[string]time.Duration{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		var ran, waited int64
		if _, err := fmt.Fscan(bytes.NewReader(text), &ran, &waited); err == nil {
			all[strings.Split(file, "/")[4]] = time.Duration(waited)
		}
	}
	return all
}
