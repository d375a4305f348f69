// SPDX-License-Identifier: GPL-2.0-only

package nvme

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync"

	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// A fake is a namespace with reservations as the NVMe Base Specification has them, by its commands.
type fake struct {
	mu        sync.Mutex
	wwid      string
	hosts     []registered
	kind      byte
	holder    *host
	lasting   bool
	noPersist bool
	wide      bool // its hosts have identifiers of 128 bits
	deaf      func(theirs reserve.Key) bool
	broken    func() bool
	aborted   int
}

type registered struct {
	host *host
	key  reserve.Key
}

// A host is one that reaches namespaces.
type host struct {
	number uint8
	spaces map[string]*fake
	fault  func(*command) (status, bool)
}

// A handle is an open device file.
type handle struct {
	*host
	space *fake
	data  [bufferLen]byte
}

func (h *handle) name() string   { return "nvme0n1" }
func (h *handle) buffer() []byte { return h.data[:] }
func (h *handle) close() error   { return nil }

func (h *handle) send(c *command) (status, error) {
	if h.fault != nil {
		if s, ok := h.fault(c); ok {
			return s, nil
		}
	}
	h.space.mu.Lock()
	defer h.space.mu.Unlock()
	return h.space.carryOut(h.host, c), nil
}

func identification(name string) []byte {
	kind, id, _ := strings.Cut(name, ".")
	b, code := unhex(id), byte(idUUID)
	if kind == "eui" {
		code = idNGUID
		if len(b) == 8 {
			code = idEUI64
		}
	}
	other := append([]byte{4, 1, 0, 0}, 0) // the command set
	return slices.Concat(other, []byte{code, byte(len(b)), 0, 0}, b)
}

func (f *fake) carryOut(h *host, c *command) status {
	switch c.opcode {
	case opIdentify:
		copy(c.data, identification(f.wwid))
		return statusGood
	case opReport:
		return f.report(c)
	}
	current := reserve.Key(binary.LittleEndian.Uint64(c.data))
	other := reserve.Key(binary.LittleEndian.Uint64(c.data[8:]))
	at := slices.IndexFunc(f.hosts, func(r registered) bool { return r.host == h })
	if c.opcode == opRegister {
		return f.register(h, at, c, current, other)
	}
	if at < 0 || f.hosts[at].key != current {
		return statusConflict
	}
	if c.dw10&7 == acquire {
		// As nvmet: only who has made it may make it again.
		if f.kind != 0 && f.holder != h {
			return statusConflict
		}
		f.kind, f.holder = byte(c.dw10>>8), h
		return statusGood
	}
	return f.preempt(other)
}

func (f *fake) register(h *host, at int, c *command, current, key reserve.Key) status {
	if c.dw10&keepPower == keepPower {
		if f.noPersist {
			return statusField
		}
		f.lasting = true
	}
	switch c.dw10 & 7 {
	case registerNew:
		if at >= 0 {
			if f.hosts[at].key != key {
				return statusConflict
			}
			return statusGood
		}
		f.hosts = append(f.hosts, registered{h, key})
	case registerReplace:
		if at < 0 || c.dw10&ignoreKey == 0 && f.hosts[at].key != current {
			return statusConflict
		}
		f.hosts[at].key = key
	}
	return statusGood
}

func (f *fake) preempt(key reserve.Key) status {
	if f.deaf != nil && f.deaf(key) {
		return statusGood
	}
	before := len(f.hosts)
	f.hosts = slices.DeleteFunc(f.hosts, func(r registered) bool { return r.key == key })
	if len(f.hosts) == before {
		return statusConflict
	}
	f.aborted++
	return statusGood
}

func (f *fake) report(c *command) status {
	if f.wide != (c.dw11 == extended) {
		return statusHostID
	}
	if f.broken != nil && f.broken() {
		return 0x06 // internal error
	}
	head, size, at := 24, 24, 16
	if f.wide {
		head, size, at = 64, 64, 8
	}
	p := make([]byte, head+size*len(f.hosts))
	p[4] = f.kind
	binary.LittleEndian.PutUint16(p[5:], uint16(len(f.hosts)))
	if f.lasting {
		p[9] = 1
	}
	for i, r := range f.hosts {
		binary.LittleEndian.PutUint64(p[head+i*size+at:], uint64(r.key))
	}
	copy(c.data, p)
	return statusGood
}

// writes tells whether the namespace takes a host's write.
func (f *fake) writes(h *host) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kind == 0 || slices.ContainsFunc(f.hosts, func(r registered) bool { return r.host == h })
}
