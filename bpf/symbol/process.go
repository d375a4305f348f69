// SPDX-License-Identifier: GPL-2.0-only

package symbol

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Cache has the images that were read, so that processes share them. Not safe for concurrent use.
type Cache struct{ images map[string]*image }

// NewCache makes an empty one.
func NewCache() *Cache { return &Cache{images: make(map[string]*image)} }

// A Process has what a process had mapped when it was read.
type Process struct {
	Name   string // base name of its binary
	cache  *Cache
	pid    int
	maps   []mapping
	binary *image // nil: it cannot be read
	loaded time.Time
	stale  bool
}

type mapping struct {
	start, end, offset uint64
	inode, path        string
}

// Process reads a process's map and its binary. The error wraps os.ErrNotExist, or unix.ESRCH, when
// the process has ended.
func (c *Cache) Process(pid int) (*Process, error) {
	p := &Process{cache: c, pid: pid}
	exe := fmt.Sprintf("/proc/%d/exe", pid)
	path, err := os.Readlink(exe)
	if err != nil {
		return nil, fmt.Errorf("symbol: %w", err)
	}
	p.Name = strings.TrimSuffix(filepath.Base(path), " (deleted)")
	if err := p.load(); err != nil {
		return nil, err
	}
	// While the process lives its own file can be read, even when it was replaced meanwhile. All
	// mappings of that file lead here.
	for _, m := range p.maps {
		if m.path == path {
			p.binary = c.read(m, exe, p.Name)
			break
		}
	}
	return p, nil
}

func (p *Process) load() error {
	p.loaded, p.stale = time.Now(), false
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", p.pid))
	if err != nil {
		return fmt.Errorf("symbol: %w", err)
	}
	defer f.Close()
	maps, err := parseMaps(f)
	if err != nil {
		return fmt.Errorf("symbol: %w", err)
	}
	if len(maps) > 0 { // a zombie has none
		p.maps = maps
	}
	return nil
}

// parseMaps keeps the mappings of files, and those with names such as [vdso].
func parseMaps(r io.Reader) ([]mapping, error) {
	var all []mapping
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		// 00400000-004a8000 r-xp 00001000 fe:01 1234    /usr/sbin/o2fenced
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			continue
		}
		low, high, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(low, 16, 64)
		end, err2 := strconv.ParseUint(high, 16, 64)
		offset, err3 := strconv.ParseUint(fields[2], 16, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			return nil, fmt.Errorf("map %q", lines.Text())
		}
		all = append(all, mapping{
			start: start, end: end, offset: offset,
			inode: fields[3] + ":" + fields[4], path: strings.Join(fields[5:], " "),
		})
	}
	return all, lines.Err()
}

// read reads an image once. One that cannot be read is remembered as nil.
func (c *Cache) read(m mapping, file, name string) *image {
	if known, ok := c.images[m.inode]; ok {
		return known
	}
	c.images[m.inode] = nil
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	read, err := readImage(name, f)
	if err != nil {
		return nil
	}
	c.images[m.inode] = read
	return read
}

// GoLayout is for Go programs whose DWARF was not stripped.
func (p *Process) GoLayout() (GoLayout, error) {
	if p.binary == nil {
		return GoLayout{}, errNoLayout
	}
	return p.binary.goLayout()
}

// Changed says that the process has mapped something since.
func (p *Process) Changed() { p.stale = true }

// Frame names an address on a user stack. A return address belongs to the call before it: exact is for
// the one where the program itself was interrupted.
func (p *Process) Frame(address uint64, exact bool) Frame {
	if !exact {
		address--
	}
	m, ok := p.find(address)
	if !ok {
		return Frame{Func: fmt.Sprintf("<%#x>", address)}
	}
	name := strings.TrimSuffix(filepath.Base(m.path), " (deleted)")
	unknown := Frame{Func: fmt.Sprintf("<%s+%#x>", name, address-m.start+m.offset), Module: name}
	if !strings.HasPrefix(m.path, "/") {
		return unknown
	}
	read := p.cache.read(m, fmt.Sprintf("/proc/%d/root%s", p.pid, m.path), name)
	if read == nil {
		return unknown
	}
	pc, ok := read.address(address - m.start + m.offset)
	if !ok {
		return unknown
	}
	return read.frame(pc)
}

func (p *Process) find(address uint64) (mapping, bool) {
	for {
		for _, m := range p.maps {
			if address >= m.start && address < m.end {
				return m, true
			}
		}
		// Libraries are mapped as time goes by. But without frame pointers an address is soon just any
		// number, and not worth much.
		if !p.stale && time.Since(p.loaded) < reloadAfter || p.load() != nil {
			return mapping{}, false
		}
	}
}

const reloadAfter = 100 * time.Millisecond
