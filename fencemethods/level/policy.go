// SPDX-License-Identifier: GPL-2.0-only

package level

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// lastBackoff is the longest pause between two tries.
const lastBackoff = time.Minute

// A retrying device is tried again.
type retrying struct {
	fencemethods.Device
	times   int
	backoff time.Duration
	timer   *time.Timer
}

// Retry returns a Device whose Off is tried again up to so many times when it fails before its deadline:
// after backoff, then twice that, and so on up to a minute. What trying again cannot change (wrong
// credentials, a command that is declined) is not tried again. Success is the device's own, each time.
// It serves one goroutine at a time, and closes d.
func Retry(d fencemethods.Device, times int, backoff time.Duration) fencemethods.Device {
	return &retrying{Device: d, times: times, backoff: backoff, timer: idleTimer()}
}

// Off tries.
func (r *retrying) Off(ctx context.Context) error {
	pause := r.backoff
	for n := 0; ; n++ {
		err := r.Device.Off(ctx)
		if err == nil || n == r.times || lasting(err) {
			return err
		}
		if !sleep(ctx, r.timer, pause) {
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return err // at once: the next method is to have the rest of the time
		}
		pause = min(2*pause, lastBackoff)
	}
}

// lasting tells whether a failure will not go away by trying again.
func lasting(err error) bool {
	for _, kind := range [...]error{
		fencemethods.ErrAuth, fencemethods.ErrRefused, fencemethods.ErrUnsupported, fencemethods.ErrNoDeadline,
		os.ErrClosed, context.Canceled,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// A delayed device begins later.
type delayed struct {
	fencemethods.Device
	fixed, random time.Duration
	timer         *time.Timer
}

// Delay returns a Device whose Off begins so much later, up to random more, within its deadline. When it
// is called off meanwhile, nothing was done. It serves one goroutine at a time, and closes d.
func Delay(d fencemethods.Device, fixed, random time.Duration) fencemethods.Device {
	return &delayed{Device: d, fixed: fixed, random: random, timer: idleTimer()}
}

var failDelayed = &fencemethods.Error{
	Kind: fencemethods.ErrTimeout, Detail: "its delay is as long as its time", Advice: "see delay_ms and timeout_ms",
}

// Off waits first.
func (d *delayed) Off(ctx context.Context) error {
	pause := d.fixed
	if d.random > 0 {
		pause += rand.N(d.random + 1)
	}
	if sleep(ctx, d.timer, pause) {
		return d.Device.Off(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return failDelayed
}
