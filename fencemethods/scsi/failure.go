// SPDX-License-Identifier: GPL-2.0-only

package scsi

import (
	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/reserve"
)

var (
	failBus = &reserve.Failure{
		Kind: fencemethods.ErrUnreachable, Detail: "the disk does not answer",
		Advice: "check the path; after a new login of iSCSI restart o2fenced",
	}
	failOffline = &reserve.Failure{
		Kind: fencemethods.ErrUnreachable, Detail: "was dead when the configuration was read",
		Advice: "check the path, and restart o2fenced when it is back",
	}
	failNotStored = &reserve.Failure{
		Kind: fencemethods.ErrUnreachable, Detail: "the disk could not store its reservations",
		Advice: "check the storage's own disk; see persist in configuration.md",
	}
	failAnother = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "leads to another disk now",
		Advice: "compare disks with /sys/block/*/device/wwid, and restart o2fenced",
	}
	failUnknown = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "the disk does not know persistent reservations",
		Advice: "take another method",
	}
	failField = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "the disk does not know this kind of persistent reservations",
		Advice: "take another method",
	}
	failNoAbort = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "the disk cannot end the node's commands",
		Advice: "see abort in configuration.md",
	}
	failNoPersist = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "the disk does not keep reservations when it restarts",
		Advice: "see persist in configuration.md",
	}
	failDeclined = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "the disk declines the command",
		Advice: "try: sg_persist",
	}
	failFull = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "the disk has no room for another registration",
		Advice: "see who is registered: sg_persist -k",
	}
	failKeys = &reserve.Failure{
		Kind: fencemethods.ErrProtocol, Detail: "the list of keys is not whole",
		Advice: "see who is registered: sg_persist -k",
	}
	failGarbled = &reserve.Failure{
		Kind: fencemethods.ErrProtocol, Detail: "the disk's answer is no answer",
		Advice: "check the path and the storage's firmware",
	}
	failRestless = &reserve.Failure{
		Kind: fencemethods.ErrTimeout, Detail: "keys change all the time",
		Advice: "see who registers: sg_persist -k",
	}
	failAttention = &reserve.Failure{
		Kind: fencemethods.ErrTimeout, Detail: "one unit attention after the other",
		Advice: "check the storage",
	}
	failBusy = &reserve.Failure{
		Kind: fencemethods.ErrBusy, Detail: "the disk is busy",
		Advice: "allow more time",
	}
	failNotReady = &reserve.Failure{
		Kind: fencemethods.ErrUnreachable, Detail: "the disk is not ready",
		Advice: "check the storage and the state of the path",
	}
	failDisk = &reserve.Failure{
		Kind: fencemethods.ErrUnreachable, Detail: "the disk reports an error",
		Advice: "check the storage",
	}
)
