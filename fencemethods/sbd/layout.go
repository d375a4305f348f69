// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"bytes"
	"encoding/binary"
	"time"
)

// What is on a disk, as sbd 1.5.2 has it (sbd.h, sbd-md.c). Sector 0 is the header; slot i has two
// sectors, 1+2i with the name of its node and 2+2i with its mailbox. A sector is what the disk
// calls so (BLKSSZGET). Numbers are big-endian.
const (
	magic   = "SBD_SBD_"
	version = 2

	headerLen = 49 // through the UUID
	nameMax   = 63 // of the 64 bytes that a name has, the last is 0
	nameLen   = nameMax + 1
	mailLen   = 1 + nameLen // what sbd reads of a mailbox
)

// Messages of a mailbox. Those that kill are reset, off and crashdump.
const (
	msgClear     = 0
	msgTest      = 1
	msgReset     = 2
	msgOff       = 3
	msgExit      = 4
	msgCrashdump = 5
)

// lethal tells whether a node that finds this in its mailbox goes down.
func lethal(cmd byte) bool { return cmd == msgReset || cmd == msgOff || cmd == msgCrashdump }

// A header says how a disk is used. Two are equal when they are of the same disk, initialized once.
type header struct {
	slots    int
	watchdog time.Duration // after which a node that cannot read its mailbox resets itself
	msgwait  time.Duration // after which a message has been obeyed
	loop     time.Duration // between two looks at a mailbox
	allocate time.Duration // between allocating a slot and looking whether it is still one's own
	uuid     [16]byte      // zero before minor version 1
}

// decodeHeader reads sector 0 of a disk with sectors of this size.
func decodeHeader(p []byte, sector int) (h header, ok bool) {
	if len(p) < headerLen || string(p[:8]) != magic || p[8] != version ||
		binary.BigEndian.Uint32(p[12:]) != uint32(sector) {
		return header{}, false
	}
	seconds := func(at int) time.Duration {
		return time.Duration(binary.BigEndian.Uint32(p[at:])) * time.Second
	}
	h = header{
		slots: int(p[9]), watchdog: seconds(16), allocate: seconds(20), loop: seconds(24), msgwait: seconds(28),
	}
	if p[32] > 0 {
		copy(h.uuid[:], p[33:headerLen])
	}
	return h, h.slots > 0
}

// slotName returns the name in a node sector, which aliases it, and nil for a free slot.
func slotName(p []byte) []byte {
	if len(p) < 1+nameLen || p[0] == 0 {
		return nil
	}
	name := p[1 : 1+nameLen]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return name
}

// sameName compares as sbd does, by strncasecmp in the C locale.
func sameName(a []byte, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// Behind what sbd reads, a mailbox has room. There goes a mark and a number that no other message
// has, so that a message can be told from one just like it: what has been taken out and put in
// again has not been there all the time.
const (
	mark     = "o2fence1"
	serialAt = mailLen + len(mark)
	ownLen   = serialAt + len(serial{})
)

// A serial tells one message from all others. It is zero for those of sbd's own tool.
type serial [16]byte

// A mail is the message in a mailbox.
type mail struct {
	cmd    byte
	serial serial
}

// decodeMail reads a mailbox.
func decodeMail(p []byte) (m mail, ok bool) {
	if len(p) < ownLen {
		return mail{}, false
	}
	m.cmd = p[0]
	if string(p[mailLen:serialAt]) == mark {
		copy(m.serial[:], p[serialAt:ownLen])
	}
	return m, true
}

// encode writes a mailbox over p, a sector.
func (m mail) encode(p []byte, from string) {
	clear(p)
	p[0] = m.cmd
	if m.cmd == msgClear {
		return // as sbd's daemon leaves it
	}
	copy(p[1:1+nameMax], from)
	if m.serial != (serial{}) {
		copy(p[mailLen:], mark)
		copy(p[serialAt:], m.serial[:])
	}
}
