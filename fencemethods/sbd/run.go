// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"context"
	"errors"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// A goal is what an operation is after.
type goal int

const (
	look   goal = iota
	kill        // a pill on the disks, for msgwait
	pardon      // no pill on the disks
	check       // all disks are as they should be
)

const (
	// poll is how often a pill is looked at. It is a read of two sectors.
	poll = 100 * time.Millisecond
	// hung is after what time of waiting a disk counts as one that does not answer.
	hung = time.Second
)

// run works on all disks at once, until it is clear how that ends. Only look has a state.
func (d *device) run(ctx context.Context, g goal) (fencemethods.State, error) {
	deadline, _ := ctx.Deadline()
	d.begin(g, deadline)
	for {
		now := time.Now()
		d.reap(now)
		state, done, err := d.verdict(now, deadline)
		switch {
		case done:
			return state, err
		case errors.Is(ctx.Err(), context.Canceled):
			return fencemethods.Unknown, ctx.Err()
		case !now.Before(deadline):
			return fencemethods.Unknown, d.why(now)
		}
		for _, k := range d.disks {
			if !k.busy() && k.step != stepDone && !now.Before(k.due) {
				k.begin(now)
			}
		}
		time.Sleep(d.nap(now, deadline))
	}
}

func (d *device) begin(g goal, deadline time.Time) {
	d.goal, d.start = g, time.Now()
	d.quit = deadline.Add(-time.Second)
	for _, k := range d.disks {
		k.reset()
		switch g {
		case kill:
			k.since = time.Time{} // what was there before says nothing of today's node
		case check:
			k.slot = -1
		}
	}
}

// nap is until the next I/O ends, probably, or is due.
func (d *device) nap(now, deadline time.Time) time.Duration {
	until := min(10*time.Millisecond, deadline.Sub(now))
	for _, k := range d.disks {
		switch {
		case k.busy():
			// A disk answers within a millisecond, or takes its time.
			until = min(until, max(now.Sub(k.began)/4, 100*time.Microsecond))
		case k.step != stepDone:
			until = min(until, max(k.due.Sub(now), 0))
		}
	}
	return until
}

// reap takes what has ended on to its next step.
func (d *device) reap(now time.Time) {
	for _, k := range d.disks {
		err := k.unsubmitted()
		switch {
		case err == nil:
			continue
		case k.stale:
			k.stale = false
		default:
			k.fail(ioFailure(k.cb.opcode, err), now)
		}
		k.began = time.Time{}
	}
	for _, e := range d.queue.ended() {
		k := d.disks[e.data]
		switch f := k.result(e.res); {
		case k.stale:
			k.stale = false
		case f != nil:
			k.fail(f, now)
		default:
			d.took(k, now)
		}
		k.began = time.Time{}
	}
}

// took goes on where a disk's I/O has succeeded.
func (d *device) took(k *disk, now time.Time) {
	var f *failure
	switch k.step {
	case stepHeader:
		f = d.tookHeader(k)
	case stepScan:
		if f = k.scan(d.name, d.goal == check); f == nil && (k.at == k.head.slots || k.slot >= 0 && d.goal != check) {
			k.step = stepMail
		}
	case stepMail:
		f = d.tookSlot(k, now)
	case stepWrite:
		k.step = stepMail
	case stepProbe:
		k.step = stepProbed
		if slotName(k.buf[:k.sector]) != nil {
			k.step, k.free = stepMail, -1 // taken meanwhile
		}
	case stepProbed:
		k.step, k.free = stepMail, -1
	}
	if f != nil {
		k.fail(f, now)
	}
}

// tookHeader looks at a disk anew each time: somebody may have initialized it.
func (d *device) tookHeader(k *disk) *failure {
	h, ok := decodeHeader(k.buf[:k.sector], k.sector)
	if !ok || h != k.head {
		k.head, k.valid, k.slot, k.since = h, false, -1, time.Time{}
	}
	if !ok {
		return failNotSBD
	}
	for _, other := range d.disks {
		if other != k && other.valid && other.head.uuid == h.uuid {
			return failTwice // two paths to one disk would be a majority by themselves
		}
	}
	watchdog := max(h.watchdog, d.watchdog)
	if h.watchdog <= 0 || max(h.msgwait, d.msgwait) < max(2*watchdog, watchdog+h.loop+d.io) {
		return failTimeouts
	}
	k.valid, k.step = true, stepMail
	if k.slot < 0 {
		k.at, k.step = 0, stepScan
	}
	return nil
}

// tookSlot has read the node's slot and mailbox.
func (d *device) tookSlot(k *disk, now time.Time) *failure {
	verifying := k.verifying
	k.verifying = false
	m, ok := decodeMail(k.buf[k.sector : 2*k.sector])
	if !ok || !sameName(slotName(k.buf[:k.sector]), d.name) {
		k.slot, k.since = -1, time.Time{}
		return failNoSlot
	}
	k.fault = nil
	k.due = now.Add(poll)
	switch d.goal {
	case look:
		k.note(m, now)
		k.step = stepDone
	case kill:
		return d.tookPill(k, m, verifying, now)
	case pardon:
		return d.tookPardon(k, m, verifying, now)
	case check:
		return d.tookCheck(k, m, now)
	}
	return nil
}

// tookPill keeps a pill in the mailbox. One of another o2fence is as good as ours, but counts from
// when it was seen; one of sbd's own tool is replaced, for it cannot be told from another like it.
func (d *device) tookPill(k *disk, m mail, verifying bool, now time.Time) *failure {
	if lethal(m.cmd) && m.serial != (serial{}) {
		k.note(m, now)
		if ripe := k.since.Add(d.wait()); ripe.After(now) && ripe.Before(k.due) {
			k.due = ripe
		}
		return nil
	}
	if verifying {
		return failForgets
	}
	k.lost = k.lost || !k.since.IsZero()
	k.since = time.Time{}
	k.write(mail{cmd: d.action}, d.from)
	return nil
}

// tookPardon takes a pill out, once it is old enough to have been obeyed.
func (d *device) tookPardon(k *disk, m mail, verifying bool, now time.Time) *failure {
	k.note(m, now)
	switch {
	case !lethal(m.cmd):
		k.step = stepDone
	case verifying:
		return failForgets
	case k.aged(d.wait()):
		k.write(mail{cmd: msgClear}, d.from)
	}
	return nil
}

// tookCheck goes on to prove that the disk can be written, and then, with ping, that sbd runs.
func (d *device) tookCheck(k *disk, m mail, now time.Time) *failure {
	late := now.After(d.quit) || now.Sub(d.start) > 2*k.head.loop+3*time.Second
	switch {
	case k.free >= 0:
		k.step, k.due = stepProbe, now
	case !d.ping, k.pinged && m.cmd == msgClear:
		k.step = stepDone
	case lethal(m.cmd):
		return failPillThere
	case m.cmd == msgExit, late && !k.pinged:
		return failDeaf
	case late:
		// Sbd would not start on a message that nobody took, where it is told to be careful.
		k.pinged = false
		k.write(mail{cmd: msgClear}, d.from)
	case !k.pinged:
		k.pinged = true
		k.write(mail{cmd: msgTest}, d.from)
	}
	return nil
}

// wait is msgwait: the longest of those that the disks and the configuration give.
func (d *device) wait() time.Duration {
	longest := d.msgwait
	for _, k := range d.disks {
		if k.valid {
			longest = max(longest, k.head.msgwait)
		}
	}
	return longest
}
