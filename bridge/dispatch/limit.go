// SPDX-License-Identifier: GPL-2.0-only

package dispatch

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// A limit is a context for one thing after another. Those of package context allocate when they are
// made, and an order must not: only when a limit has run out or was canceled does the next start
// cost it a channel. Whoever is given it must not keep it for longer than the call.
type limit struct {
	timer *time.Timer

	mu       sync.Mutex // protects the rest
	running  bool
	deadline time.Time
	err      error
	done     chan struct{} // closed when err is set
	serves   bool          // request, which changes only at a start
	request  fencemethods.Request
}

func newLimit() *limit {
	l := &limit{done: make(chan struct{})}
	l.timer = time.AfterFunc(math.MaxInt64, l.expire)
	l.timer.Stop()
	return l
}

// start begins the next thing, which may take this long and serves no request.
func (l *limit) start(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serves = false
	l.begin(d)
}

// startFor is start for what serves a request.
func (l *limit) startFor(d time.Duration, r fencemethods.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serves, l.request = true, r
	l.begin(d)
}

// begin is called with mu held.
func (l *limit) begin(d time.Duration) {
	if l.err != nil {
		l.err, l.done = nil, make(chan struct{})
	}
	l.running = true
	l.deadline = time.Now().Add(d)
	l.timer.Reset(d)
}

// stop says that the thing is over. What the context has become stays visible.
func (l *limit) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = false
	l.timer.Stop()
}

// cancel gives up what is under way. Any goroutine may call it at any time.
func (l *limit) cancel() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finish(context.Canceled)
}

// expire is called by the timer, possibly late: the time may be that of the next thing already.
func (l *limit) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !time.Now().Before(l.deadline) {
		l.finish(context.DeadlineExceeded)
	}
}

// finish is called with mu held.
func (l *limit) finish(err error) {
	if l.running && l.err == nil {
		l.err = err
		close(l.done)
	}
}

// Deadline, Done, Err and Value make it a context.Context.
func (l *limit) Deadline() (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline, true
}

// Done is closed at the deadline and by cancel.
func (l *limit) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

// Err is nil until then.
func (l *limit) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Value knows the request that is served, for fencemethods.RequestOf.
func (l *limit) Value(key any) any {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.serves || !fencemethods.IsRequestKey(key) {
		return nil
	}
	return &l.request
}
