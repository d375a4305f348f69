// SPDX-License-Identifier: GPL-2.0-only

package sbd

import "github.com/o2fence/o2fence/fencemethods"

// A failure is an error without the names that fencemethods adds; that of a disk gets the disk's
// name when it is told. They are made once, so that they can be compared.
type failure = fencemethods.Error

var (
	failHung = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no answer",
		Advice: "check the paths to it",
	}
	failIO = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "I/O error",
		Advice: "check the disk and the paths to it",
	}
	failWrite = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "cannot be written",
		Advice: "check the disk and the paths to it",
	}
	failDenied = &failure{
		Kind: fencemethods.ErrRefused, Detail: "may not be written by this node",
		Advice: "check for write protection and SCSI reservations",
	}
	failShort = &failure{
		Kind: fencemethods.ErrProtocol, Detail: "ends before the slots do",
		Advice: "take a larger disk, and run: sbd -d DISK create",
	}
	failForgets = &failure{
		Kind: fencemethods.ErrProtocol, Detail: "took the message, and has another one when it is read",
		Advice: "check the disk",
	}
	failNotSBD = &failure{
		Kind: fencemethods.ErrProtocol, Detail: "no SBD header of version 2 for its sector size",
		Advice: "check disks, or run: sbd -d DISK create",
	}
	failTimeouts = &failure{
		Kind: fencemethods.ErrRefused, Detail: "msgwait is shorter than twice the watchdog, or than watchdog, loop and io",
		Advice: "sbd -d DISK -1 WATCHDOG -4 MSGWAIT create, or set msgwait",
	}
	failDiffers = &failure{
		Kind: fencemethods.ErrRefused, Detail: "has other timeouts than the first disk, so sbd does not use it",
		Advice: "run: sbd create, with all disks at once",
	}
	failTwice = &failure{
		Kind: fencemethods.ErrRefused, Detail: "cannot be told from another of disks, by its UUID",
		Advice: "name each disk once, by its multipath name; or run: sbd create",
	}
	failNoSlot = &failure{
		Kind: fencemethods.ErrRefused, Detail: "has no slot of that name",
		Advice: "check slot against: sbd -d DISK list; start sbd on the node",
	}
	failTwoSlots = &failure{
		Kind: fencemethods.ErrRefused, Detail: "has two slots of that name",
		Advice: "stop sbd everywhere, and run: sbd -d DISK create",
	}
	failPillThere = &failure{
		Kind: fencemethods.ErrRefused, Detail: "a message that kills lies in the mailbox",
		Advice: "start sbd on the node, or run: sbd -d DISK message NODE clear",
	}
	failDeaf = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "the node's sbd has not taken the test message",
		Advice: "start sbd on the node, with the same disks",
	}
	failMissing = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "was not there when the configuration was read",
		Advice: "check the disk, and restart o2fenced",
	}

	failCleared = &failure{
		Kind: fencemethods.ErrNotOff, Detail: "the message was taken out of the mailbox before msgwait was over",
		Advice: "check who does: the node's sbd when it starts, or somebody with sbd's tool",
	}
	failTooShort = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "the message is on the disks, msgwait ends after the deadline",
		Advice: "set timeout_ms to 1.2 times msgwait, and a second more",
	}
	failLate = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "the message was on the disks too late",
		Advice: "check the disks, and allow more time",
	}
	failPending = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "a message that kills has not been there for msgwait yet",
		Advice: "allow msgwait and a second more",
	}
)

// final reports whether the next try will end the same way.
func final(f *failure) bool {
	switch f.Kind {
	case fencemethods.ErrProtocol, fencemethods.ErrRefused:
		return f != failForgets
	default:
		return f == failMissing
	}
}

// diskNameMax is how much of a disk's name fits an error; the end tells more than the beginning.
const diskNameMax = 48

// of adds the disk's name. This allocates: a failure may.
func of(name string, f *failure) error {
	if len(name) > diskNameMax {
		name = "..." + name[len(name)-diskNameMax+3:]
	}
	e := *f
	e.Detail = name + ": " + f.Detail
	return &e
}
