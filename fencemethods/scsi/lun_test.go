// SPDX-License-Identifier: GPL-2.0-only

package scsi

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// A lun is a disk with persistent reservations as SPC-4 5.13 has them, reached by CDBs.
type lun struct {
	mu         sync.Mutex
	wwid       string
	generation uint32
	keys       []registration
	held       bool
	kind       byte
	lasting    bool // APTPL of the last registration

	noAbort, noPersist, noReserve bool
	full                          bool                          // nothing can be stored; a PREEMPT says nothing of that
	aborted                       int                           // how often the commands of a node were ended
	deaf                          func(theirs reserve.Key) bool // PREEMPT answers and does nothing
	broken                        func() bool                   // READ KEYS fails
}

type registration struct {
	nexus *nexus
	key   reserve.Key
}

// A nexus is an initiator's path to a lun: what a registration belongs to.
type nexus struct {
	lun       *lun
	file      string
	attention []uint16                              // unit attentions that are to be told
	fault     func(c *command) (err error, ok bool) // ok: this is what came of it
}

func newLUN(wwid string) *lun { return &lun{wwid: wwid} }

func (l *lun) path(file string) *nexus { return &nexus{lun: l, file: file} }

// A handle is an open device file.
type handle struct {
	*nexus
	data [bufferLen]byte
}

func (h *handle) name() string   { return h.file }
func (h *handle) buffer() []byte { return h.data[:] }
func (h *handle) close() error   { return nil }

func (n *nexus) send(c *command) error {
	n.lun.mu.Lock()
	fault := n.fault
	n.lun.mu.Unlock()
	if fault != nil {
		if err, ok := fault(c); ok {
			return err
		}
	}
	n.lun.mu.Lock()
	defer n.lun.mu.Unlock()
	c.status, c.sense, c.read = statusGood, nil, len(c.data)
	if c.cdb[0] != opInquiry && len(n.attention) > 0 {
		c.decline(keyUnitAttention, n.attention[0])
		n.attention = n.attention[1:]
		return nil
	}
	switch c.cdb[0] {
	case opInquiry:
		c.read = copy(c.data, identification(n.lun.wwid))
	case opReserveIn:
		n.lun.tell(c)
	case opReserve:
		n.lun.change(c, n)
	default:
		c.decline(keyIllegalRequest, senseOpcode)
	}
	return nil
}

func (c *command) decline(key byte, code uint16) {
	c.status, c.read = statusCheck, 0
	c.sense = binary.BigEndian.AppendUint16([]byte{0x72, key}, code)
}

func identification(wwid string) []byte {
	kind, digits, _ := strings.Cut(wwid, ".")
	id, _ := hex.DecodeString(digits)
	code := byte(3)
	if kind == "eui" {
		code = 2
	}
	vendor := append([]byte{2, 1, 0, 8}, "O2FENCE "...)
	port := []byte{0x61, 0x93, 0, 8, 0x50, 0, 0, 0, 0, 0, 0, 1}
	list := slices.Concat(vendor, port, []byte{1, code, 0, byte(len(id))}, id)
	return append([]byte{0, pageIdentification, 0, byte(len(list))}, list...)
}

func (l *lun) tell(c *command) {
	var list []byte
	switch c.cdb[1] {
	case inKeys:
		if l.broken != nil && l.broken() {
			c.decline(keyIllegalRequest, 0x9999)
			return
		}
		for _, r := range l.keys {
			list = binary.BigEndian.AppendUint64(list, uint64(r.key))
		}
	case inReservation:
		if l.held {
			list = append(make([]byte, 13), l.kind, 0, 0)
		}
	case inCapabilities:
		caps := []byte{0, 8, 1, 0x80, 0x80, 0, 0, 0}
		if l.noPersist {
			caps[2] = 0
		}
		if l.lasting {
			caps[3] |= 1
		}
		c.read = copy(c.data, caps)
		return
	}
	head := binary.BigEndian.AppendUint32(nil, l.generation)
	head = binary.BigEndian.AppendUint32(head, uint32(len(list)))
	c.read = copy(c.data, append(head, list...))
}

func (l *lun) change(c *command, n *nexus) {
	key := reserve.Key(binary.BigEndian.Uint64(c.data))
	other := reserve.Key(binary.BigEndian.Uint64(c.data[8:]))
	at := slices.IndexFunc(l.keys, func(r registration) bool { return r.nexus == n })
	action := c.cdb[1]
	lasting := c.data[20]&1 != 0
	registers := action == outRegister || action == outRegisterIgnore
	switch {
	case l.noReserve:
		c.decline(keyIllegalRequest, senseOpcode)
		return
	case action == outPreemptAbort && l.noAbort, registers && lasting && l.noPersist:
		c.decline(keyIllegalRequest, senseField)
		return
	case action == outRegisterIgnore, action == outRegister && at < 0 && key == 0:
	case at < 0, l.keys[at].key != key:
		c.status = statusConflict
		return
	}
	switch action {
	case outRegister, outRegisterIgnore:
		l.generation++
		l.lasting = lasting
		switch {
		case at >= 0 && other == 0:
			l.keys = slices.Delete(l.keys, at, at+1)
		case at >= 0:
			l.keys[at].key = other
		case other != 0:
			l.keys = append(l.keys, registration{n, other})
		}
		if l.full && lasting {
			c.decline(keyNotReady, senseCommunication)
			return
		}
	case outReserve:
		if l.held && l.kind != c.cdb[2] {
			c.status = statusConflict
			return
		}
		l.held, l.kind = true, c.cdb[2]
	case outPreempt, outPreemptAbort:
		l.preempt(c, n, other, action == outPreemptAbort)
	}
	l.held = l.held && len(l.keys) > 0
}

func (l *lun) preempt(c *command, n *nexus, theirs reserve.Key, abort bool) {
	if l.deaf != nil && l.deaf(theirs) {
		return
	}
	if !slices.ContainsFunc(l.keys, func(r registration) bool { return r.key == theirs }) {
		c.status = statusConflict
		return
	}
	l.generation++
	l.keys = slices.DeleteFunc(l.keys, func(r registration) bool {
		if r.key != theirs {
			return false
		}
		r.nexus.attention = append(r.nexus.attention, 0x2a05) // REGISTRATIONS PREEMPTED
		if abort {
			l.aborted++
		}
		return true
	})
}

// writes tells whether the lun takes a write.
func (n *nexus) writes() bool {
	n.lun.mu.Lock()
	defer n.lun.mu.Unlock()
	return !n.lun.held || slices.ContainsFunc(n.lun.keys, func(r registration) bool { return r.nexus == n })
}

func (n *nexus) setFault(f func(c *command) (error, bool)) {
	n.lun.mu.Lock()
	defer n.lun.mu.Unlock()
	n.fault = f
}

// hang has a path hang until the test ends.
func (n *nexus) hang(t *testing.T) {
	until := make(chan struct{})
	t.Cleanup(func() { close(until) })
	n.setFault(func(*command) (error, bool) { <-until; return hostError(3), true })
}
