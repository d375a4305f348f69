// SPDX-License-Identifier: GPL-2.0-only

// Package sbd fences through shared disks: it puts a poison pill into the node's mailbox, which the
// daemon sbd on the node reads, and obeys by resetting it. The disks are as Debian's sbd has them,
// which may be used beside it.
//
// That the node is off nobody can read from a disk. What is read is that the pill was on a majority
// of the disks, and stayed there for all of msgwait. That the node is off then is sbd's contract
// (sbd(8)): on the node runs sbd, with these disks and a watchdog in hardware. Sbd feeds the
// watchdog only while it can read a majority of three disks, or one of two: one of those that it
// reads has the pill. So a node that lives has read it, and obeyed. One that hangs has been reset by
// its watchdog, for which twice its time is allowed. And one that lost its disks just before feeds
// the watchdog for a loop and an I/O's time more (quorum_read and its caller in sbd-inquisitor.c),
// so msgwait has to be longer than these and the watchdog's time, too: that sbd itself does not ask
// for. With sbd's defaults, 5, 1, 3 and 10 seconds, it is. The contract is broken where
// sbd does not run, runs with other disks, without a watchdog or with softdog in a kernel that
// hangs, or with Pacemaker's integration (SBD_PACEMAKER=yes), which lets a node live that has lost
// its disks. Check proves what of this shows on the disks; with ping=yes also that sbd runs.
//
// Each Off waits msgwait anew. A pill that was there before, even one of our own, says nothing of
// the node of today, which may have come back without sbd.
//
// All I/O is direct, asynchronous, and into memory that was mapped when the device was made. Each disk has a
// thread, started then, that submits it.
package sbd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// disksMax is how many disks sbd takes.
const disksMax = 3

// Method describes this method.
func Method() fencemethods.Method {
	return fencemethods.Method{
		Name:      "sbd",
		Summary:   "poison pill on shared disks, obeyed by sbd on the node",
		MemoryKiB: 32,
		New:       New,
		Params: []fencemethods.Param{
			{
				Name: "disks", Required: true, Validate: validDisks,
				Help: "the disks of the node's sbd (SBD_DEVICE), one to three, separated by commas",
			},
			{
				Name: "slot", Required: true, Identity: true, Validate: validSlot,
				Help: "name of the node's slot on the disks, as sbd list shows it",
			},
			{
				Name: "action", Default: "reset", Validate: fencemethods.OneOf("reset", "off", "crashdump"),
				Help: "what the node is told: reset, off or crashdump",
			},
			{
				Name: "msgwait", Validate: fencemethods.Between(1, 3600),
				Help: "seconds to wait, where that is to be longer than what the disks say",
			},
			{
				Name: "watchdog", Validate: fencemethods.Between(1, 1800),
				Help: "seconds of the node's watchdog, where that is longer than what the disks say",
			},
			{
				Name: "io", Default: "3", Validate: fencemethods.Between(1, 600),
				Help: "seconds after which the node's sbd gives up an I/O (its option -I)",
			},
			{
				Name: "ping", Default: "no", Validate: fencemethods.OneOf("yes", "no"),
				Help: "yes: check sends sbd's test message; it could overwrite a message that sbd's own tool sends just then",
			},
		},
	}
}

func validDisks(s string) error {
	names := strings.Split(s, ",")
	if len(names) > disksMax {
		return fmt.Errorf("%d disks: sbd takes one to %d", len(names), disksMax)
	}
	for i, name := range names {
		switch {
		case !filepath.IsAbs(name):
			return fmt.Errorf("%q is not an absolute path: give such as /dev/disk/by-id/..., separated by commas without spaces", name)
		case slices.Contains(names[:i], name):
			return fmt.Errorf("%q is there twice: each disk counts once", name)
		}
	}
	return nil
}

func validSlot(s string) error {
	if len(s) > nameMax {
		return fmt.Errorf("longer than the %d bytes that sbd allows", nameMax)
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("%q is no host name", s)
		}
	}
	return nil
}

// A device is one node's mailboxes.
type device struct {
	disks    []*disk
	queue    *queue
	name     string // of the slot
	from     string // who we are
	action   byte
	msgwait  time.Duration // at least
	watchdog time.Duration // at least
	io       time.Duration // for which the node's sbd waits for a disk
	ping     bool

	goal  goal
	start time.Time // of the operation
	quit  time.Time // when the test message has been there for too long
}

// New opens the disks, of which a majority has to be there, and looks for the node's slot.
func New(_ fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	d := &device{
		name: v["slot"], ping: v["ping"] == "yes",
		msgwait:  time.Duration(v.Int("msgwait")) * time.Second,
		watchdog: time.Duration(v.Int("watchdog")) * time.Second,
		io:       time.Duration(v.Int("io")) * time.Second,
		action:   map[string]byte{"reset": msgReset, "off": msgOff, "crashdump": msgCrashdump}[v["action"]],
	}
	if d.msgwait > 0 && d.msgwait < 2*d.watchdog {
		return nil, &fencemethods.ParamError{
			Method: "sbd", Key: "msgwait",
			Text: fmt.Sprintf("shorter than twice the watchdog: expected at least %d", 2*v.Int("watchdog")),
		}
	}
	var err error
	if d.from, err = os.Hostname(); err != nil {
		return nil, err
	}
	if d.queue, err = newQueue(); err != nil {
		return nil, fmt.Errorf("io_setup: %w", err)
	}
	if err := d.open(strings.Split(v["disks"], ",")); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	// A slot that is known is not looked for at fence time. What is wrong Check tells.
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	_, _ = d.run(ctx, look)
	for _, k := range d.disks {
		k.since = time.Time{}
	}
	return d, nil
}

// lookTime is what New gives disks that hang.
const lookTime = time.Second

func (d *device) open(names []string) error {
	var errs []error
	numbers := map[uint64]string{}
	for i, name := range names {
		k, err := openDisk(name)
		if err != nil {
			errs = append(errs, err)
			k = &disk{name: name, fd: -1, slot: -1}
		}
		k.cb.data = uint64(i)
		d.disks = append(d.disks, k)
		if k.fd < 0 {
			continue
		}
		k.serve(d.queue)
		number, err := k.number()
		if err != nil {
			return err
		}
		if other := numbers[number]; other != "" {
			return fmt.Errorf("%s and %s are the same disk: each counts once", other, name)
		}
		numbers[number] = name
	}
	if len(numbers) < d.majority() {
		return errors.Join(errs...)
	}
	return nil
}

// majority is how many disks are more than half of them.
func (d *device) majority() int { return len(d.disks)/2 + 1 }

// Off puts the pill on the disks, and sees to it that it stays there for msgwait.
func (d *device) Off(ctx context.Context) error {
	_, err := d.run(ctx, kill)
	return err
}

// On takes a pill out again that has lain there for msgwait, so that the node's sbd starts also
// where it is told not to after a fence (SBD_STARTMODE=clean). It switches nothing on.
func (d *device) On(ctx context.Context) error {
	_, err := d.run(ctx, pardon)
	return err
}

// Status is Off where a pill lies on a majority of the disks, and this device has seen it there for
// msgwait: then sbd's contract says that the node was fenced, and sbd has not started there since.
// It is On where there is no pill: nothing keeps the node away. Whether it has power nobody knows.
func (d *device) Status(ctx context.Context) (fencemethods.State, error) {
	return d.run(ctx, look)
}

// Check reads all disks, and asks for what Off needs: headers and timeouts, one slot of that name on
// each, and the right to write. That is proven by writing back what is in a mailbox that no node
// has. With ping the node's sbd has to answer.
func (d *device) Check(ctx context.Context) error {
	_, err := d.run(ctx, check)
	return err
}

// Close closes the disks. Where one hangs, its memory and the kernel's context for it are left: to
// wait for them could be for ever.
func (d *device) Close() error {
	var errs []error
	d.reap(time.Now())
	busy := false
	for _, k := range d.disks {
		busy = busy || k.busy()
		errs = append(errs, k.close())
	}
	if !busy {
		errs = append(errs, d.queue.close())
	}
	return errors.Join(errs...)
}
