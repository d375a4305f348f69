// SPDX-License-Identifier: GPL-2.0-only

// Package testmethod is the method "test": it fences nothing and answers what it is told to. The
// tests of the kernel and of the bridge use it. It is configured only by who says that he knows.
package testmethod

import (
	"context"
	"os"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// nap is how late a call-off may be noticed. Waiting for ctx.Done would allocate its channel.
const nap = 10 * time.Millisecond

// Method describes this method.
func Method() fencemethods.Method {
	return fencemethods.Method{
		Name:    "test",
		Summary: "for tests: FENCES NOTHING, and says whatever it is told to say",
		New:     New,
		Params: []fencemethods.Param{
			{
				Name: "i_know_this_fences_nothing", Required: true, Validate: fencemethods.OneOf("yes"),
				Help: "yes, or the method is not to be used",
			},
			{
				Name: "result", Default: "ok", Validate: fencemethods.OneOf("ok", "fail", "slow", "hang"),
				Help: "ok, fail, slow (ok when nine tenths of the time are over) or hang (until the deadline)",
			},
			{
				Name: "delay_ms", Default: "0", Validate: fencemethods.Between(0, 3600000),
				Help: "milliseconds until it answers ok or fail",
			},
			{Name: "file", Help: "file that gets a line for every command, such as \"off node2\""},
		},
	}
}

// A device is a power switch that is not there. It obeys like a real one where its result is ok.
type device struct {
	result string
	delay  time.Duration
	file   *os.File // nil for none
	state  fencemethods.State
	lines  map[fencemethods.State][]byte
}

var errFail = &fencemethods.Error{
	Kind: fencemethods.ErrRefused, Detail: "told to fail", Advice: "set result to ok",
}

// New makes the device; the node is on.
func New(target fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	d := &device{
		result: v["result"],
		delay:  time.Duration(v.Int("delay_ms")) * time.Millisecond,
		state:  fencemethods.On,
		lines: map[fencemethods.State][]byte{
			fencemethods.Off: []byte("off " + target.Name + "\n"),
			fencemethods.On:  []byte("on " + target.Name + "\n"),
		},
	}
	if v["file"] == "" {
		return d, nil
	}
	f, err := os.OpenFile(v["file"], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	d.file = f
	return d, nil
}

// Off says that the node is off.
func (d *device) Off(ctx context.Context) error { return d.command(ctx, fencemethods.Off) }

// On says that the node is on.
func (d *device) On(ctx context.Context) error { return d.command(ctx, fencemethods.On) }

// Status says what was last commanded, at once.
func (d *device) Status(context.Context) (fencemethods.State, error) { return d.state, nil }

// Check finds nothing to check.
func (d *device) Check(context.Context) error { return nil }

// Close closes the file.
func (d *device) Close() error {
	if d.file == nil {
		return nil
	}
	return d.file.Close()
}

func (d *device) command(ctx context.Context, want fencemethods.State) error {
	if d.file != nil {
		if _, err := d.file.Write(d.lines[want]); err != nil {
			return err
		}
	}
	if err := d.wait(ctx); err != nil {
		return err
	}
	if d.result == "fail" {
		return errFail
	}
	d.state = want
	return nil
}

func (d *device) wait(ctx context.Context) error {
	if d.delay == 0 && (d.result == "ok" || d.result == "fail") {
		return ctx.Err()
	}
	deadline, _ := ctx.Deadline()
	now := time.Now()
	until := now.Add(d.delay)
	switch d.result {
	case "slow":
		until = now.Add(deadline.Sub(now) * 9 / 10)
	case "hang":
		until = deadline
	}
	for ; now.Before(until); now = time.Now() {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !now.Before(deadline):
			return fencemethods.ErrTimeout
		}
		time.Sleep(min(nap, until.Sub(now)))
	}
	if d.result == "hang" {
		return fencemethods.ErrTimeout
	}
	return ctx.Err()
}
