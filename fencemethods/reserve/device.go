// SPDX-License-Identifier: GPL-2.0-only

package reserve

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

const (
	// hung is after what time a path that does not answer is left out, where that is allowed.
	hung = time.Second
	// again is how long after something went wrong it is tried once more.
	again = 100 * time.Millisecond
)

// Options are what a configuration says beside the disks.
type Options struct {
	Lasting   bool // only what survives a loss of the disk's power counts
	Answering bool // the paths that answer suffice, if there is one to each disk
}

// A device is one node's right to write to some disks.
type device struct {
	options Options
	mine    Key
	theirs  Key
	disks   []*disk
	sent    bool // the operation has told a disk to take the key away
}

type disk struct {
	name  string
	paths []*path
}

// New makes the Device that cuts off target, and starts a thread for each path. The links are its
// own from then on. A disk without one is remembered as missing.
func New(target fencemethods.Target, disks []Disk, options Options) fencemethods.Device {
	d := &device{
		options: options,
		mine:    KeyOf(target.Cluster, target.From),
		theirs:  KeyOf(target.Cluster, target.Node),
	}
	for _, each := range disks {
		k := &disk{name: each.Name}
		for _, link := range each.Links {
			k.paths = append(k.paths, newPath(link, d.mine, d.theirs))
		}
		d.disks = append(d.disks, k)
	}
	// All nodes begin with the same one: see the package.
	slices.SortFunc(d.disks, func(a, b *disk) int { return cmp.Compare(a.name, b.name) })
	return d
}

// Off takes the node's key away from all disks, one after the other. It is fenced when no path to any
// of them shows it any more, and the reservation stands.
func (d *device) Off(ctx context.Context) error {
	if d.mine == d.theirs {
		return failOwn
	}
	d.sent = false
	return d.each(ctx, d.cutOff)
}

// On registers this very node with all disks by all paths, and sees to the reservation. It must not
// be called while the node uses them: a node that was fenced, and does not know it, would write again.
// Another node has to do it itself.
func (d *device) On(ctx context.Context) error {
	if d.mine != d.theirs {
		return failForeign
	}
	d.sent = false
	return d.each(ctx, d.enter)
}

// Status is Off when the node's key is gone from all disks and the reservation stands, On when it is
// registered anywhere, or some disk has no reservation: then it can write.
func (d *device) Status(ctx context.Context) (fencemethods.State, error) {
	d.sent = false
	var first fault
	for _, k := range d.disks {
		f := d.read(ctx, k)
		if f.why == nil {
			f = d.cut(k)
		}
		switch {
		case f.why == failThere || f.why == failOpen:
			return fencemethods.On, nil
		case first.why == nil:
			first = f
		}
	}
	if first.why != nil {
		return fencemethods.Unknown, first.error()
	}
	return fencemethods.Off, nil
}

// Check proves that this node could fence: it is registered by every path to every disk, the
// reservation stands, and all keys are of nodes of the cluster.
func (d *device) Check(ctx context.Context) error {
	d.sent = false
	return d.each(ctx, func(ctx context.Context, k *disk) fault {
		if f := d.check(ctx, k); f.why != nil {
			return f
		}
		return d.known(k)
	})
}

// Close ends the threads.
func (d *device) Close() error {
	for _, k := range d.disks {
		for _, p := range k.paths {
			p.close()
		}
	}
	return nil
}

// each does something to all disks. With each it tries until it succeeds, can never succeed, or time
// is over.
func (d *device) each(ctx context.Context, do func(context.Context, *disk) fault) error {
	deadline, _ := ctx.Deadline()
	for _, k := range d.disks {
		var last fault
		for {
			began := time.Now()
			f := do(ctx, k)
			if f.why == nil {
				break
			}
			if (f.why == failLate || f.why == failHung) && last.why != nil && time.Since(began) < hung {
				f = last // which says more than that there was no time for another try
			}
			if f.final() || !time.Now().Add(again).Before(deadline) {
				return f.error()
			}
			last = f
			time.Sleep(again)
		}
	}
	return nil
}

// cutOff takes the key away from one disk, if it is there, reads that it is gone, and has the disk store
// that where it has to last.
func (d *device) cutOff(ctx context.Context, k *disk) fault {
	f := d.judge(ctx, k)
	if f.why == failThere {
		if f = d.preempt(ctx, k); f.why == nil {
			f = d.judge(ctx, k)
		}
	}
	if f.why != nil || !d.options.Lasting {
		return f
	}
	return d.store(ctx, k)
}

// store has the disk store its table, and say so. That a key was taken away proves nothing of the kind:
// Linux' target says that it has done it whether or not it could store it, and after its next start has
// the key again. That holds for a key that was gone before, too.
func (d *device) store(ctx context.Context, k *disk) fault {
	f := d.any(ctx, k, prove)
	if f.why != Conflict {
		return f
	}
	if g := d.judge(ctx, k); g.why != nil {
		return g
	}
	return fault{f.where, failPath}
}

// judge reads a disk, and tells whether the node is cut off from it, and this one is not.
func (d *device) judge(ctx context.Context, k *disk) fault {
	if f := d.read(ctx, k); f.why != nil {
		return f
	}
	if f := d.registered(k); f.why != nil {
		return f
	}
	return d.cut(k)
}

// preempt does it by the first path that is allowed to. A conflict on all of them is no failure yet:
// the key may have been taken away by somebody else, and so may this node's.
func (d *device) preempt(ctx context.Context, k *disk) fault {
	d.sent = true
	f := d.any(ctx, k, preempt)
	if f.why != Conflict {
		return f
	}
	if g := d.judge(ctx, k); g.why != failThere {
		return g
	}
	return fault{f.where, failPath}
}

// any gives the order by one path after the other, until it is carried out: a Conflict when none is
// registered.
func (d *device) any(ctx context.Context, k *disk, o order) fault {
	var first fault
	for i, p := range k.paths {
		if p.busy {
			continue
		}
		if f := d.run(ctx, k.paths[i:i+1], o); f.why != nil {
			return f
		}
		switch {
		case p.fault == nil:
			return fault{}
		case first.why == nil || first.why == Conflict:
			first = fault{p.link.Name(), p.fault}
		}
	}
	return first
}

// enter registers this node with one disk by all paths, and proves that it is.
func (d *device) enter(ctx context.Context, k *disk) fault {
	for _, o := range []order{register, reserve} {
		if f := d.run(ctx, k.paths, o); f.why != nil {
			return f
		}
		if f := d.faults(k, Conflict); f.why != nil {
			return f
		}
	}
	return d.check(ctx, k)
}

// check proves that this node is registered with one disk by all paths.
func (d *device) check(ctx context.Context, k *disk) fault {
	if f := d.read(ctx, k); f.why != nil {
		return f
	}
	if f := d.registered(k); f.why != nil {
		return f
	}
	if f := d.stands(k); f.why != nil {
		return f
	}
	if f := d.run(ctx, k.paths, prove); f.why != nil {
		return f
	}
	return d.faults(k, failPath)
}
