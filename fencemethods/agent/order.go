// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"errors"
	"fmt"
)

// ErrOrder is the refusal of CheckOrder.
var ErrOrder = errors.New("not deadlock-proof")

// A Step is what CheckOrder wants to know of one method in a node's list: its name and parameters.
type Step struct {
	Method string
	Values map[string]string
}

// CheckOrder refuses a node's list of methods, in the order in which they are tried, that has an
// agent without a deadlock-proof method before it, unless allow_unsafe says that this is meant. It
// is for whoever checks a configuration. The method "test" fences nothing, so it is no such method;
// nor is a method of the same level, which the caller leaves out.
//
// index is that of the step to blame, -1 for none; the error is ErrOrder.
func CheckOrder(steps []Step) (index int, err error) {
	proof := false
	for i, s := range steps {
		switch {
		case s.Method == "test":
		case s.Method != Name:
			proof = true
		case !proof && s.Values["allow_unsafe"] != "yes":
			return i, fmt.Errorf("method %s: %w: expected a method such as ipmi before it, or allow_unsafe = yes", Name, ErrOrder)
		}
	}
	return -1, nil
}
