// SPDX-License-Identifier: GPL-2.0-only

package reserve

import (
	"context"
	"errors"
	"time"
)

// read reads the tables by all paths to a disk.
func (d *device) read(ctx context.Context, k *disk) fault {
	if len(k.paths) == 0 {
		return fault{k.name, failMissing}
	}
	if f := d.run(ctx, k.paths, read); f.why != nil {
		return f
	}
	return d.faults(k, Conflict)
}

// faults tells whether paths have failed, and whether that matters. A conflict gets another name.
func (d *device) faults(k *disk, conflict *Failure) fault {
	var first fault
	good := 0
	for _, p := range k.paths {
		switch {
		case p.fault == nil:
			good++
		case first.why != nil:
		case p.fault == Conflict:
			first = fault{p.link.Name(), conflict}
		default:
			first = fault{p.link.Name(), p.fault}
		}
	}
	if d.options.Answering && good > 0 {
		return fault{}
	}
	return first
}

// registered tells whether this node may fence.
func (d *device) registered(k *disk) fault {
	for _, p := range k.paths {
		if p.fault == nil && p.table.Mine == 0 {
			return fault{k.name, failSelf}
		}
	}
	return fault{}
}

// cut is the one place that says that a node is cut off from a disk: the zero fault, when every path
// that was read says so, and faults has seen that enough were. That the node can write comes before
// all other doubts.
func (d *device) cut(k *disk) fault {
	for _, p := range k.paths {
		switch {
		case p.fault != nil:
		case !p.table.Held:
			return fault{k.name, failOpen}
		case p.table.Theirs > 0:
			return fault{k.name, failThere}
		}
	}
	if f := d.known(k); f.why != nil {
		return f
	}
	return d.stands(k)
}

// known tells whether all keys are of nodes of the cluster.
func (d *device) known(k *disk) fault {
	for _, p := range k.paths {
		if p.fault == nil && p.table.Foreign > 0 {
			return fault{k.name, failForeignKey}
		}
	}
	return fault{}
}

// stands tells whether a reservation stands that lets nobody write who is not registered.
func (d *device) stands(k *disk) fault {
	for _, p := range k.paths {
		switch t := p.table; {
		case p.fault != nil:
		case !t.Held:
			return fault{k.name, failOpen}
		case !t.Right:
			return fault{k.name, failOther}
		case d.options.Lasting && !t.Lasting:
			return fault{k.name, failVolatile}
		}
	}
	return fault{}
}

// run gives the threads of some paths an order, and waits until all have carried it out.
func (d *device) run(ctx context.Context, paths []*path, o order) fault {
	deadline, _ := ctx.Deadline()
	began := time.Now()
	for _, p := range paths {
		p.due = true
	}
	for {
		waiting := 0
		for _, p := range paths {
			if !p.look(o) {
				waiting++
			}
		}
		now := time.Now()
		switch {
		case waiting == 0:
			return fault{}
		case errors.Is(ctx.Err(), context.Canceled):
			leave(paths)
			return fault{why: failCanceled}
		case !now.Before(deadline):
			return d.late(paths)
		case d.options.Answering && waiting < len(paths) && now.Sub(began) > hung:
			leave(paths)
			return fault{}
		}
		// A disk answers within a millisecond, or takes its time.
		time.Sleep(min(max(now.Sub(began)/4, 50*time.Microsecond), 5*time.Millisecond, deadline.Sub(now)))
	}
}

// leave counts the paths that are still waited for as ones that do not answer.
func leave(paths []*path) {
	for _, p := range paths {
		p.leave()
	}
}

func (d *device) late(paths []*path) fault {
	var first fault
	for _, p := range paths {
		if p.due && first.why == nil {
			first = fault{p.link.Name(), failHung}
		}
	}
	leave(paths)
	if d.sent {
		return fault{first.where, failLate}
	}
	return first
}
