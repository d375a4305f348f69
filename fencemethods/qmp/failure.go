// SPDX-License-Identifier: GPL-2.0-only

package qmp

import (
	"strings"
	"unicode"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/operation"
)

// A failure is an error without the names that fencemethods adds. The ones below are made once, so
// that they can be compared: the same one several times running is the answer.
type failure = fencemethods.Error

var (
	failSilent = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no answer",
		Advice: "check monitor and the way there; QEMU serves one client at a time, give o2fence a monitor of its own",
	}
	failPortClosed = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "nothing listens there",
		Advice: "check monitor, and whether the machine's QEMU runs",
	}
	failNoSocket = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "there is no such socket",
		Advice: "check monitor, and whether the machine's QEMU runs",
	}
	failDenied = &failure{
		Kind: fencemethods.ErrAuth, Detail: "the socket may not be opened",
		Advice: "check the owner and mode of the socket and its directory",
	}
	failNoRoute = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no way there from this node",
		Advice: "check monitor and this node's routes",
	}
	failHungUp = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "the connection was closed before an answer",
		Advice: "check monitor, and whether the machine's QEMU runs",
	}
	failLost = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "QEMU fell silent",
		Advice: "check its host, and whether its disks hang",
	}
	failGarbage = &failure{
		Kind: fencemethods.ErrProtocol, Detail: "what answers does not speak QMP",
		Advice: "check monitor; QEMU's has to be in mode=control",
	}
	failOther = &failure{
		Kind: fencemethods.ErrRefused, Detail: "another machine answers at that monitor",
		Advice: "check monitor and uuid",
	}
	failElsewhere = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "the machine was moved, or is being moved, saved or restored",
		Advice: "set monitor to where it is now",
	}
	failUnproven = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "QEMU does not say whether the machine is off",
		Advice: "check QEMU, and allow more time",
	}
	failStillOn = &failure{
		Kind: fencemethods.ErrNotOff, Detail: "QEMU took the commands, the machine has not gone off",
		Advice: "check whether something continues it",
	}
	failStillOff = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "QEMU took the command, the machine does not start",
		Advice: "check its disks and QEMU's log",
	}
)

// failures are those that package operation tells apart.
var failures = operation.Failures{
	Silent: failSilent, Closed: failPortClosed, NoRoute: failNoRoute, HungUp: failHungUp, Garbage: failGarbage, Lost: failLost, Unproven: failUnproven,
	StillOn: failStillOn, StillOff: failStillOff, Final: final,
}

// final reports whether trying again until the deadline makes no sense once f came several times.
func final(f *failure) bool {
	return f.Kind == fencemethods.ErrRefused || f.Kind == fencemethods.ErrAuth
}

// refused tells what QEMU did not do, and why.
func refused(command string, r *refusal) *failure {
	desc := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, r.Desc)
	if len(desc) > 80 {
		desc = strings.ToValidUTF8(desc[:80], "") + "..."
	}
	return &failure{
		Kind: fencemethods.ErrRefused, Detail: "QEMU declines " + command + ": " + desc,
		Advice: "check QEMU's log",
	}
}
