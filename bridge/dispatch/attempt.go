// SPDX-License-Identifier: GPL-2.0-only

package dispatch

import (
	"context"
	"sync"
	"time"
)

// An attempt is the context of one order. Those of package context allocate when they are made, and
// an order must not; so an attempt is made beforehand and started when the order comes.
type attempt struct {
	deadline time.Time
	timer    *time.Timer
	done     chan struct{}
	once     sync.Once

	mu  sync.Mutex
	err error
}

func newAttempt() *attempt {
	a := &attempt{done: make(chan struct{})}
	a.timer = time.AfterFunc(time.Hour, func() { a.finish(context.DeadlineExceeded) })
	a.timer.Stop()
	return a
}

// start begins the attempt's time.
func (a *attempt) start(d time.Duration) {
	a.deadline = time.Now().Add(d)
	a.timer.Reset(d)
}

// cancel ends it early. It may be called by any goroutine, also after the end.
func (a *attempt) cancel() { a.finish(context.Canceled) }

func (a *attempt) finish(err error) {
	a.once.Do(func() {
		a.timer.Stop()
		a.mu.Lock()
		a.err = err
		a.mu.Unlock()
		close(a.done)
	})
}

// Deadline, Done, Err and Value make it a context.Context.
func (a *attempt) Deadline() (time.Time, bool) { return a.deadline, true }

// Done is closed at the deadline or when the kernel does not want the answer any more.
func (a *attempt) Done() <-chan struct{} { return a.done }

// Err is nil until then.
func (a *attempt) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Value knows nothing.
func (a *attempt) Value(any) any { return nil }
