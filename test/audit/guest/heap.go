// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// A heap is that of a Go program, whose runtime counts it: what it counts is read from the process's
// memory. What was allocated of a span of small objects counts when the span is used up.
type heap struct {
	memory    *os.File
	allocated counter // bytes, ever
	collected counter // times
}

// A counter is a variable of a program's, of 8 or 4 bytes.
type counter struct {
	address, size int64
}

func (c counter) read(from io.ReaderAt) (uint64, error) {
	var word [8]byte
	_, err := from.ReadAt(word[:c.size], c.address)
	return binary.LittleEndian.Uint64(word[:]), err
}

// openHeap finds the counters by the program's DWARF.
func openHeap(pid int, program string) (*heap, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, err := f.DWARF()
	if err != nil {
		return nil, err
	}
	h := &heap{}
	if h.allocated, err = variable(d, "runtime.gcController", "totalAlloc", "value"); err != nil {
		return nil, err
	}
	if h.collected, err = variable(d, "runtime.memstats", "numgc"); err != nil {
		return nil, err
	}
	h.memory, err = os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	return h, err
}

// variable finds a member of a variable, by its way through structures.
func variable(d *dwarf.Data, name string, way ...string) (counter, error) {
	for r := d.Reader(); ; {
		entry, err := r.Next()
		switch {
		case err != nil:
			return counter{}, err
		case entry == nil:
			return counter{}, fmt.Errorf("no variable %s", name)
		case entry.Tag == dwarf.TagCompileUnit:
			continue
		case entry.Tag != dwarf.TagVariable || entry.Val(dwarf.AttrName) != name:
			r.SkipChildren()
			continue
		}
		const opAddr = 3 // DW_OP_addr
		location, _ := entry.Val(dwarf.AttrLocation).([]byte)
		of, _ := entry.Val(dwarf.AttrType).(dwarf.Offset)
		if len(location) != 9 || location[0] != opAddr {
			return counter{}, fmt.Errorf("%s has no address", name)
		}
		t, err := d.Type(of)
		if err != nil {
			return counter{}, err
		}
		c := counter{address: int64(binary.LittleEndian.Uint64(location[1:]))}
		for _, member := range way {
			offset := int64(-1)
			if t, offset = memberOf(t, member); offset < 0 {
				return counter{}, fmt.Errorf("%s has no %v", name, way)
			}
			c.address += offset
		}
		if c.size = t.Size(); c.size != 8 && c.size != 4 {
			return counter{}, fmt.Errorf("%s %v has %d bytes", name, way, c.size)
		}
		return c, nil
	}
}

func memberOf(t dwarf.Type, name string) (dwarf.Type, int64) {
	for {
		switch own := t.(type) {
		case *dwarf.TypedefType:
			t = own.Type
			continue
		case *dwarf.StructType:
			for _, f := range own.Field {
				if f.Name == name {
					return f.Type, f.ByteOffset
				}
			}
		}
		return nil, -1
	}
}

// measure returns how much of the heap do has taken, and whether that is known: to collect garbage, which
// o2fenced does when it has nothing else to do, fills up the heap.
func (h *heap) measure(do func() error) (kib int, known bool, err error) {
	before, collected, err := h.read()
	if err != nil {
		return 0, false, err
	}
	if err := do(); err != nil {
		return 0, false, err
	}
	after, then, err := h.read()
	return int((after - before + 1023) >> 10), then == collected, err
}

// read reads the counters when they stand still: a collection may be under way.
func (h *heap) read() (allocated, collected uint64, err error) {
	for before := uint64(0); ; before = allocated {
		allocated, err = h.allocated.read(h.memory)
		if err != nil || allocated == before {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	collected, failed := h.collected.read(h.memory)
	return allocated, collected, errors.Join(err, failed)
}
