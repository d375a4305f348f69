// SPDX-License-Identifier: GPL-2.0-only

package level

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/limit"
)

type op int

const (
	off op = iota
	on
	status
	check
)

// A member carries out one order at a time, in a goroutine of its own. That one reads op, and writes
// state and err, between an order and its end; the level's caller has them otherwise.
type member struct {
	Member
	limit *limit.Limit
	wake  chan struct{} // holds one: an order; closed at the end
	now   chan struct{} // holds one: do not wait for After
	timer *time.Timer

	op    op
	state fencemethods.State
	err   error
	note  fencemethods.Note // its own: of a fence that another has proven, it is no part

	// The level's caller's own.
	busy    bool // has not ended what was last ordered
	late    bool // and that is an earlier operation's: the present one is to be ordered
	waited  bool // the operation under way waits for it
	unended bool // in vain
}

func newMember(m Member) *member {
	return &member{
		Member: m, limit: limit.New(), timer: idleTimer(),
		wake: make(chan struct{}, 1), now: make(chan struct{}, 1),
	}
}

func (m *member) serve(ended chan<- *member) {
	for range m.wake {
		m.carryOut()
		ended <- m
	}
}

func (m *member) carryOut() {
	m.state = fencemethods.Unknown
	switch m.op {
	case off:
		if m.err = m.holdBack(); m.err == nil {
			m.err = m.Device.Off(m.limit)
		}
	case on:
		m.err = m.switchOn()
	case status:
		m.state, m.err = m.Device.Status(m.limit)
	case check:
		m.err = m.Device.Check(m.limit)
	}
}

// switchOn leaves alone what is not off: a level that has failed half-way has switched off some.
func (m *member) switchOn() error {
	state, err := m.Device.Status(m.limit)
	if err != nil || state != fencemethods.Off {
		return err
	}
	return m.Device.On(m.limit)
}

// holdBack waits for a member's turn. With an error there is nothing to be done any more.
func (m *member) holdBack() error {
	if m.After > 0 {
		m.timer.Reset(m.After)
		select {
		case <-m.timer.C:
		case <-m.now:
		case <-m.limit.Done():
		}
		m.timer.Stop()
	}
	return m.limit.Err()
}

// order begins an operation. A member that is still busy with an earlier one has its turn when that
// has ended.
func (l *level) order(ctx context.Context, o op) {
	l.op, l.began, l.over = o, time.Now(), false
	l.grace.Stop()
	for l.collect() {
	}
	for _, m := range l.members {
		m.waited, m.unended, m.late = true, false, m.busy
		if !m.busy {
			m.err = nil
			m.begin(ctx, o)
		}
	}
}

// collect takes note of a member that has ended since the operation that it was ordered for.
func (l *level) collect() bool {
	select {
	case m := <-l.ended:
		m.end()
		return true
	default:
		return false
	}
}

func (m *member) begin(ctx context.Context, o op) {
	select {
	case <-m.now: // of an earlier operation
	default:
	}
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	if r, ok := fencemethods.RequestOf(ctx); ok && o == off {
		m.note.Take()
		r.Note = &m.note
		m.limit.StartFor(left, r)
	} else {
		m.limit.Start(left)
	}
	m.op, m.busy = o, true
	m.wake <- struct{}{}
}

func (m *member) end() {
	m.limit.Stop()
	m.busy = false
}

// vouch passes on whose word the member's proof rests on, if it does.
func (m *member) vouch(ctx context.Context) {
	if text := m.note.Take(); text != "" {
		fencemethods.Vouch(ctx, text)
	}
}

// graceOf is for what members say when their time is up, which is when the level's is: a twentieth.
func (l *level) graceOf(deadline time.Time) time.Duration { return deadline.Sub(l.began) / 20 }

// next waits until a member has ended what was ordered, and returns nil when there is no more time
// for that, or it was called off.
func (l *level) next(ctx context.Context) *member {
	done := ctx.Done()
	if l.over {
		done = nil
	}
	for {
		select {
		case m := <-l.ended:
			m.end()
			if !m.late {
				m.waited = false
				return m
			}
			m.late, m.err = false, nil
			m.begin(ctx, l.op)
		case <-done:
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil
			}
			deadline, _ := ctx.Deadline()
			l.grace.Reset(l.graceOf(deadline))
			done, l.over = nil, true
		case <-l.grace.C:
			return nil
		}
	}
}

// each has all members carry something out, and tells whether all have ended.
func (l *level) each(ctx context.Context, o op) bool {
	l.order(ctx, o)
	for range l.members {
		if l.next(ctx) == nil {
			l.callOff()
			return false
		}
	}
	return true
}

// callOff has the members that have not ended do so, and does not wait for them.
func (l *level) callOff() {
	for _, m := range l.members {
		m.late = false
		if m.busy {
			m.limit.Cancel()
		}
	}
}

// hurry has the member that would begin next do so when all that have begun have ended: without a proof,
// or they would not be asked for another.
func (l *level) hurry() {
	elapsed := time.Since(l.began)
	next := time.Duration(math.MaxInt64)
	for _, m := range l.members {
		if m.waited {
			next = min(next, m.After)
		}
	}
	for _, m := range l.members {
		if m.waited && m.After == next && next > elapsed {
			select {
			case m.now <- struct{}{}:
			default:
			}
		}
	}
}

func idleTimer() *time.Timer {
	t := time.NewTimer(0)
	t.Stop()
	return t
}

// sleep returns false, at once, when d is not over before the context is.
func sleep(ctx context.Context, t *time.Timer, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ctx.Err() != nil || ok && time.Until(deadline) <= d {
		return false
	}
	t.Reset(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
