// SPDX-License-Identifier: GPL-2.0-only

// Package level has what stands between one attempt of the kernel's and the devices: several devices
// that act at once (a level), one that is tried again (Retry), one that begins later (Delay).
//
// A level of rule All has fenced the node when every member has: a node with two power supplies is off
// when both are without power. One of rule Any has fenced it when the first member has, and calls the
// others off. Either has one deadline, over all.
//
// Each member has a goroutine, a context and a place for one order from the start, so that nothing is
// started or allocated at fence time (R19). A member that does not end in spite of its deadline holds
// up nobody: the level answers without it, and orders nothing of it before it has ended.
package level

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// A Rule says how many members have to prove that the node is off.
type Rule int

// All want every member's proof, Any the earliest.
const (
	All Rule = iota
	Any
)

// A Member is one device of a level.
type Member struct {
	Name   string              // for error texts, such as "snmp 192.0.2.21"
	Device fencemethods.Device // of Method.Open; the level closes it

	// After is how much later than the level it begins, in one of rule Any: time for a kdump kernel to
	// speak before the power is cut, say. When all that have begun have failed it does not wait.
	After time.Duration
}

// Method describes a level as the method that the kernel knows under name. Its Open takes members over,
// if it succeeds, and no parameters. begin is called once by each goroutine before it serves: the
// time to grow its stack.
func Method(name string, rule Rule, members []Member, begin func()) fencemethods.Method {
	return fencemethods.Method{
		Name:    name,
		Summary: "a level of several devices",
		New: func(target fencemethods.Target, _ fencemethods.Values) (fencemethods.Device, error) {
			return newLevel(rule, members, begin, textRoom(name, target.Name)), nil
		},
	}
}

// A level is a fencemethods.Device for one goroutine at a time; what Method.Open puts before it sees
// to that.
type level struct {
	rule    Rule
	members []*member
	ended   chan *member // holds all of them
	serving sync.WaitGroup
	room    int // for error texts, in bytes

	op    op          // under way, or the last one
	began time.Time   // when it began
	over  bool        // its time is
	grace *time.Timer // since when
}

func newLevel(rule Rule, members []Member, begin func(), room int) *level {
	l := &level{rule: rule, ended: make(chan *member, len(members)), room: room, grace: idleTimer()}
	var begun sync.WaitGroup
	for _, m := range members {
		own := newMember(m)
		l.members = append(l.members, own)
		begun.Add(1)
		l.serving.Go(func() {
			begin()
			begun.Done()
			own.serve(l.ended)
		})
	}
	begun.Wait()
	return l
}

// Off fences the node by the level's rule.
func (l *level) Off(ctx context.Context) error {
	if l.rule == Any {
		return l.offAny(ctx)
	}
	return l.offAll(ctx)
}

// offAny wants one proof. Whoever has not begun or not ended by then is called off.
func (l *level) offAny(ctx context.Context) error {
	l.order(ctx, off)
	for range l.members {
		m := l.next(ctx)
		if m == nil {
			return l.giveUp(ctx)
		}
		if m.err == nil {
			l.callOff()
			m.vouch(ctx)
			return nil
		}
		l.hurry()
	}
	return l.failure()
}

const (
	firstPause = 50 * time.Millisecond // after a proof that did not last, then ever later, up to ...
	lastPause  = time.Second
)

// offAll wants all proofs, and all of them at the same time: while one outlet was being switched, one
// that had been read as off before may have come back. So in the end all are read once more.
func (l *level) offAll(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		l.order(ctx, off)
		for range l.members {
			switch m := l.next(ctx); {
			case m == nil:
				return l.giveUp(ctx)
			case m.err != nil:
				// The level cannot succeed any more, and the next one is to have its turn.
				l.callOff()
				return l.failure()
			}
		}
		if !l.each(ctx, status) {
			return l.giveUp(ctx)
		}
		if l.allOff() {
			for _, m := range l.members {
				m.vouch(ctx)
			}
			return nil
		}
		if !sleep(ctx, l.grace, pause) {
			return l.giveUp(ctx)
		}
	}
}

// allOff tells whether all members have just read off. What one has read instead becomes its error.
func (l *level) allOff() bool {
	all := true
	for _, m := range l.members {
		if m.err == nil && m.state == fencemethods.On {
			m.err = failBackOn
		} else if m.err == nil && m.state != fencemethods.Off {
			m.err = failUnread
		}
		all = all && m.err == nil
	}
	return all
}

// On switches on whatever of the level is off, as far as its members can.
func (l *level) On(ctx context.Context) error {
	if !l.each(ctx, on) {
		return l.giveUp(ctx)
	}
	able := 0
	for _, m := range l.members {
		if errors.Is(m.err, fencemethods.ErrUnsupported) {
			m.err = nil
		} else {
			able++
		}
	}
	if able == 0 {
		return failNoWay
	}
	return l.failure()
}

// Status is what the members say together. One is enough for Any to be off, and for All not to be.
func (l *level) Status(ctx context.Context) (fencemethods.State, error) {
	complete := l.each(ctx, status)
	switch state := l.together(); {
	case state != fencemethods.Unknown:
		return state, nil
	case complete:
		return state, l.failure()
	default:
		return state, l.giveUp(ctx)
	}
}

func (l *level) together() fencemethods.State {
	ons, offs := 0, 0
	for _, m := range l.members {
		switch {
		case m.waited || m.err != nil:
		case m.state == fencemethods.On:
			ons++
		case m.state == fencemethods.Off:
			offs++
		}
	}
	switch {
	case l.rule == Any && offs > 0, offs == len(l.members):
		return fencemethods.Off
	case ons > 0:
		return fencemethods.On
	}
	return fencemethods.Unknown
}

// Check asks all members.
func (l *level) Check(ctx context.Context) error {
	if !l.each(ctx, check) {
		return l.giveUp(ctx)
	}
	return l.failure()
}

// closeTime is how long Close waits for a member that does not end.
const closeTime = time.Second

// Close closes the members, but for one that is stuck: to wait for that could be for ever.
func (l *level) Close() error {
	l.callOff()
	for _, m := range l.members {
		close(m.wake)
	}
	ended := make(chan struct{})
	go func() {
		l.serving.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(closeTime):
		return os.ErrDeadlineExceeded
	}
	var errs []error
	for _, m := range l.members {
		errs = append(errs, m.Device.Close())
	}
	return errors.Join(errs...)
}
