// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import "github.com/o2fence/o2fence/fencemethods"

// A failure is an error without the names that fencemethods adds. The ones below are made once, so
// that they cost nothing at fence time and can be compared: the same one several times running is
// the device's answer, a single one may be a damaged packet.
type failure = fencemethods.Error

var (
	failSilent = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no answer",
		Advice: "check addr, port and the way there, and that IPMI over LAN is enabled",
	}
	failPortClosed = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "nothing listens on that port",
		Advice: "check addr and port, and that IPMI over LAN is enabled",
	}
	failNoRoute = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no way there from this node",
		Advice: "check addr and this node's routes",
	}
	failGarbage = &failure{
		Kind: fencemethods.ErrProtocol, Detail: "what answers does not speak IPMI 2.0",
		Advice: "check addr and port",
	}
	failLost = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "the BMC fell silent",
		Advice: "check its network and whether it restarts",
	}
	failUnproven = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "power state could not be read",
		Advice: "check the BMC, and allow more time",
	}
	failStillOn = &failure{
		Kind: fencemethods.ErrNotOff, Detail: "the BMC took the command, the power stays on",
		Advice: "check the BMC's firmware, and allow more time",
	}
	failStillOff = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "the BMC took the command, the power stays off",
		Advice: "check the machine's power supply",
	}
	failNoName = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "silence after the user name was sent",
		Advice: "check user: some BMCs do not answer for one they do not know",
	}
	failPassword = &failure{
		Kind: fencemethods.ErrAuth, Detail: "the BMC has another password for this user",
		Advice: "check user and password_file",
	}
	failKG = &failure{
		Kind: fencemethods.ErrAuth, Detail: "user and password are right, the session key is not",
		Advice: "a BMC key (K_G) is set: clear it",
	}
	failUser = &failure{
		Kind: fencemethods.ErrAuth, Detail: "the BMC does not know this user, or does not let it in over LAN",
		Advice: "check user",
	}
	failPrivilege = &failure{
		Kind: fencemethods.ErrAuth, Detail: "the user may not have this privilege",
		Advice: "give the user operator rights on the LAN channel, or check privilege",
	}
	failSuite = &failure{
		Kind: fencemethods.ErrRefused, Detail: "the BMC declines the cipher suite",
		Advice: "enable suite 17 or 3 on the BMC, or check cipher",
	}
	failOtherSuite = &failure{
		Kind: fencemethods.ErrProtocol, Detail: "the BMC agreed to another cipher suite than was asked for",
		Advice: "set cipher to the one that it has",
	}
	failFull = &failure{
		Kind: fencemethods.ErrBusy, Detail: "the BMC has no free session",
		Advice: "close other tools' sessions, or restart the BMC",
	}
	failSetUp = &failure{
		Kind: fencemethods.ErrRefused, Detail: "the BMC declines the session",
		Advice: "look the code up in IPMI 2.0 table 13-15",
	}
)

// final reports whether trying again until the deadline makes no sense once f came several times.
func final(f *failure) bool {
	switch f.Kind {
	case fencemethods.ErrAuth, fencemethods.ErrRefused, fencemethods.ErrProtocol:
		return true
	default:
		return false
	}
}

// setUpFailure tells what a status other than 0 in session set-up means (table 13-15).
func setUpFailure(status byte) *failure {
	switch status {
	case 0x01, 0x0b: // insufficient resources
		return failFull
	case 0x02, 0x08: // invalid or inactive session ID: the BMC has forgotten it, or restarted
		return failLost
	case 0x04, 0x05, 0x06, 0x07, 0x10, 0x11: // algorithms
		return failSuite
	case 0x09, 0x0a: // role
		return failPrivilege
	case 0x0c, 0x0d: // name
		return failUser
	case 0x0f: // integrity check value
		return failPassword
	default:
		f := *failSetUp
		f.Code = status
		return &f
	}
}

// completionFailure tells what a completion code other than 0 means (table 5-2).
func completionFailure(code byte) *failure {
	switch code {
	case 0xc0, 0xc3, 0xce, 0xd0, 0xd2: // busy, timeout, cannot respond, firmware update, restarting
		return &failure{
			Kind: fencemethods.ErrBusy, Code: code, Detail: "the BMC puts the command off",
			Advice: "wait for its update or restart to end",
		}
	case 0xd4: // insufficient privilege
		return failPrivilege
	default:
		return &failure{
			Kind: fencemethods.ErrRefused, Code: code, Detail: "the BMC declines the command",
			Advice: "look the code up in IPMI 2.0 table 5-2",
		}
	}
}
