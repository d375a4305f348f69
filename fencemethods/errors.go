// SPDX-License-Identifier: GPL-2.0-only

package fencemethods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// What can go wrong, for errors.Is. Everything a Device returns is one of these.
var (
	ErrUnreachable = errors.New("unreachable")                  // not one valid answer came
	ErrAuth        = errors.New("credentials refused")          // wrong user, password or rights
	ErrRefused     = errors.New("command refused")              // reached, understood, and declined
	ErrProtocol    = errors.New("protocol violated")            // something answers, but not as the protocol says
	ErrBusy        = errors.New("device busy")                  // no free session, all through the deadline
	ErrNotOff      = errors.New("still on")                     // read as on at the deadline
	ErrTimeout     = errors.New("no proof before the deadline") // it answered, but in the end nobody knows
	ErrUnsupported = errors.New("not supported by this method") // such as On of a poison pill
	ErrNoDeadline  = errors.New("context without a deadline")   // the caller's mistake
)

// An Error is how every operation of a Device fails: what failed, why, and what to do about it.
// Its text holds no secret. That of a fence fits the wire (O2FENCE_TEXT_MAX, 255 bytes) with node
// names of up to O2FENCE_NAME_MAX.
type Error struct {
	Method string
	Node   string
	Op     string // "off", "on", "status", "check" or "open"
	Kind   error  // one of the Err values, or a context's error
	Code   uint8  // the device's own code; 0 is none
	Detail string // what was seen
	Advice string // what to do about it
}

// Error returns the text that AppendText appends.
func (e *Error) Error() string {
	b, _ := e.AppendText(nil)
	return string(b)
}

// Unwrap returns the kind, for errors.Is.
func (e *Error) Unwrap() error { return e.Kind }

// AppendText appends the text to b, for those that may not allocate. It never fails.
func (e *Error) AppendText(b []byte) ([]byte, error) {
	if e.Method != "" {
		b = append(b, e.Method...)
		b = append(b, ' ')
		b = append(b, e.Node...)
		b = append(b, ": "...)
		b = append(b, e.Op...)
		b = append(b, ": "...)
	}
	b = append(b, e.Kind.Error()...)
	if e.Detail != "" {
		b = append(b, ": "...)
		b = append(b, e.Detail...)
	}
	if e.Code != 0 {
		b = append(b, " (code 0x"...)
		b = strconv.AppendUint(b, uint64(e.Code), 16)
		b = append(b, ')')
	}
	if e.Advice != "" {
		b = append(b, "; "...)
		b = append(b, e.Advice...)
	}
	return b, nil
}

// wrap adds to err which method failed for which node at what. A method returns its own *Error
// without these three.
func (m Method) wrap(target Target, op string, err error) error {
	e := Error{Kind: err}
	if own, ok := errors.AsType[*Error](err); ok {
		e = *own
	}
	if errors.Is(err, context.DeadlineExceeded) {
		e.Kind = ErrTimeout
	}
	if e.Kind == ErrTimeout && e.Advice == "" {
		e.Advice = "allow more time"
	}
	e.Method, e.Node, e.Op = m.Name, target.Name, op
	return &e
}

// Errno maps an error to the number that a FENCED message carries. It is 0 for nil and for nothing
// else: an error that nobody thought of is EIO.
func Errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	for _, known := range errnos() {
		if errors.Is(err, known.err) {
			return known.errno
		}
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok && errno != 0 {
		return errno
	}
	return syscall.EIO
}

type errnoOf struct {
	err   error
	errno syscall.Errno
}

// errnos returns an array, not a slice, so that looking it up does not allocate.
func errnos() [12]errnoOf {
	return [...]errnoOf{
		{ErrUnreachable, syscall.EHOSTUNREACH},
		{ErrAuth, syscall.EACCES},
		{ErrRefused, syscall.EREMOTEIO},
		{ErrProtocol, syscall.EPROTO},
		{ErrBusy, syscall.EAGAIN},
		{ErrNotOff, syscall.EBUSY},
		{ErrTimeout, syscall.ETIMEDOUT},
		{ErrUnsupported, syscall.EOPNOTSUPP},
		{ErrNoDeadline, syscall.EINVAL},
		{os.ErrClosed, syscall.EBADF},
		{context.DeadlineExceeded, syscall.ETIMEDOUT},
		{context.Canceled, syscall.ECANCELED},
	}
}

// A ParamError is a parameter that does not fit its method. Its text never holds the value of a
// parameter that names a secret: people put the secret itself there.
type ParamError struct {
	Method string
	Key    string
	Text   string // what is wrong with Key and what would be right
}

// Error returns "METHOD: KEY: what is wrong".
func (e *ParamError) Error() string {
	return fmt.Sprintf("%s: %s: %s", e.Method, e.Key, e.Text)
}
