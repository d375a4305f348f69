// SPDX-License-Identifier: GPL-2.0-only

package reserve

import (
	"context"

	"github.com/o2fence/o2fence/fencemethods"
)

var (
	failHung = &Failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no answer",
		Advice: "check the path",
	}
	failMissing = &Failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no path to it was there when the configuration was read",
		Advice: "check disks and the paths, and restart o2fenced",
	}
	failLate = &Failure{
		Kind: fencemethods.ErrTimeout, Detail: "the key was to be taken away, and the disk has not answered",
		Advice: "check the paths, and allow more time",
	}
	failThere = &Failure{
		Kind: fencemethods.ErrNotOff, Detail: "the node's key is registered",
		Advice: "check the storage: it takes keys away and has them still",
	}
	failSelf = &Failure{
		Kind: fencemethods.ErrRefused, Detail: "this node has no key there: it was fenced itself, or has never registered",
		Advice: "unmount, then: o2fencectl unfence",
	}
	failOpen = &Failure{
		Kind: fencemethods.ErrRefused, Detail: "no reservation: who is not registered can write all the same",
		Advice: "o2fencectl unfence on every node, before OCFS2 is mounted",
	}
	failOther = &Failure{
		Kind: fencemethods.ErrRefused, Detail: "the reservation is not Write Exclusive - All Registrants",
		Advice: "see who else reserves this disk, and make him release it",
	}
	failForeignKey = &Failure{
		Kind: fencemethods.ErrRefused, Detail: "there are keys that are none of this cluster's: nobody knows who can write by them",
		Advice: "see whose they are, and remove them",
	}
	failVolatile = &Failure{
		Kind: fencemethods.ErrRefused, Detail: "reservations end with the storage's power: a fenced node could write again",
		Advice: "have the storage keep them, or set persist = no and take that risk",
	}
	failPath = &Failure{
		Kind: fencemethods.ErrRefused, Detail: "this path is not registered, though the node is",
		Advice: "unmount, then: o2fencectl unfence",
	}
	failCanceled = &Failure{Kind: context.Canceled}
	failOwn      = &Failure{
		Kind: fencemethods.ErrRefused, Detail: "a node does not take its own key away",
		Advice: "order it from another node",
	}
	failStranger = &Failure{
		Kind: fencemethods.ErrRefused, Detail: "this machine is no node of the cluster, and has no key",
		Advice: "check the host name against cluster.conf",
	}
	failForeign = &Failure{
		Kind: fencemethods.ErrUnsupported, Detail: "a node can only be registered by itself",
		Advice: "restart the node: it registers when it starts (o2fencectl unfence)",
	}
)

// A fault is a failure of a disk or path; the zero value is none.
type fault struct {
	where string
	why   *Failure
}

// nameMax is how much of a name fits an error; the end tells more than the beginning.
const nameMax = 40

// error adds the name. This allocates: a failure may.
func (f fault) error() error {
	switch {
	case f.why == nil:
		return nil
	case f.where == "":
		return f.why
	case len(f.where) > nameMax:
		f.where = "..." + f.where[len(f.where)-nameMax+3:]
	}
	e := *f.why
	e.Detail = f.where + ": " + e.Detail
	return &e
}

// final reports whether the next try will end the same way.
func (f fault) final() bool {
	if f.why == nil || f.why == failMissing {
		return true
	}
	switch f.why.Kind {
	case fencemethods.ErrRefused, fencemethods.ErrUnsupported, context.Canceled:
		return true
	}
	return false
}
