// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"github.com/gosnmp/gosnmp"

	"github.com/o2fence/o2fence/fencemethods"
)

// A Failure is an error without the names that fencemethods adds. Those that say the same are
// equal: the same one several times running is the device's answer, a single one may be a damaged
// packet.
type Failure = fencemethods.Error

var (
	failSilent = &Failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no answer",
		Advice: "check addr, port, the way there, and version and community: a wrong one is not answered",
	}
	failPortClosed = &Failure{
		Kind: fencemethods.ErrUnreachable, Detail: "nothing listens on that port",
		Advice: "check addr and port, and that SNMP is enabled",
	}
	failNoRoute = &Failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no way there from this node",
		Advice: "check addr and this node's routes",
	}
	failGarbage = &Failure{
		Kind: fencemethods.ErrProtocol, Detail: "what answers does not speak this version of SNMP",
		Advice: "check addr, port and version",
	}
	failLost = &Failure{
		Kind: fencemethods.ErrTimeout, Detail: "the device fell silent",
		Advice: "check its network and whether it restarts",
	}
	failUnproven = &Failure{
		Kind: fencemethods.ErrTimeout, Detail: "the state could not be read",
		Advice: "check the device, and allow more time",
	}
	failStillOn = &Failure{
		Kind: fencemethods.ErrNotOff, Detail: "the device took the command, the state stays on",
		Advice: "check the device, and allow more time",
	}
	failStillOff = &Failure{
		Kind: fencemethods.ErrTimeout, Detail: "the device took the command, the state stays off",
		Advice: "check the device, and allow more time",
	}
	failUser = &Failure{
		Kind: fencemethods.ErrAuth, Detail: "the device does not know this user",
		Advice: "check user",
	}
	failDigest = &Failure{
		Kind: fencemethods.ErrAuth, Detail: "the device has another passphrase or protocol for this user",
		Advice: "check auth and auth_file",
	}
	failDecryption = &Failure{
		Kind: fencemethods.ErrAuth, Detail: "the device could not decrypt the question",
		Advice: "check priv and priv_file",
	}
	failLevel = &Failure{
		Kind: fencemethods.ErrAuth, Detail: "the device does not let this user in with encryption",
		Advice: "give the user a privacy protocol on the device",
	}
	failClock = &Failure{
		Kind: fencemethods.ErrTimeout, Detail: "the device's SNMP engine has restarted",
		Advice: "check whether it restarts again and again",
	}
	failReport = &Failure{
		Kind: fencemethods.ErrProtocol, Detail: "the device cannot make sense of the question",
		Advice: "check version and its firmware",
	}
	failRead = &Failure{
		Kind: fencemethods.ErrAuth, Detail: "the device does not let these credentials read",
		Advice: "give the community or user access to the whole device",
	}
	failWrite = &Failure{
		Kind: fencemethods.ErrAuth, Detail: "the device does not let these credentials write",
		Advice: "give the community or user the right to write",
	}
	failNotWritable = &Failure{
		Kind: fencemethods.ErrRefused, Detail: "the device has no such thing to switch",
		Advice: "check what is to be switched",
	}
	failOwn = &Failure{
		Kind: fencemethods.ErrProtocol, Detail: "the question could not be encoded",
		Advice: "report this as a bug",
	}
)

// Counters that an engine reports when it does not take a message (RFC 3414, section 5; RFC 3412,
// section 5).
const (
	reportLevel      = ".1.3.6.1.6.3.15.1.1.1.0"
	reportClock      = ".1.3.6.1.6.3.15.1.1.2.0"
	reportUser       = ".1.3.6.1.6.3.15.1.1.3.0"
	reportEngine     = ".1.3.6.1.6.3.15.1.1.4.0"
	reportDigest     = ".1.3.6.1.6.3.15.1.1.5.0"
	reportDecryption = ".1.3.6.1.6.3.15.1.1.6.0"
)

// reportFailure tells what a report means.
func reportFailure(vars []gosnmp.SnmpPDU) *Failure {
	if len(vars) == 0 {
		return failReport
	}
	switch vars[0].Name {
	case reportLevel:
		return failLevel
	case reportClock, reportEngine:
		return failClock
	case reportUser:
		return failUser
	case reportDigest:
		return failDigest
	case reportDecryption:
		return failDecryption
	default:
		return failReport
	}
}

// getFailure tells what an error-status means that answers a question (RFC 3416, section 4.2.1).
func getFailure(status gosnmp.SNMPError) *Failure {
	switch status {
	case gosnmp.NoAccess, gosnmp.AuthorizationError:
		return failRead
	case gosnmp.GenErr, gosnmp.ResourceUnavailable:
		return &Failure{
			Kind: fencemethods.ErrBusy, Code: uint8(status), Detail: "the device cannot tell now",
			Advice: "check the device, and allow more time",
		}
	default:
		return &Failure{
			Kind: fencemethods.ErrRefused, Code: uint8(status), Detail: "the device declines the question",
			Advice: "look the code up in RFC 3416, error-status",
		}
	}
}

// setFailure tells what an error-status means that answers a command (RFC 3416, section 4.2.5;
// version 1's noSuchName is what becomes of a missing right, RFC 2576, section 4.3).
func setFailure(status gosnmp.SNMPError) *Failure {
	switch status {
	case gosnmp.NoError:
		return nil
	case gosnmp.NoAccess, gosnmp.AuthorizationError, gosnmp.NoSuchName, gosnmp.ReadOnly:
		return failWrite
	case gosnmp.NoCreation, gosnmp.NotWritable, gosnmp.InconsistentName:
		return failNotWritable
	case gosnmp.GenErr, gosnmp.ResourceUnavailable, gosnmp.InconsistentValue, gosnmp.CommitFailed, gosnmp.UndoFailed:
		return &Failure{
			Kind: fencemethods.ErrBusy, Code: uint8(status), Detail: "the device cannot do it now",
			Advice: "check the device, and allow more time",
		}
	default:
		return &Failure{
			Kind: fencemethods.ErrRefused, Code: uint8(status), Detail: "the device declines the command",
			Advice: "look the code up in RFC 3416, error-status",
		}
	}
}

// final reports whether trying again until the deadline makes no sense once f came several times.
func final(f *Failure) bool {
	switch f.Kind {
	case fencemethods.ErrAuth, fencemethods.ErrRefused, fencemethods.ErrProtocol, fencemethods.ErrUnsupported:
		return true
	default:
		return false
	}
}
