// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bufferLen is the memory of a disk: it takes any sector size, and a whole table of slots in a few
// reads.
const bufferLen = 64 << 10

// A disk is one of those that carry the mailboxes. It is driven through its steps by I/O that ends;
// at most one I/O is under way, and has the buffer to itself. A thread of its own submits it: where the
// disk's queue is full of what others have written, and nothing ends, that waits in the kernel.
type disk struct {
	name   string
	fd     int // -1: was not there
	sector int
	buf    []byte // mapped, and so aligned to a page, as O_DIRECT wants it

	cb     iocb
	orders chan struct{} // to submit cb; nil without a thread
	failed chan error    // cb could not be submitted
	began  time.Time     // when the I/O under way was to be submitted; zero for none
	stale  bool          // it belongs to an earlier operation
	step   step
	due    time.Time // when the step is to be begun

	head  header
	valid bool // head was read, and is that of a disk that may be used
	slot  int  // the node's; -1: not known
	at    int  // the next slot that is to be looked at
	free  int  // a slot that nobody has; -1: none

	there     mail      // what was last read
	since     time.Time // by when it was there; zero: not known
	seen      time.Time // and from when on it was last read to be there still
	verifying bool      // the next read is that of what was just written
	lost      bool      // a pill that was there has gone
	pinged    bool      // the test message was sent
	fault     *failure  // of the last I/O
}

// A step is an I/O and what comes of it.
type step int

const (
	stepHeader step = iota
	stepScan        // looks for the slot
	stepMail        // reads slot and mailbox, which lie side by side
	stepWrite       // writes there
	stepProbe       // reads a mailbox that nobody has
	stepProbed      // writes back what was read
	stepDone
)

// openDisk opens a disk, which has to be a block device: the others have no sectors.
func openDisk(name string) (*disk, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_DIRECT|unix.O_SYNC|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	k := &disk{name: name, fd: fd, slot: -1}
	if k.sector, err = unix.IoctlGetInt(fd, unix.BLKSSZGET); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: not a block device: give a disk, a partition or a logical volume", name)
	}
	if k.sector < 512 || 2*k.sector > bufferLen {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: sectors of %d bytes: expected 512 to %d", name, k.sector, bufferLen/2)
	}
	k.buf, err = unix.Mmap(-1, 0, bufferLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return k, nil
}

// number is the kernel's for the device.
func (k *disk) number() (uint64, error) {
	var s unix.Stat_t
	err := unix.Fstat(k.fd, &s)
	return s.Rdev, err
}

// serve starts the thread, which submits until close.
func (k *disk) serve(q *queue) {
	// Neither side ever waits to send: there is one I/O at a time.
	k.orders, k.failed = make(chan struct{}, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		for range k.orders {
			if err := q.submit(&k.cb); err != nil {
				k.failed <- err
			}
		}
	}()
}

// unsubmitted returns why the I/O under way could not be submitted, or nil: it is, or may still be.
func (k *disk) unsubmitted() error {
	select {
	case err := <-k.failed:
		return err
	default:
		return nil
	}
}

// close gives back what is not in the kernel's hands.
func (k *disk) close() error {
	if k.fd < 0 {
		return nil
	}
	close(k.orders)
	err := unix.Close(k.fd)
	k.fd = -1
	if k.busy() {
		return err // the kernel writes there still
	}
	return errors.Join(err, unix.Munmap(k.buf))
}

func (k *disk) busy() bool { return !k.began.IsZero() }

// reset makes ready for another operation.
func (k *disk) reset() {
	k.stale = k.busy()
	k.step, k.due, k.at, k.free = stepHeader, time.Time{}, 0, -1
	k.verifying, k.lost, k.pinged, k.fault = false, false, false, nil
	if k.fd < 0 {
		k.step, k.fault = stepDone, failMissing
	}
}

// slotSectors is the first sector of a slot.
func slotSector(slot int) int { return 1 + 2*slot }

// begin has the I/O of the step submitted.
func (k *disk) begin(now time.Time) {
	op, at, n := uint16(opRead), 0, 1
	buf := k.buf
	switch k.step {
	case stepHeader:
	case stepScan:
		at, n = slotSector(k.at), 2*min(len(k.buf)/(2*k.sector), k.head.slots-k.at)
	case stepMail:
		at, n = slotSector(k.slot), 2
	case stepWrite:
		op, at = opWrite, slotSector(k.slot)+1
	case stepProbe:
		at, n = slotSector(k.free), 2
	case stepProbed:
		op, at, buf = opWrite, slotSector(k.free)+1, buf[k.sector:]
	}
	k.cb = iocb{
		opcode: op, fd: uint32(k.fd), data: k.cb.data,
		buf: uint64(uintptr(unsafe.Pointer(&buf[0]))), bytes: uint64(n * k.sector),
		offset: int64(at) * int64(k.sector),
	}
	k.began = now
	k.orders <- struct{}{}
}

// write makes the writing of a message the next step. One that kills gets a serial.
func (k *disk) write(m mail, from string) {
	if m.cmd != msgClear {
		_, _ = rand.Read(m.serial[:]) // which cannot fail
	}
	m.encode(k.buf[:k.sector], from)
	k.step, k.verifying = stepWrite, true
	k.due = time.Time{}
}

// retry is how long after a failed I/O the next is tried.
const retry = 200 * time.Millisecond

// fail notes what was wrong, and begins anew a little later: the disk may be another one then.
func (k *disk) fail(f *failure, now time.Time) {
	k.fault, k.step, k.due, k.at, k.verifying = f, stepHeader, now.Add(retry), 0, false
}

// result tells whether the I/O that ended has done all that it should.
func (k *disk) result(res int64) *failure {
	switch {
	case res == int64(k.cb.bytes):
		return nil
	case res < 0:
		return ioFailure(k.cb.opcode, unix.Errno(-res))
	default:
		return failShort
	}
}

func ioFailure(op uint16, err error) *failure {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return failShort
	case op == opRead:
		return failIO
	case errors.Is(err, unix.EBADE), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES):
		return failDenied
	default:
		return failWrite
	}
}

// note remembers what was read: it was begun to be read at k.began, and has been read by now.
func (k *disk) note(m mail, now time.Time) {
	if k.since.IsZero() || m != k.there {
		k.there, k.since = m, now
	}
	k.seen = k.began
}

// aged tells whether a message that kills has lain in the mailbox for that long, with nothing else
// in between.
func (k *disk) aged(msgwait time.Duration) bool {
	return k.pill() && k.seen.Sub(k.since) >= msgwait
}

// pill tells whether a message that kills is there, as far as known.
func (k *disk) pill() bool {
	return k.fault == nil && k.valid && !k.since.IsZero() && lethal(k.there.cmd)
}

// scan looks for the node's slot among those that were read. Like sbd it takes the first; all says
// to go on to the end, for another one and for a free one.
func (k *disk) scan(name string, all bool) *failure {
	for p := k.buf[:k.cb.bytes]; len(p) > 0; p = p[2*k.sector:] {
		switch found := slotName(p[:k.sector]); {
		case found == nil:
			k.free = k.at
		case !sameName(found, name):
		case k.slot < 0:
			k.slot = k.at
		default:
			return failTwoSlots
		}
		k.at++
		if k.slot >= 0 && !all {
			return nil
		}
	}
	if k.slot < 0 && k.at == k.head.slots {
		return failNoSlot
	}
	return nil
}
