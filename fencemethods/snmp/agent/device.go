// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

const (
	firstPoll = 50 * time.Millisecond // after a command the state is read at once, then so late
	lastPoll  = time.Second           // ... and ever later, up to this
	again     = 2 * time.Second       // a command that has changed nothing by then is given again
)

// sameFailures is how many attempts running have to fail in the same way before that counts as the
// device's answer. Fewer might be damaged packets.
const sameFailures = 3

// A Switch is what can be switched through an Agent, such as an outlet.
type Switch interface {
	// Read asks how the switch is. One of several parts is as want, off unless it is On, when all
	// parts are. It fails, other than by silence, when this is not the device or not the switch
	// that is meant; then no command is given.
	Read(ctx context.Context, a *Agent, want fencemethods.State) (fencemethods.State, *Failure)

	// Command orders the switch to another state, for the nth time, from 0.
	Command(ctx context.Context, a *Agent, want fencemethods.State, n int) *Failure

	// MayCommand finds out, without changing anything, whether a command would be obeyed.
	MayCommand(ctx context.Context, a *Agent) *Failure
}

// A Device switches a Switch. It is a fencemethods.Device.
type Device struct {
	agent *Agent
	sw    Switch
	state fencemethods.State // as last read, unless a command has gone out since
}

// NewDevice returns the Device that switches sw through a, which it closes.
func NewDevice(a *Agent, sw Switch) *Device { return &Device{agent: a, sw: sw} }

// Off switches off.
func (d *Device) Off(ctx context.Context) error {
	_, err := d.operate(ctx, func() *Failure { return d.drive(ctx, fencemethods.Off) }, fencemethods.Off)
	return err
}

// On switches on.
func (d *Device) On(ctx context.Context) error {
	_, err := d.operate(ctx, func() *Failure { return d.drive(ctx, fencemethods.On) }, fencemethods.On)
	return err
}

// Status reads the state.
func (d *Device) Status(ctx context.Context) (fencemethods.State, error) {
	return d.operate(ctx, func() *Failure { return d.read(ctx, fencemethods.Unknown) }, fencemethods.Unknown)
}

// Check reads the state, and asks whether a command would be obeyed.
func (d *Device) Check(ctx context.Context) error {
	_, err := d.operate(ctx, func() *Failure {
		if f := d.read(ctx, fencemethods.Unknown); f != nil {
			return f
		}
		return d.sw.MayCommand(ctx, d.agent)
	}, fencemethods.Unknown)
	return err
}

// Close closes the agent.
func (d *Device) Close() error { return d.agent.Close() }

// operate tries until an attempt lasts to the end, the device has made clear that none will, or
// time is up. It returns the state as it was last read.
func (d *Device) operate(ctx context.Context, attempt func() *Failure, want fencemethods.State) (fencemethods.State, error) {
	a := d.agent
	a.reset()
	var last, why Failure
	same, pause := 0, time.Duration(0)
	for {
		d.state = fencemethods.Unknown
		f := a.Begin(ctx)
		if f == nil {
			f = attempt()
		}
		if f == nil {
			return d.state, nil
		}
		if a.over(ctx) {
			return fencemethods.Unknown, d.giveUp(ctx, want, f, &why)
		}
		if *f != last {
			last, same = *f, 0
		}
		if final(f) {
			why = *f
			if same++; same == sameFailures {
				return fencemethods.Unknown, f
			}
		}
		if f == failSilent || f == failLost { // which took their time
			continue
		}
		a.sleep(pause)
		pause = min(pause+firstPoll, lastPoll)
	}
}

// giveUp says what is known when time is up: f is what ended the last attempt, why what the device
// made clear, if it did, in the last one that it had an answer to.
func (d *Device) giveUp(ctx context.Context, want fencemethods.State, f, why *Failure) error {
	a := d.agent
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case d.state == fencemethods.On && want == fencemethods.Off:
		return failStillOn
	case d.state == fencemethods.Off && want == fencemethods.On:
		return failStillOff
	case f == failLost && why.Kind != nil:
		return why
	case f != failSilent:
		return f
	case errors.Is(a.link.Err, syscall.ECONNREFUSED):
		return failPortClosed
	case a.link.Err != nil:
		return failNoRoute
	case a.ignored > 0:
		return failGarbage
	}
	return f
}

// drive brings the switch to want. It returns nil when it was read so, never earlier.
func (d *Device) drive(ctx context.Context, want fencemethods.State) *Failure {
	var commanded time.Time
	poll := firstPoll
	for n := 0; ; {
		f := d.read(ctx, want)
		switch {
		case f == nil && d.state == want:
			return nil
		case f != nil && (final(f) || f == failLost || f == failSilent || f == failClock):
			return f
		case time.Since(commanded) >= again:
			// Also when the state cannot be read: the node is better off, proven or not.
			d.state = fencemethods.Unknown // what was read before says nothing from here on
			f := d.sw.Command(ctx, d.agent, want, n)
			// An agent that answers when all is done may do so late: the state tells.
			if f != nil && f != failLost && f.Kind != fencemethods.ErrBusy {
				return f
			}
			commanded, poll = time.Now(), firstPoll
			n++
			continue
		case d.agent.over(ctx) && f != nil:
			return f
		case d.agent.over(ctx):
			return failUnproven
		}
		d.agent.sleep(poll)
		poll = min(2*poll, lastPoll)
	}
}

// read reads the state. Where answers are not signed it takes two that agree: a damaged one might
// say anything. A failed reading leaves the state as it is.
func (d *Device) read(ctx context.Context, want fencemethods.State) *Failure {
	state, f := d.sw.Read(ctx, d.agent, want)
	if f != nil {
		return f
	}
	if !d.agent.Authentic() {
		second, f := d.sw.Read(ctx, d.agent, want)
		if f != nil {
			return f
		}
		if second != state {
			state = fencemethods.Unknown
		}
	}
	d.state = state
	return nil
}

func (a *Agent) sleep(d time.Duration) {
	time.Sleep(min(d, time.Until(a.deadline)))
}
