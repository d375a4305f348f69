// SPDX-License-Identifier: GPL-2.0-only

// Package limit has a context that is made once and used for one thing after another. Those of
// package context allocate when they are made, and an order must not. (R19)
package limit

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// A Limit is a context.Context for one thing after another. Only when it has run out or was canceled
// does the next start cost it a channel. Whoever is given it must not keep it for longer than the
// call. Start, StartFor and Stop are for one goroutine at a time, the rest for any.
//
// Its timer runs only for who asks for Done: to set one takes longer than many an order, and whoever
// looks at Err needs none.
type Limit struct {
	timer *time.Timer

	mu       sync.Mutex // protects the rest
	running  bool
	timed    bool // the timer was set
	deadline time.Time
	err      error
	done     chan struct{} // closed when err is set
	serves   bool          // request, which changes only at a start
	request  fencemethods.Request
}

// New makes a Limit for nothing yet.
func New() *Limit {
	l := &Limit{done: make(chan struct{})}
	l.timer = time.AfterFunc(math.MaxInt64, l.expire)
	l.timer.Stop()
	return l
}

// Start begins the next thing, which may take this long and serves no request.
func (l *Limit) Start(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serves = false
	l.begin(d)
}

// StartFor is Start for what serves a request.
func (l *Limit) StartFor(d time.Duration, r fencemethods.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serves, l.request = true, r
	l.begin(d)
}

// begin is called with mu held.
func (l *Limit) begin(d time.Duration) {
	if l.err != nil {
		l.err, l.done = nil, make(chan struct{})
	}
	l.running = true
	l.deadline = time.Now().Add(d)
}

// Stop says that the thing is over. What the context has become stays visible.
func (l *Limit) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = false
	if l.timed {
		l.timed = false
		l.timer.Stop()
	}
}

// Cancel gives up what is under way. Any goroutine may call it at any time.
func (l *Limit) Cancel() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finish(context.Canceled)
}

// expire is called by the timer, possibly late: the time may be that of the next thing already.
func (l *Limit) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
}

// look is called with mu held.
func (l *Limit) look() {
	if l.running && l.err == nil && time.Until(l.deadline) <= 0 {
		l.finish(context.DeadlineExceeded)
	}
}

// finish is called with mu held.
func (l *Limit) finish(err error) {
	if l.running && l.err == nil {
		l.err = err
		close(l.done)
	}
}

// Deadline is that of the thing under way.
func (l *Limit) Deadline() (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline, true
}

// Done is closed at the deadline and by Cancel. It is that of the thing under way: ask again for the
// next one.
func (l *Limit) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running && l.err == nil && !l.timed {
		l.timed = true
		l.timer.Reset(time.Until(l.deadline))
	}
	return l.done
}

// Err is nil until then.
func (l *Limit) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
	return l.err
}

// Value knows the request that is served, for fencemethods.RequestOf.
func (l *Limit) Value(key any) any {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.serves || !fencemethods.IsRequestKey(key) {
		return nil
	}
	return &l.request
}
