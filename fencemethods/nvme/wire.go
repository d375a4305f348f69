// SPDX-License-Identifier: GPL-2.0-only

package nvme

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"strings"

	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// Opcodes, and what goes into command dword 10.
const (
	opIdentify = 0x06 // an admin command
	opRegister = 0x0d
	opReport   = 0x0e
	opAcquire  = 0x11

	registerNew     = 0
	registerReplace = 2
	ignoreKey       = 1 << 3
	keepPower       = 3 << 30 // CPTPL: registrations survive a loss of power

	acquire             = 0
	acquirePreemptAbort = 2

	identifyDescriptors = 3 // the namespace's identification descriptors
	extended            = 1 // dword 11 of a report: with Host Identifiers of 128 bits
)

// allRegistrants is Write Exclusive - All Registrants.
const allRegistrants = 5

const (
	identifyLen = 4096
	reportLen   = bufferLen
	keysLen     = 16
)

// Types of identification descriptors.
const (
	idEUI64 = 1
	idNGUID = 2
	idUUID  = 3
)

// descriptors are the identifiers of a namespace.
func descriptors(page []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for len(page) >= 4 && page[0] != 0 && page[1] != 0 && len(page) >= 4+int(page[1]) {
			if !yield(page[0], page[4:4+int(page[1])]) {
				return
			}
			page = page[4+int(page[1]):]
		}
	}
}

// isNamespace tells whether a page of descriptors has one that is that namespace.
func isNamespace(page []byte, name string) bool {
	for kind, id := range descriptors(page) {
		var text [5 + 36]byte
		if string(appendWWID(text[:0], kind, id)) == name {
			return true
		}
	}
	return false
}

// wwid is what the kernel calls a namespace with that identifier, or "".
func wwid(kind byte, id []byte) string { return string(appendWWID(nil, kind, id)) }

func appendWWID(b []byte, kind byte, id []byte) []byte {
	switch {
	case kind == idUUID && len(id) == 16:
		b = append(b, "uuid."...)
		for i, part := range [...][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
			if i > 0 {
				b = append(b, '-')
			}
			b = hex.AppendEncode(b, part)
		}
		return b
	case kind == idEUI64 && len(id) == 8, kind == idNGUID && len(id) == 16:
		return hex.AppendEncode(append(b, "eui."...), id)
	}
	return b
}

func unhex(s string) []byte {
	b, _ := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	return b
}

// keys are the data of Register and Acquire: the current key, and the new or the other one.
func keys(p []byte, current, other reserve.Key) []byte {
	p = binary.LittleEndian.AppendUint64(p[:0], uint64(current))
	return binary.LittleEndian.AppendUint64(p, uint64(other))
}

// reportNumber is how many dwords are wanted, less one.
func reportNumber(length int) uint32 { return uint32(length/4 - 1) }

// readReport takes Reservation Report apart, in the form with Host Identifiers of 128 bits or of 64.
func readReport(p []byte, long bool, mine, theirs reserve.Key) (t reserve.Table, ok bool) {
	list, ok := registrationsOf(p, long)
	if !ok {
		return t, false
	}
	t.Held, t.Right, t.Lasting = p[4] != 0, p[4] == allRegistrants, p[9] == 1
	for ; list.left(); list.next() {
		t.Count(list.key(), mine, theirs)
	}
	return t, true
}

// Registrations are those of a report, one after the other.
type registrations struct {
	rest     []byte
	size, at int // of one, and of its key in it
}

// registrationsOf takes them from a report, if it is whole.
func registrationsOf(p []byte, long bool) (r registrations, ok bool) {
	head, size, at := 24, 24, 16
	if long {
		head, size, at = 64, 64, 8
	}
	if len(p) < head {
		return r, false
	}
	n := int(binary.LittleEndian.Uint16(p[5:]))
	if len(p)-head < n*size {
		return r, false
	}
	return registrations{p[head : head+n*size], size, at}, true
}

func (r *registrations) left() bool { return len(r.rest) > 0 }

func (r *registrations) next() { r.rest = r.rest[r.size:] }

func (r *registrations) key() reserve.Key {
	return reserve.Key(binary.LittleEndian.Uint64(r.rest[r.at:]))
}

// A status is what a command ended with: type and code of the completion's status field.
type status uint16

const (
	statusGood         status = 0
	statusOpcode       status = 0x01
	statusField        status = 0x02
	statusHostID       status = 0x18 // Host Identifier Inconsistent Format
	statusConflict     status = 0x83
	statusNotReady     status = 0x82
	statusPathMask     status = 0x700
	statusPath         status = 0x300
	statusMask         status = 0x7ff // without more, CRD and DNR
	statusAborted      status = 0x07
	statusAbortedQueue status = 0x08
)

func (s status) String() string { return fmt.Sprintf("status 0x%x", uint16(s)) }
