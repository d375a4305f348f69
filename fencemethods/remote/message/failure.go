// SPDX-License-Identifier: GPL-2.0-only

package message

import (
	"context"
	"errors"

	"github.com/o2fence/o2fence/fencemethods"
)

// A Failure is the number of an error's kind, 0 for none.
type Failure byte

// failures are the kinds by number. New ones come at the end.
func failures() [9]error {
	return [...]error{
		0: nil,
		1: fencemethods.ErrUnreachable,
		2: fencemethods.ErrAuth,
		3: fencemethods.ErrRefused,
		4: fencemethods.ErrProtocol,
		5: fencemethods.ErrBusy,
		6: fencemethods.ErrNotOff,
		7: fencemethods.ErrTimeout,
		8: fencemethods.ErrUnsupported,
	}
}

const refused = Failure(3)

// FailureOf is the number of err's kind. It is 0 for nil and for nothing else: an error that nobody
// thought of counts as ErrRefused.
func FailureOf(err error) Failure {
	if err == nil {
		return 0
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fencemethods.ErrTimeout
	}
	for i, kind := range failures() {
		if kind != nil && errors.Is(err, kind) {
			return Failure(i)
		}
	}
	return refused
}

// Kind is one of the Err values of package fencemethods, and nil for 0 alone.
func (f Failure) Kind() error {
	all := failures()
	if int(f) >= len(all) {
		f = refused
	}
	return all[f]
}
