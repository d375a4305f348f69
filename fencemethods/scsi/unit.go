// SPDX-License-Identifier: GPL-2.0-only

package scsi

import (
	"time"

	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// A unit is a disk as one path reaches it.
type unit struct {
	bus     bus
	wwid    string
	abort   bool // end the commands of who loses his key
	persist bool // ask the disk to keep its reservations

	c   command
	cdb [16]byte
}

func newUnit(b bus, wwid string, abort, persist bool) *unit {
	return &unit{bus: b, wwid: wwid, abort: abort, persist: persist}
}

func (u *unit) Name() string { return u.bus.name() }

func (u *unit) Close() error { return u.bus.close() }

// readTries bounds how often a table that changes while it is read is read.
const readTries = 10

// Read reads keys and then the reservation, until no key has changed in between: then both were so at
// the moment of the second.
func (u *unit) Read(mine, theirs reserve.Key) (reserve.Table, *reserve.Failure) {
	if f := u.identify(); f != nil {
		return reserve.Table{}, f
	}
	lasting, f := u.lasting()
	if f != nil {
		return reserve.Table{}, f
	}
	for range readTries {
		data, f := u.in(inKeys, keysLen)
		if f != nil {
			return reserve.Table{}, f
		}
		before, t, ok := countKeys(data, mine, theirs)
		if !ok {
			return reserve.Table{}, failKeys
		}
		if data, f = u.in(inReservation, reservationLen); f != nil {
			return reserve.Table{}, f
		}
		after, held, right, ok := readReservation(data)
		if !ok {
			return reserve.Table{}, failGarbled
		}
		if before == after {
			t.Held, t.Right, t.Lasting = held, right, lasting
			return t, nil
		}
	}
	return reserve.Table{}, failRestless
}

// lasting tells whether the disk keeps its reservations. One that does not know the question does not.
func (u *unit) lasting() (bool, *reserve.Failure) {
	data, f := u.in(inCapabilities, capabilitiesLen)
	switch {
	case f == failUnknown, f == failField:
		return false, nil
	case f != nil:
		return false, f
	}
	_, do, ok := readCapabilities(data)
	if !ok {
		return false, failGarbled
	}
	return do, nil
}

func (u *unit) Preempt(mine, theirs reserve.Key) *reserve.Failure {
	action := byte(outPreempt)
	if u.abort {
		action = outPreemptAbort
	}
	f := u.out(action, mine, theirs)
	if f == failField && u.abort {
		return failNoAbort
	}
	return f
}

// Prove registers the same key in place of itself, which the disk takes only from a path that is
// registered with it.
func (u *unit) Prove(mine reserve.Key) *reserve.Failure { return u.out(outRegister, mine, mine) }

func (u *unit) Register(mine reserve.Key) *reserve.Failure {
	return u.out(outRegisterIgnore, 0, mine)
}

func (u *unit) Reserve(mine reserve.Key) *reserve.Failure { return u.out(outReserve, mine, 0) }

// identify makes sure that this path leads to the disk.
func (u *unit) identify() *reserve.Failure {
	u.c = command{cdb: inquiry(u.cdb[:]), data: u.bus.buffer()[:identificationLen]}
	clear(u.c.data)
	if f := u.send(); f != nil {
		return f
	}
	if !isDisk(u.c.data[:u.c.read], u.wwid) {
		return failAnother
	}
	return nil
}

// in is PERSISTENT RESERVE IN. The data is valid until the next command.
func (u *unit) in(action byte, length int) ([]byte, *reserve.Failure) {
	u.c = command{cdb: reserveIn(u.cdb[:], action, length), data: u.bus.buffer()[:length]}
	clear(u.c.data) // a disk that says less than it claims says nothing
	f := u.send()
	return u.c.data[:u.c.read], f
}

// out is PERSISTENT RESERVE OUT, to this disk and to no other.
func (u *unit) out(action byte, key, other reserve.Key) *reserve.Failure {
	if f := u.identify(); f != nil {
		return f
	}
	registers := action == outRegister || action == outRegisterIgnore
	data := parameters(u.bus.buffer(), key, other, registers && u.persist)
	u.c = command{cdb: reserveOut(u.cdb[:], action), out: true, data: data}
	f := u.send()
	if registers && u.persist {
		switch f {
		case failField:
			return failNoPersist
		case failNotReady:
			if s, _ := readSense(u.c.sense); s.code == senseCommunication {
				return failNotStored
			}
		}
	}
	return f
}

const (
	sendTries = 20
	busyTime  = 20 * time.Millisecond
)

// send sends the command until the disk has carried it out or declined it for good. A unit attention
// tells of something that happened before, and the command was not carried out.
func (u *unit) send() *reserve.Failure {
	var f *reserve.Failure
	for range sendTries {
		u.c.read = 0
		switch err := u.bus.send(&u.c); {
		case err == errOffline:
			return failOffline
		case err != nil:
			return failBus
		}
		var again bool
		if f, again = u.verdict(); !again {
			return f
		}
		if f == failBusy {
			time.Sleep(busyTime)
		}
	}
	return f
}

// Status codes, SAM-5 5.3.
const (
	statusGood      = 0
	statusCheck     = 2
	statusBusy      = 8
	statusConflict  = 0x18
	statusFull      = 0x28
	statusACAActive = 0x30
	statusAborted   = 0x40
)

func (u *unit) verdict() (f *reserve.Failure, again bool) {
	switch u.c.status {
	case statusGood:
		return nil, false
	case statusConflict:
		return reserve.Conflict, false
	case statusBusy, statusFull, statusACAActive, statusAborted:
		return failBusy, true
	case statusCheck:
		return u.declined()
	}
	return failGarbled, false
}

// Additional sense codes, SPC-4 table D.1.
const (
	senseNoRoom     = 0x5504 // INSUFFICIENT REGISTRATION RESOURCES
	senseNoReserve  = 0x5502 // INSUFFICIENT RESERVATION RESOURCES
	senseOpcode     = 0x2000 // INVALID COMMAND OPERATION CODE
	senseField      = 0x2400 // INVALID FIELD IN CDB
	senseParameters = 0x2600 // INVALID FIELD IN PARAMETER LIST

	// LOGICAL UNIT COMMUNICATION FAILURE: what Linux' target says when it cannot store registrations.
	senseCommunication = 0x0800
)

func (u *unit) declined() (f *reserve.Failure, again bool) {
	s, ok := readSense(u.c.sense)
	switch {
	case !ok:
		return failGarbled, false
	case s.key == keyUnitAttention:
		return failAttention, true
	case s.key == keyNotReady:
		return failNotReady, false
	case s.key == keyAborted:
		return failBusy, true
	case s.key != keyIllegalRequest:
		return failDisk, false
	case s.code == senseNoRoom, s.code == senseNoReserve:
		return failFull, false
	case s.code == senseOpcode:
		return failUnknown, false
	case s.code == senseField, s.code == senseParameters:
		return failField, false
	}
	return failDeclined, false
}
