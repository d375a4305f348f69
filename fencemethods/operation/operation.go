// SPDX-License-Identifier: GPL-2.0-only

// Package operation is what a device does that is reached by connections: it attempts the same again and
// again, each time by a new connection, until it succeeds, the device has made clear that it will not,
// or time is up. In the end it says what is known, and not merely how the last attempt ended.
package operation

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/stream"
)

// noTime ends an attempt that time was up for before the answer. It is replaced by what is known.
var noTime = &fencemethods.Error{
	Kind: fencemethods.ErrTimeout, Detail: "time was up before the answer",
	Advice: "allow more time",
}

// Failures are a method's words for what ends an attempt or an operation. They are made once, since they
// are compared: the same one several times running is the device's answer.
type Failures struct {
	Silent  *fencemethods.Error // nothing has answered
	Closed  *fencemethods.Error // nothing listens there
	NoRoute *fencemethods.Error // there is no way there
	HungUp  *fencemethods.Error // the device has closed the connection before an answer

	Garbage  *fencemethods.Error // what answers does not speak the protocol
	Lost     *fencemethods.Error // the device has answered, and does not any more
	Unproven *fencemethods.Error // it does not say how it is
	StillOn  *fencemethods.Error // it has taken the command, and the node has not gone off
	StillOff *fencemethods.Error // the same with on

	// Final reports whether to go on makes no sense once this one came several times running.
	Final func(*fencemethods.Error) bool
}

// Link tells what an error of the connection means, or nil where that is the method's to know. over says
// that the operation's time was up.
func (f *Failures) Link(err error, over bool) *fencemethods.Error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && over, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return noTime
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return f.Silent
	case errors.Is(err, syscall.ECONNREFUSED):
		return f.Closed
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return f.NoRoute
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return f.HungUp
	}
	return nil
}

// sameFailures is how many attempts running have to fail in the same way before that counts as the
// device's answer: while it restarts it may say anything.
const sameFailures = 3

const (
	lastPause = 2 * time.Second // the longest wait between two attempts
	lastPoll  = time.Second     // and between two readings after a command

	// again is after how long the command is given once more to a device that took it, and where nothing
	// happens.
	again = 3 * time.Second
)

// An Operation is one at a time, and used again for the next. Its fields are for the attempt, but for the
// first ones, which are set once.
type Operation struct {
	Failures *Failures
	HangUp   func()        // ends the connection of an attempt that has failed, if there is one
	Pause    time.Duration // after the first attempt; it doubles
	Poll     time.Duration // after the first reading behind a command; it doubles

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
		if f == noTime && !o.Told && last != nil {
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

// Drive brings the power to want, within an attempt. It reads before it commands: a node that is off already
// is fenced. A state that read leaves unknown is read again after a command, and commanded before one.
func (o *Operation) Drive(ctx context.Context, want fencemethods.State, read, command func() *fencemethods.Error) *fencemethods.Error {
	var commanded time.Time
	pause := o.Poll
	for {
		if f := read(); f != nil {
			return f
		}
		switch {
		case o.State == want:
			return nil
		case o.Over(ctx):
			return o.Failures.Unproven
		case commanded.IsZero(), o.State != fencemethods.Unknown && time.Since(commanded) > again:
			o.State, o.Told = fencemethods.Unknown, false
			if f := command(); f != nil {
				return f
			}
			commanded, pause = time.Now(), o.Poll
		default:
			o.Sleep(ctx, pause)
			pause = min(2*pause, lastPoll)
		}
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
	case f != fail.Silent && f != noTime && f != fail.HungUp:
		return f
	case f == noTime && o.Told:
		return fail.Unproven
	case o.Heard:
		return fail.Lost
	case o.Ignored:
		return fail.Garbage
	case f == noTime:
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
