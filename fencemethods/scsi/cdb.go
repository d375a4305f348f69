// SPDX-License-Identifier: GPL-2.0-only

package scsi

import (
	"encoding/binary"
	"encoding/hex"
	"iter"

	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// Operation codes and service actions, SPC-4 6.4, 6.14 and 6.15.
const (
	opInquiry   = 0x12
	opReserveIn = 0x5e
	opReserve   = 0x5f

	inKeys         = 0
	inReservation  = 1
	inCapabilities = 2

	outRegister       = 0
	outReserve        = 1
	outPreempt        = 4
	outPreemptAbort   = 5
	outRegisterIgnore = 6
)

// allRegistrants is the type Write Exclusive - All Registrants, of scope LU_SCOPE, which is 0.
const allRegistrants = 7

const (
	pageIdentification = 0x83
	identificationLen  = 1024
	keysLen            = bufferLen // all there is: keys that do not fit prove nothing
	reservationLen     = 24
	capabilitiesLen    = 8
	parametersLen      = 24 // of PERSISTENT RESERVE OUT
)

func inquiry(cdb []byte) []byte {
	return append(cdb[:0], opInquiry, 1, pageIdentification, identificationLen>>8, identificationLen&0xff, 0)
}

func reserveIn(cdb []byte, action byte, length int) []byte {
	cdb = append(cdb[:0], opReserveIn, action, 0, 0, 0, 0, 0)
	return append(binary.BigEndian.AppendUint16(cdb, uint16(length)), 0)
}

func reserveOut(cdb []byte, action byte) []byte {
	cdb = append(cdb[:0], opReserve, action, allRegistrants, 0, 0)
	return append(binary.BigEndian.AppendUint32(cdb, parametersLen), 0)
}

// parameters are those of PERSISTENT RESERVE OUT, for this path and no other. Lasting asks that
// registrations survive a loss of power.
func parameters(p []byte, key, action reserve.Key, lasting bool) []byte {
	p = binary.BigEndian.AppendUint64(p[:0], uint64(key))
	p = binary.BigEndian.AppendUint64(p, uint64(action))
	p = append(p, make([]byte, parametersLen-16)...)
	if lasting {
		p[20] = 1
	}
	return p
}

// isDisk tells whether a page of designators has one that is that disk.
func isDisk(page []byte, wwid string) bool {
	for kind, id := range designators(page) {
		prefix := "naa."
		if kind == 2 {
			prefix = "eui."
		}
		var text [4 + 32]byte
		copy(text[:], prefix)
		n := 4 + hex.Encode(text[4:], id)
		if string(text[:n]) == wwid {
			return true
		}
	}
	return false
}

// designators are those of the logical unit of type EUI-64 (2) and NAA (3), in binary, of at most 16
// bytes. A page that is cut short ends early.
func designators(page []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		if len(page) < 4 || page[1] != pageIdentification {
			return
		}
		rest := page[4:min(len(page), 4+int(binary.BigEndian.Uint16(page[2:])))]
		for len(rest) >= 4 && len(rest) >= 4+int(rest[3]) {
			kind, id := rest[1]&0xf, rest[4:4+int(rest[3])]
			unit, binary := rest[1]>>4&3 == 0, rest[0]&0xf == 1
			if unit && binary && (kind == 2 || kind == 3) && len(id) <= 16 && !yield(kind, id) {
				return
			}
			rest = rest[4+int(rest[3]):]
		}
	}
}

// listed is what a list of READ KEYS or READ RESERVATION has behind its head, if it is all there.
func listed(p []byte) (generation uint32, list []byte, ok bool) {
	if len(p) < 8 {
		return 0, nil, false
	}
	n := binary.BigEndian.Uint32(p[4:])
	if uint64(n) > uint64(len(p)-8) {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(p), p[8 : 8+n], true
}

// countKeys counts the keys that READ KEYS lists.
func countKeys(p []byte, mine, theirs reserve.Key) (generation uint32, t reserve.Table, ok bool) {
	generation, list, ok := listed(p)
	if !ok || len(list)%8 != 0 {
		return 0, t, false
	}
	for ; len(list) > 0; list = list[8:] {
		t.Count(reserve.Key(binary.BigEndian.Uint64(list)), mine, theirs)
	}
	return generation, t, true
}

// readReservation takes READ RESERVATION apart.
func readReservation(p []byte) (generation uint32, held, right, ok bool) {
	generation, list, ok := listed(p)
	switch {
	case !ok, len(list) != 0 && len(list) < 16:
		return 0, false, false, false
	case len(list) == 0:
		return generation, false, false, true
	}
	return generation, true, list[13] == allRegistrants, true
}

// readCapabilities tells whether reservations can, and now do, survive a loss of power.
func readCapabilities(p []byte) (can, do, ok bool) {
	if len(p) < capabilitiesLen || binary.BigEndian.Uint16(p) < capabilitiesLen {
		return false, false, false
	}
	return p[2]&1 != 0, p[3]&1 != 0, true
}

// A sense is why a command was declined: its key, and its additional code and qualifier.
type sense struct {
	key  byte
	code uint16
}

// Sense keys, SPC-4 4.5.6.
const (
	keyNotReady       = 2
	keyIllegalRequest = 5
	keyUnitAttention  = 6
	keyAborted        = 0xb
)

// readSense takes sense data of either format apart.
func readSense(p []byte) (sense, bool) {
	switch {
	case len(p) >= 14 && (p[0]&0x7f == 0x70 || p[0]&0x7f == 0x71):
		return sense{p[2] & 0xf, binary.BigEndian.Uint16(p[12:])}, true
	case len(p) >= 4 && (p[0]&0x7f == 0x72 || p[0]&0x7f == 0x73):
		return sense{p[1] & 0xf, binary.BigEndian.Uint16(p[2:])}, true
	}
	return sense{}, false
}
