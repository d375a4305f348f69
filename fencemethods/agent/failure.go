// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/agent/sandbox"
)

// detailMax is how much of an agent's own words fits into an error, in bytes.
const detailMax = 90

var (
	failNoPlug = &fencemethods.Error{
		Kind: fencemethods.ErrProtocol, Detail: "it says off of a plug that it does not list",
		Advice: "check plug, and that the agent is for this device",
	}
	failStillOn = &fencemethods.Error{
		Kind: fencemethods.ErrNotOff, Detail: "the agent says so after its off", Advice: "look at the device",
	}
	failStillOff = &fencemethods.Error{
		Kind: fencemethods.ErrTimeout, Detail: "the agent says off after its on", Advice: "look at the device",
	}
)

// stillThere is the state that a command has not changed yet.
func stillThere(state fencemethods.State) *fencemethods.Error {
	if state == fencemethods.On {
		return failStillOn
	}
	return failStillOff
}

func asError(err error) *fencemethods.Error {
	if err == nil {
		return nil
	}
	if own, ok := errors.AsType[*fencemethods.Error](err); ok {
		return own
	}
	kind := err
	if errors.Is(err, context.DeadlineExceeded) {
		kind = fencemethods.ErrTimeout
	}
	return &fencemethods.Error{Kind: kind, Detail: "the agent had not answered", Advice: "allow more time"}
}

// final tells whether a failure will not go away by trying again.
func final(e *fencemethods.Error) bool {
	return errors.Is(e, fencemethods.ErrAuth) || errors.Is(e, fencemethods.ErrUnsupported) ||
		errors.Is(e, fencemethods.ErrProtocol) || errors.Is(e, fencemethods.ErrRefused)
}

func noSandbox(err error) error {
	e := &fencemethods.Error{Kind: syscall.ENOTCONN, Detail: short(err.Error()), Advice: "start o2fence-sandbox.service"}
	if errors.Is(err, sandbox.ErrRefused) {
		e.Kind, e.Advice = fencemethods.ErrRefused, "see the log of o2fence-sandbox.service"
	}
	return e
}

// failure is what a run that has failed means. Agents end with 1 whatever it was, so that it is
// guessed from their words.
func (d *device) failure(action string, r sandbox.Result) error {
	e := &fencemethods.Error{Advice: "run the agent by hand with -v"}
	said := d.lastWords(r)
	switch r.End {
	case sandbox.Deadline:
		e.Kind, e.Advice = fencemethods.ErrTimeout, "allow more time, or look at the device"
	case sandbox.Memory:
		e.Kind, e.Advice = syscall.ENOMEM, "raise memory_max_mib"
	case sandbox.Stopped:
		e.Kind = context.Canceled
	case sandbox.Exited:
		e.Kind, e.Code = kindOf(said), uint8(r.Code)
	default:
		e.Kind = fencemethods.ErrProtocol
		said = strings.TrimSpace(fmt.Sprintf("%s %d %s", r.End, r.Code, said))
	}
	e.Detail = short(strings.TrimSuffix(action+": "+said, ": "))
	return e
}

// kindOf knows the words of fence-agents' library (fail and fail_usage of lib/fencing.py).
func kindOf(said string) error {
	said = strings.ToLower(said)
	for _, known := range []struct {
		words string
		kind  error
	}{
		{"unsupported action", fencemethods.ErrUnsupported},
		{"unrecognised action", fencemethods.ErrUnsupported},
		{"waiting to power off", fencemethods.ErrNotOff},
		{"unable to connect", fencemethods.ErrUnreachable},
		{"timed out", fencemethods.ErrUnreachable},
		{"timeout", fencemethods.ErrUnreachable},
		{"connection lost", fencemethods.ErrUnreachable},
		{"no response", fencemethods.ErrUnreachable},
		{"no route", fencemethods.ErrUnreachable},
		{"password", fencemethods.ErrAuth},
		{"authentic", fencemethods.ErrAuth},
		{"privileges", fencemethods.ErrAuth},
		{"denied", fencemethods.ErrAuth},
	} {
		if strings.Contains(said, known.words) {
			return known.kind
		}
	}
	return fencemethods.ErrRefused
}

// lastWords is the last line of what an agent has said that says more than a date, without the
// secrets.
func (d *device) lastWords(r sandbox.Result) string {
	for _, out := range [][]byte{r.Stderr, r.Stdout} {
		lines := strings.Split(d.withoutSecrets(out), "\n")
		for i := len(lines) - 1; i >= 0; i-- {
			line := lines[i]
			// "2026-11-24 15:18:10,123 ERROR: Failed: ..."
			if _, after, ok := strings.Cut(line, "ERROR: "); ok {
				line = after
			}
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "Please use '-h'") {
				return line
			}
		}
	}
	return ""
}

func (d *device) withoutSecrets(out []byte) string {
	for _, secret := range d.secrets {
		out = bytes.ReplaceAll(out, secret, []byte(fencemethods.Secret{}.String()))
	}
	return string(out)
}

// short is text that fits into an error, printable.
func short(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > detailMax {
		text = strings.ToValidUTF8(text[:detailMax-3], "") + "..."
	}
	return text
}
