// SPDX-License-Identifier: GPL-2.0-only

package symbol

import (
	"cmp"
	"debug/dwarf"
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
	"io"
	"slices"
)

// An image is a program or a library, by the addresses that its file has.
type image struct {
	name     string
	segments []elf.ProgHeader
	tls      *elf.ProgHeader // nil: none
	golang   *gosym.Table    // nil: not Go
	symbols  []elf.Symbol    // functions by address
	dwarf    *dwarf.Data     // nil: none
	units    []unit
}

// A unit is a compilation unit's part of the addresses.
type unit struct {
	low, high uint64
	entry     *dwarf.Entry
}

// readImage reads what is needed of an ELF file; r may be closed afterwards.
func readImage(name string, r io.ReaderAt) (*image, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	m := &image{name: name}
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_LOAD:
			m.segments = append(m.segments, p.ProgHeader)
		case elf.PT_TLS:
			m.tls = &p.ProgHeader
		}
	}
	// Without DWARF there are no lines, and without symbols no names: no reason to give up.
	m.dwarf, _ = f.DWARF()
	if m.golang, err = goTable(f); err != nil || m.golang != nil {
		return m, err
	}
	m.symbols = functions(f)
	m.units = units(m.dwarf)
	return m, nil
}

// goTable is the table of a Go binary, nil for another.
func goTable(f *elf.File) (*gosym.Table, error) {
	table, text := f.Section(".gopclntab"), f.Section(".text")
	if table == nil {
		table = f.Section(".data.rel.ro.gopclntab") // position-independent
	}
	if table == nil || text == nil {
		return nil, nil
	}
	data, err := table.Data()
	if err != nil {
		return nil, err
	}
	return gosym.NewTable(nil, gosym.NewLineTable(data, text.Addr))
}

func functions(f *elf.File) []elf.Symbol {
	own, _ := f.Symbols()
	dynamic, _ := f.DynamicSymbols()
	all := slices.DeleteFunc(append(own, dynamic...), func(s elf.Symbol) bool {
		return elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Value == 0
	})
	slices.SortStableFunc(all, func(a, b elf.Symbol) int { return cmp.Compare(a.Value, b.Value) })
	return all
}

func units(d *dwarf.Data) []unit {
	if d == nil {
		return nil
	}
	var all []unit
	for r := d.Reader(); ; r.SkipChildren() {
		entry, err := r.Next()
		if err != nil || entry == nil {
			return all
		}
		ranges, _ := d.Ranges(entry)
		for _, low := range ranges {
			all = append(all, unit{low[0], low[1], entry})
		}
	}
}

// address is where the byte at an offset of the file is loaded.
func (m *image) address(offset uint64) (uint64, bool) {
	for _, s := range m.segments {
		if offset >= s.Off && offset < s.Off+s.Filesz {
			return offset - s.Off + s.Vaddr, true
		}
	}
	return 0, false
}

func (m *image) frame(pc uint64) Frame {
	if m.golang != nil {
		if file, line, fn := m.golang.PCToLine(pc); fn != nil {
			return Frame{Func: fn.Name, File: file, Line: line, Module: m.name, Go: true}
		}
	}
	f := Frame{Func: fmt.Sprintf("<%s+%#x>", m.name, pc), Module: m.name}
	i, found := slices.BinarySearchFunc(m.symbols, pc, func(s elf.Symbol, pc uint64) int {
		return cmp.Compare(s.Value, pc)
	})
	if !found {
		i--
	}
	if i >= 0 && (m.symbols[i].Size == 0 || pc < m.symbols[i].Value+m.symbols[i].Size) {
		f.Func = m.symbols[i].Name
	}
	f.File, f.Line = m.line(pc)
	return f
}

func (m *image) line(pc uint64) (file string, line int) {
	for _, u := range m.units {
		if pc < u.low || pc >= u.high {
			continue
		}
		lines, err := m.dwarf.LineReader(u.entry)
		if err != nil || lines == nil {
			return "", 0
		}
		var entry dwarf.LineEntry
		if err := lines.SeekPC(pc, &entry); err == nil && entry.File != nil {
			return entry.File.Name, entry.Line
		}
	}
	return "", 0
}

// A GoLayout is where Go's runtime keeps the goroutine of a thread. All are offsets in bytes.
type GoLayout struct {
	TLS                                  int32 // of the pointer to the g, from the thread's FS base
	GM, MCurg, SchedSP, SchedPC, SchedBP uint32
}

var errNoLayout = errors.New("no DWARF of Go's runtime")

// goLayout reads it from the types in the DWARF of package runtime.
func (m *image) goLayout() (GoLayout, error) {
	if m.golang == nil || m.dwarf == nil {
		return GoLayout{}, errNoLayout
	}
	at, err := structMembers(m.dwarf, "runtime.g", "runtime.m", "runtime.gobuf")
	if err != nil {
		return GoLayout{}, err
	}
	layout := GoLayout{TLS: m.goTLS()}
	for _, o := range []struct {
		to    *uint32
		names []string
	}{
		{&layout.GM, []string{"runtime.g.m"}},
		{&layout.MCurg, []string{"runtime.m.curg"}},
		{&layout.SchedSP, []string{"runtime.g.sched", "runtime.gobuf.sp"}},
		{&layout.SchedPC, []string{"runtime.g.sched", "runtime.gobuf.pc"}},
		{&layout.SchedBP, []string{"runtime.g.sched", "runtime.gobuf.bp"}},
	} {
		for _, name := range o.names {
			offset, ok := at[name]
			if !ok {
				return GoLayout{}, errNoLayout
			}
			*o.to += offset
		}
	}
	return layout, nil
}

// goTLS is where the linker puts runtime.tlsg: at the begin of a segment that ends at the FS base.
func (m *image) goTLS() int32 {
	const word = 8
	if m.tls == nil {
		return -word
	}
	align := max(m.tls.Align, 1)
	return -int32((m.tls.Memsz + align - 1) / align * align)
}

// structMembers are the offsets of the members of some structures, by "structure.member".
func structMembers(d *dwarf.Data, names ...string) (map[string]uint32, error) {
	at := make(map[string]uint32)
	for r, found := d.Reader(), 0; found < len(names); {
		entry, err := r.Next()
		if err != nil {
			return nil, err
		}
		if entry == nil {
			return at, nil
		}
		name, _ := entry.Val(dwarf.AttrName).(string)
		switch {
		case entry.Tag == dwarf.TagCompileUnit:
		case entry.Tag == dwarf.TagStructType && slices.Contains(names, name):
			found++
			if err := members(r, name, at); err != nil {
				return nil, err
			}
		default:
			r.SkipChildren()
		}
	}
	return at, nil
}

// members reads the children of a structure.
func members(r *dwarf.Reader, of string, at map[string]uint32) error {
	for {
		entry, err := r.Next()
		if err != nil {
			return err
		}
		if entry == nil || entry.Tag == 0 {
			return nil
		}
		name, _ := entry.Val(dwarf.AttrName).(string)
		if offset, ok := entry.Val(dwarf.AttrDataMemberLoc).(int64); ok {
			at[of+"."+name] = uint32(offset)
		}
		r.SkipChildren()
	}
}
