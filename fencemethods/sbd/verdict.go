// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// verdict tells whether the operation is over, and how.
func (d *device) verdict(now, deadline time.Time) (state fencemethods.State, done bool, err error) {
	switch d.goal {
	case look:
		return d.looked(now)
	case kill:
		done, err = d.killed(now, deadline)
	case pardon:
		done, err = d.pardoned(now)
	case check:
		done, err = d.checked()
	}
	return fencemethods.Unknown, done, err
}

// killed is the one place that says that a node is fenced: more than half of all disks had a pill
// that has been there, the very same, for msgwait, and was read to be there still.
func (d *device) killed(now, deadline time.Time) (done bool, err error) {
	proven, wait := 0, d.wait()
	for _, k := range d.disks {
		if k.aged(wait) {
			proven++
		}
	}
	if proven >= d.majority() {
		return true, nil
	}
	if d.spoiled() {
		return true, d.why(now)
	}
	hopeless := d.start.Add(wait).After(deadline)
	since, ok := d.since()
	switch {
	case ok && since.Add(wait).After(deadline):
		// The pill is written even where the time is too short to prove anything: the node that
		// should die does, and what is tried next finds it dead.
		return true, d.late(hopeless)
	case !ok && !hopeless && now.Add(wait).After(deadline):
		return true, d.why(now)
	}
	return false, nil
}

// since is when the first majority of disks had the pill, of those that have it still.
func (d *device) since() (at time.Time, ok bool) {
	for _, k := range d.disks {
		if !k.pill() {
			continue
		}
		earlier := 0
		for _, other := range d.disks {
			if other.pill() && !other.since.After(k.since) {
				earlier++
			}
		}
		if earlier >= d.majority() && (!ok || k.since.Before(at)) {
			at, ok = k.since, true
		}
	}
	return at, ok
}

func (d *device) late(hopeless bool) error {
	for _, k := range d.disks {
		if k.lost {
			return failCleared
		}
	}
	if hopeless {
		return failTooShort
	}
	return failLate
}

// spoiled tells whether so many disks cannot be used that there is no majority.
func (d *device) spoiled() bool {
	bad := 0
	for _, k := range d.disks {
		if k.fault != nil && final(k.fault) {
			bad++
		}
	}
	return len(d.disks)-bad < d.majority()
}

// settled tells whether nothing is expected soon of the disks that are not done.
func (d *device) settled(now time.Time) bool {
	for _, k := range d.disks {
		if k.step != stepDone && k.fault == nil && !k.pill() && !d.hangs(k, now) {
			return false
		}
	}
	return true
}

func (d *device) hangs(k *disk, now time.Time) bool {
	return k.busy() && now.Sub(k.began) > hung
}

// looked ends when a majority agrees, or nothing more will be known.
func (d *device) looked(now time.Time) (fencemethods.State, bool, error) {
	on, off, read := 0, 0, 0
	for _, k := range d.disks {
		if k.fault != nil || k.step != stepDone {
			continue
		}
		read++
		switch {
		case k.aged(d.wait()):
			off++
		case !lethal(k.there.cmd):
			on++
		}
	}
	switch {
	case off >= d.majority():
		return fencemethods.Off, true, nil
	case on >= d.majority():
		return fencemethods.On, true, nil
	case read >= d.majority() && d.settled(now):
		return fencemethods.Unknown, true, nil
	case d.spoiled():
		return fencemethods.Unknown, true, d.why(now)
	}
	return fencemethods.Unknown, false, nil
}

// pardoned ends when no disk that answers has a pill.
func (d *device) pardoned(now time.Time) (done bool, err error) {
	clean := 0
	for _, k := range d.disks {
		switch {
		case k.fault == nil && k.step == stepDone:
			clean++
		case k.fault == nil && !d.hangs(k, now):
			return false, nil
		}
	}
	if clean < d.majority() && d.spoiled() {
		return true, d.why(now)
	}
	return clean >= d.majority(), nil
}

// checked ends when all disks are good, or one of them is bad.
func (d *device) checked() (done bool, err error) {
	for _, k := range d.disks {
		if k.fault != nil && (final(k.fault) || k.fault == failDeaf) {
			return true, of(k.name, k.fault)
		}
	}
	first := d.disks[0].head
	for _, k := range d.disks {
		if k.step != stepDone {
			return false, nil
		}
	}
	for _, k := range d.disks {
		if h := k.head; h.watchdog != first.watchdog || h.msgwait != first.msgwait || h.loop != first.loop || h.allocate != first.allocate {
			return true, of(k.name, failDiffers)
		}
	}
	return true, nil
}

// why says what was in the way.
func (d *device) why(now time.Time) error {
	for _, k := range d.disks {
		switch {
		case k.lost && d.goal == kill:
			return failCleared
		case k.pinged:
			return of(k.name, failDeaf)
		case k.fault != nil:
			return of(k.name, k.fault)
		case k.busy() && (k.stale || d.hangs(k, now)):
			return of(k.name, failHung)
		}
	}
	for _, k := range d.disks {
		if d.goal == pardon && k.pill() {
			return failPending
		}
	}
	return failLate
}
