// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import (
	"context"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

const (
	netFnChassis = 0x00

	cmdChassisStatus  = 0x01 // Get Chassis Status (28.2)
	cmdChassisControl = 0x02 // Chassis Control (28.3)
)

// Chassis Control also has power cycle (2), hard reset (3), diagnostic interrupt (4) and soft
// shutdown by ACPI (5). None of them proves anything: after a cycle or a reset the node runs, and a
// node that hangs ignores a soft shutdown.
const (
	powerDown = 0x00
	powerUp   = 0x01
)

const (
	firstPoll = 50 * time.Millisecond // after a command the state is read at once, then so late
	lastPoll  = time.Second           // ... and ever later, up to this
	again     = 2 * time.Second       // a command that has changed nothing by then is given again
)

// read reads the power state (28.2, byte 2, bit 0). A failed reading leaves the state as it is.
func (s *session) read(ctx context.Context) *failure {
	data, f := s.command(ctx, netFnChassis, cmdChassisStatus)
	switch {
	case f != nil:
		return f
	case len(data) == 0:
		return failGarbage
	case data[0]&1 != 0:
		s.state = fencemethods.On
	default:
		s.state = fencemethods.Off
	}
	return nil
}

// drive brings the power to want. It returns nil when the power was read so, never earlier.
func (s *session) drive(ctx context.Context, want fencemethods.State) *failure {
	var commanded time.Time
	poll := firstPoll
	for {
		f := s.read(ctx)
		switch {
		case f == nil && s.state == want:
			return nil
		case f == failLost:
			return f
		case time.Since(commanded) >= again:
			// Also when the state cannot be read: the node is better off, proven or not.
			if f := s.control(ctx, want); f != nil {
				return f
			}
			commanded, poll = time.Now(), firstPoll
			continue
		case s.over(ctx) && f != nil:
			return f
		case s.over(ctx):
			return failUnproven
		}
		s.sleep(poll)
		poll = min(2*poll, lastPoll)
	}
}

// control gives the power command. What was read before it says nothing from here on. A BMC may
// decline to power down what is down already, so the power is looked at before that counts.
func (s *session) control(ctx context.Context, want fencemethods.State) *failure {
	s.state = fencemethods.Unknown
	command := byte(powerDown)
	if want == fencemethods.On {
		command = powerUp
	}
	_, f := s.command(ctx, netFnChassis, cmdChassisControl, command)
	if f == nil || f == failLost {
		return f
	}
	if s.read(ctx) == nil && s.state == want {
		return nil
	}
	return f
}

func (s *session) sleep(d time.Duration) {
	time.Sleep(min(d, time.Until(s.deadline)))
}
