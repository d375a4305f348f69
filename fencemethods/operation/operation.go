// SPDX-License-Identifier: GPL-2.0-only

// Package operation is what a device does that is reached by connections: it attempts the same again and
// again, each time by a new connection, until it succeeds, the device has made clear that it will not,
// or time is up. In the end it says what is known, and not merely how the last attempt ended.
package operation

import (
	"context"
	"errors"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/stream"
)

// Failures are a method's words for what ends an attempt or an operation. They are made once, since they
// are compared: the same one several times running is the device's answer.
type Failures struct {
	Silent *fencemethods.Error // nothing has answered
	NoTime *fencemethods.Error // time was up before the answer; it is replaced by what is known
	HungUp *fencemethods.Error // the device has closed the connection before an answer

	Garbage  *fencemethods.Error // what answers does not speak the protocol
	Lost     *fencemethods.Error // the device has answered, and does not any more
	Unproven *fencemethods.Error // it does not say how it is
	StillOn  *fencemethods.Error // it has taken the command, and the node has not gone off
	StillOff *fencemethods.Error // the same with on

	// Final reports whether to go on makes no sense once this one came several times running.
	Final func(*fencemethods.Error) bool
}

// sameFailures is how many attempts running have to fail in the same way before that counts as the
// device's answer: while it restarts it may say anything.
const sameFailures = 3

// lastPause is the longest wait between two attempts.
const lastPause = 2 * time.Second

// An Operation is one at a time, and used again for the next. Its fields are for the attempt, but for the
// first ones, which are set once.
type Operation struct {
	Failures *Failures
	HangUp   func()        // ends the connection of an attempt that has failed, if there is one
	Pause    time.Duration // after the first attempt; it doubles

	Deadline time.Time
	State    fencemethods.State // as last read in this attempt, unless a command has gone out since
	Told     bool               // State is what was read, if only that the device does not know
	Heard    bool               // an answer came since the operation began
	Ignored  bool               // something that was none came too
}

// Run attempts to do something, and returns how the power was last read. It allocates nothing by itself. The
// connection of an attempt that succeeded is the caller's to end.
func (o *Operation) Run(ctx context.Context, want fencemethods.State, attempt func() *fencemethods.Error) (fencemethods.State, error) {
	o.Deadline, _ = ctx.Deadline()
	o.Heard, o.Ignored = false, false
	var last *fencemethods.Error
	same, pause := 0, o.Pause
	for {
		o.State, o.Told = fencemethods.Unknown, false
		f := attempt()
		if f == nil {
			return o.State, nil
		}
		o.HangUp()
		if f == o.Failures.NoTime && !o.Told && last != nil {
			f = last // which says more than an attempt that had no time
		}
		if last == nil || *f != *last {
			last, same = f, 0
		}
		if same++; same == sameFailures && o.Failures.Final(f) {
			return fencemethods.Unknown, f
		}
		o.Sleep(ctx, pause)
		if o.Over(ctx) {
			return fencemethods.Unknown, o.giveUp(ctx, want, f)
		}
		pause = min(2*pause, lastPause)
	}
}

// giveUp says what is known when time is up; f is what ended the last attempt.
func (o *Operation) giveUp(ctx context.Context, want fencemethods.State, f *fencemethods.Error) error {
	switch fail := o.Failures; {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case o.State == fencemethods.On && want == fencemethods.Off:
		return fail.StillOn
	case o.State == fencemethods.Off && want == fencemethods.On:
		return fail.StillOff
	case f != fail.Silent && f != fail.NoTime && f != fail.HungUp:
		return f
	case f == fail.NoTime && o.Told:
		return fail.Unproven
	case o.Heard:
		return fail.Lost
	case o.Ignored:
		return fail.Garbage
	case f == fail.NoTime:
		return fail.Silent
	}
	return f
}

// Over reports whether the operation's time is up, or its result no longer wanted.
func (o *Operation) Over(ctx context.Context) bool {
	return ctx.Err() != nil || !time.Now().Before(o.Deadline)
}

// Sleep sleeps so long, or until the operation is over.
func (o *Operation) Sleep(ctx context.Context, pause time.Duration) {
	until, _ := o.Until(pause)
	stream.Sleep(ctx, until)
}

// Until is when so much patience is at its end, and whether that is only because the operation's time is.
func (o *Operation) Until(patience time.Duration) (until time.Time, over bool) {
	until = time.Now().Add(patience)
	if o.Deadline.Before(until) {
		return o.Deadline, true
	}
	return until, false
}
