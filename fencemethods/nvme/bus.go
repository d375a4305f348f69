// SPDX-License-Identifier: GPL-2.0-only

package nvme

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bufferLen is the memory of a path. It takes 1023 registrations.
const bufferLen = 64 << 10

// A bus takes commands to a namespace.
type bus interface {
	name() string
	// buffer is for the data of all commands.
	buffer() []byte
	// send carries a command out. An error says that the namespace has not answered.
	send(*command) (status, error)
	close() error
}

// A command is an NVMe command, for the namespace or, with admin, about it.
type command struct {
	admin      bool
	opcode     uint8
	dw10, dw11 uint32
	data       []byte // at the beginning of the buffer
}

// A node is the device file of a namespace. It is opened for reading only, which suffices with
// CAP_SYS_ADMIN: when one that was opened for writing is closed, udev looks at the disk anew.
type node struct {
	file string
	fd   int
	id   uint32 // of the namespace, at its controllers
	data []byte // mapped: a buffer that is not aligned the kernel would copy, into new pages
	pass passthrough
}

// struct nvme_passthru_cmd of linux/nvme_ioctl.h.
type passthrough struct {
	opcode      uint8
	flags       uint8
	_           uint16
	nsid        uint32
	_           [2]uint32 // cdw2, cdw3
	_           uint64    // metadata
	addr        uint64
	metadataLen uint32
	dataLen     uint32
	dw10        uint32
	dw11        uint32
	_           [4]uint32 // cdw12 to cdw15
	timeout     uint32    // ms
	result      uint32
}

const (
	ioctlID    = 0x4e40     // NVME_IOCTL_ID
	ioctlAdmin = 0xc0484e41 // NVME_IOCTL_ADMIN_CMD
	ioctlIO    = 0xc0484e43 // NVME_IOCTL_IO_CMD

	// commandTime in ms is that of the kernel's own commands: with a shorter one it would reset a
	// controller that is merely slow, under everybody who uses it.
	commandTime = 30000
)

// sysfs finds namespaces below a root.
type sysfs struct{ root string }

// open opens what leads to a namespace. That there is nothing is no error.
func (s sysfs) open(wwid string) ([]bus, error) {
	files, err := filepath.Glob(filepath.Join(s.root, "sys/block/nvme*n*/wwid"))
	if err != nil {
		return nil, err
	}
	var paths []bus
	for _, file := range files {
		text, err := os.ReadFile(file)
		name := filepath.Base(filepath.Dir(file))
		if err != nil || strings.TrimSpace(string(text)) != wwid {
			continue // one that has just gone is none of ours either
		}
		if _, err := os.Stat(filepath.Join(s.root, "dev", name)); os.IsNotExist(err) {
			continue // a path of the kernel's own multipath, which has a file for all of them
		}
		path, err := openNode(s.root, name)
		if err != nil {
			return paths, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func openNode(root, name string) (*node, error) {
	number, err := os.ReadFile(filepath.Join(root, "sys/block", name, "dev"))
	if err != nil {
		return nil, err
	}
	n := &node{file: name}
	if n.fd, err = unix.Open(filepath.Join(root, "dev", name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := n.prepare(strings.TrimSpace(string(number))); err != nil {
		unix.Close(n.fd)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

func (n *node) prepare(number string) error {
	var stat unix.Stat_t
	if err := unix.Fstat(n.fd, &stat); err != nil {
		return err
	}
	if fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev)) != number {
		return fmt.Errorf("the device file is of another device than %s", number)
	}
	id, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), ioctlID, 0)
	if errno != 0 {
		return errno
	}
	n.id = uint32(id)
	var err error
	n.data, err = unix.Mmap(-1, 0, bufferLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	return err
}

func (n *node) name() string { return n.file }

func (n *node) buffer() []byte { return n.data }

func (n *node) send(c *command) (status, error) {
	n.pass = passthrough{
		opcode: c.opcode, nsid: n.id, dw10: c.dw10, dw11: c.dw11, timeout: commandTime,
		addr: uint64(uintptr(unsafe.Pointer(&c.data[0]))), dataLen: uint32(len(c.data)),
	}
	call := uintptr(ioctlIO)
	if c.admin {
		call = ioctlAdmin
	}
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), call, uintptr(unsafe.Pointer(&n.pass)))
	runtime.KeepAlive(c)
	if errno != 0 {
		return 0, errno
	}
	return status(r), nil
}

func (n *node) close() error {
	err := unix.Close(n.fd)
	if e := unix.Munmap(n.data); err == nil {
		err = e
	}
	return err
}
