// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"fmt"
	"io"
)

// File types and permissions of a cpio entry, as in stat(2).
const (
	cpioDir  = 0o040755
	cpioFile = 0o100755
)

// A cpioWriter writes the "newc" archive that the kernel unpacks as its initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpioWriter struct {
	w       io.Writer
	written int64
	inode   int
	err     error // the first
}

// add appends one entry. A directory must come before what is in it. Errors are kept for close.
func (c *cpioWriter) add(name string, mode int, data []byte) {
	c.inode++
	c.header(name, mode, len(data))
	c.write(data)
	c.pad()
}

func (c *cpioWriter) close() error {
	c.header("TRAILER!!!", 0, 0)
	return c.err
}

func (c *cpioWriter) header(name string, mode, size int) {
	const uid, gid, links, mtime, device, check = 0, 0, 1, 0, 0, 0
	c.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.inode, mode, uid, gid, links, mtime, size, device, device, device, device, len(name)+1, check, name))
	c.pad()
}

// pad aligns what follows to four bytes.
func (c *cpioWriter) pad() { c.write(make([]byte, -c.written&3)) }

func (c *cpioWriter) write(b []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(b)
	c.written, c.err = c.written+int64(n), err
}
