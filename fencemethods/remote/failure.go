// SPDX-License-Identifier: GPL-2.0-only

package remote

import "github.com/o2fence/o2fence/fencemethods"

// A failure is an error without the names that fencemethods adds.
type failure = fencemethods.Error

// room is what the history's 255 bytes leave of a failure for what the other side says and the advice:
// the rest are the names of method, node and operation, the kind, and what stands between.
const room = 255 - 16 - 64 - 8 - 28 - 8

// failures are made once, with the word for the other side, so that they cost nothing at fence time.
type failures struct {
	silent, closed, noRoute, garbage, lost, key, otherKey, busy, late, unproven, undone failure
}

func newFailures(peer string) *failures {
	return &failures{
		silent: failure{
			Kind: fencemethods.ErrUnreachable, Detail: "no answer",
			Advice: "check addresses, port and the way there, and that the " + peer + " runs",
		},
		closed: failure{
			Kind: fencemethods.ErrUnreachable, Detail: "nothing listens on that port",
			Advice: "check addresses and port, and start the " + peer,
		},
		noRoute: failure{
			Kind: fencemethods.ErrUnreachable, Detail: "no way there from this node",
			Advice: "check addresses and this node's routes",
		},
		garbage: failure{
			Kind: fencemethods.ErrProtocol, Detail: "what answers is no " + peer,
			Advice: "check addresses, port, and the version there",
		},
		lost: failure{
			Kind: fencemethods.ErrTimeout, Detail: "the " + peer + " fell silent",
			Advice: "check its network and whether it restarts",
		},
		key: failure{
			Kind: fencemethods.ErrAuth, Detail: "the " + peer + " says that it cannot verify this node",
			Advice: "check that key_file is the same on both sides",
		},
		otherKey: failure{
			Kind: fencemethods.ErrAuth, Detail: "what answers has another key",
			Advice: "check that key_file is the same on both sides",
		},
		busy: failure{
			Kind: fencemethods.ErrBusy, Detail: "the " + peer + " acts on this node for somebody else",
			Advice: "look at its messages, and allow more time",
		},
		late: failure{
			Kind: fencemethods.ErrTimeout, Detail: "the " + peer + " is at it still",
			Advice: "allow more time than its own method needs",
		},
		unproven: failure{
			Kind: fencemethods.ErrProtocol, Detail: "the " + peer + " claims success without the state that was ordered",
			Advice: "check the version there",
		},
		undone: failure{Advice: "see the " + peer + "'s messages"}, // with what the other side says
	}
}
