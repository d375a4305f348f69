// SPDX-License-Identifier: GPL-2.0-only

package redfish

import (
	"net/http"
	"strconv"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/operation"
)

// A failure is an error without the names that fencemethods adds. The ones below are made once, so
// that they can be compared: the same one several times running is the BMC's answer.
type failure = fencemethods.Error

var (
	failSilent = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no answer",
		Advice: "check addr, port and the way there",
	}
	failPortClosed = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "nothing listens on that port",
		Advice: "check addr and port, and that HTTPS is enabled on the BMC",
	}
	failNoRoute = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no way there from this node",
		Advice: "check addr and this node's routes",
	}
	failHungUp = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "the connection was closed before an answer",
		Advice: "check port, and whether the BMC restarts",
	}
	failLost = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "the BMC fell silent",
		Advice: "check its network and whether it restarts",
	}
	failTLS = &failure{
		Kind: fencemethods.ErrProtocol, Detail: "no TLS 1.2 or later could be agreed on",
		Advice: "check port, and the BMC's TLS settings",
	}
	failGarbage = &failure{
		Kind: fencemethods.ErrProtocol, Detail: "what answers does not speak HTTP as it should",
		Advice: "check addr and port",
	}
	failTooLong = &failure{
		Kind: fencemethods.ErrProtocol, Detail: "an answer is longer than " + strconv.Itoa(maxBody) + " bytes",
		Advice: "check system",
	}
	failNoSystem = &failure{
		Kind: fencemethods.ErrProtocol, Detail: "what answers is not the ComputerSystem that was asked for",
		Advice: "check system",
	}
	failNoReset = &failure{
		Kind: fencemethods.ErrUnsupported, Detail: "the system has no reset action for this user",
		Advice: "check system and the user's rights",
	}
	failNoForceOff = &failure{
		Kind: fencemethods.ErrUnsupported, Detail: "the BMC does not offer ForceOff",
		Advice: "update its firmware, or use another method",
	}
	failUnsure = &failure{
		Kind: fencemethods.ErrUnsupported, Detail: "the BMC does not say whether it takes ForceOff",
		Advice: "update its firmware, or try a fence by hand",
	}
	failNoOn = &failure{
		Kind: fencemethods.ErrUnsupported, Detail: "the BMC does not offer to power on",
		Advice: "power the node on by hand",
	}
	failUnproven = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "the BMC does not say whether the power is on or off",
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
	failPassword = &failure{
		Kind: fencemethods.ErrAuth, Detail: "the BMC does not take user and password",
		Advice: "check user and password_file, and whether the BMC has locked the user out",
	}
	failRights = &failure{
		Kind: fencemethods.ErrAuth, Detail: "the user may not do this",
		Advice: "give it the role Operator on the BMC",
	}
	failUntrusted = &failure{
		Kind: fencemethods.ErrAuth, Detail: "the BMC's certificate could not be verified",
		Advice: "check addr, the CA's file, the name in the certificate, and its dates",
	}
	failNoPath = &failure{
		Kind: fencemethods.ErrRefused, Detail: "the BMC has no such system",
		Advice: "check system; o2fencectl check names those there are",
	}
	failMoved = &failure{
		Kind: fencemethods.ErrRefused, Detail: "the BMC sends us to another address",
		Advice: "check system, down to the slash at its end",
	}
)

// failOther names the certificate of whoever answers.
func failOther(c otherCertificate) *failure {
	return &failure{
		Kind: fencemethods.ErrAuth, Detail: "the BMC's certificate has SHA-256 " + c.Error(),
		Advice: "check addr; if that is the BMC, change certificate",
	}
}

// failures are those that package operation tells apart.
var failures = operation.Failures{
	Silent: failSilent, Closed: failPortClosed, NoRoute: failNoRoute, HungUp: failHungUp, Lost: failLost, Unproven: failUnproven,
	StillOn: failStillOn, StillOff: failStillOff, Final: final,
}

// final reports whether trying again until the deadline makes no sense once f came several times.
// What is garbled may be the network's doing.
func final(f *failure) bool {
	switch f.Kind {
	case fencemethods.ErrAuth, fencemethods.ErrRefused, fencemethods.ErrUnsupported:
		return true
	default:
		return f == failNoSystem || f == failTooLong
	}
}

// statusFailure tells what an HTTP status means (DSP0266, "Status codes"), nil for success.
func statusFailure(status int) *failure {
	switch {
	case status >= 200 && status < 300:
		return nil
	case status == http.StatusUnauthorized:
		return failPassword
	case status == http.StatusForbidden:
		return failRights
	case status == http.StatusNotFound:
		return failNoPath
	case status >= 300 && status < 400:
		return failMoved
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return &failure{
			Kind: fencemethods.ErrBusy, Detail: "the BMC answers HTTP " + strconv.Itoa(status),
			Advice: "close other tools' sessions, or restart the BMC",
		}
	default:
		return &failure{
			Kind: fencemethods.ErrRefused, Detail: "the BMC answers HTTP " + strconv.Itoa(status),
			Advice: "look into the BMC's log",
		}
	}
}
