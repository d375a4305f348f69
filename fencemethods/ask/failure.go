// SPDX-License-Identifier: GPL-2.0-only

package ask

import (
	"fmt"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// A failure is an error without the names that fencemethods adds.
type failure = fencemethods.Error

const adviceDeclined = "the next method has its turn"

var (
	failSilent = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no answer",
		Advice: "check addrs, port and the way there, and that o2fence-listen.service runs",
	}
	failNoRoute = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no way there from this node",
		Advice: "check addrs and this node's routes",
	}
	failGarbage = &failure{
		Kind: fencemethods.ErrProtocol, Detail: "what answers is no listener of o2fencectl",
		Advice: "check addrs, port, and the version there",
	}
	failKey = &failure{
		Kind: fencemethods.ErrAuth, Detail: "no answer that this key has sealed",
		Advice: "check that key_file is the same on both sides",
	}
	failLost = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "whoever was asked fell silent",
		Advice: "check the network, and o2fence-listen.service",
	}
	failNobody = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "nobody has answered",
		Advice: "see o2fencectl questions on the admin machines, and allow more time",
	}
	failNoWay = &failure{
		Kind: fencemethods.ErrUnsupported, Detail: "nobody is asked to power a node on",
		Advice: "power it on by hand",
	}
)

// why says what is known when nobody has answered: what a machine has said before what none has.
func (d *device) why(confirmed int) *failure {
	if confirmed > 0 {
		return &failure{
			Kind: fencemethods.ErrTimeout, Detail: fmt.Sprintf("%d of %d have confirmed", confirmed, d.require),
			Advice: failNobody.Advice,
		}
	}
	best := d.talks[0]
	for _, t := range d.talks[1:] {
		if t.knows() > best.knows() {
			best = t
		}
	}
	return best.why()
}

// knows ranks what is known.
func (t *talk) knows() int {
	switch {
	case !t.heard.IsZero() && !t.lost():
		return 3
	case !t.heard.IsZero():
		return 2
	case t.unverified || t.odd > 0:
		return 1
	}
	return 0
}

// lost tells whether a machine has answered, and does not any more.
func (t *talk) lost() bool { return time.Since(t.heard) > 3*t.d.repeat }

func (t *talk) why() *failure {
	switch {
	case t.answer == no:
		return &failure{Kind: fencemethods.ErrRefused, Detail: t.word, Advice: "see its messages"}
	case !t.heard.IsZero() && !t.lost():
		return failNobody
	case !t.heard.IsZero():
		return failLost
	case t.unverified || t.odd > 0:
		return failKey
	case t.d.garbage:
		return failGarbage
	case t.err != nil:
		return failNoRoute
	}
	return failSilent
}
