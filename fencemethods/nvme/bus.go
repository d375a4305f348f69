// SPDX-License-Identifier: GPL-2.0-only

package nvme

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods/reserve"
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

// A node is the device file of a namespace.
type node struct {
	*reserve.File
	id   uint32 // of the namespace, at its controllers
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
	names, err := reserve.Paths(s.root, "nvme*n*/wwid", wwid)
	if err != nil {
		return nil, err
	}
	var paths []bus
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(s.root, "dev", name)); os.IsNotExist(err) {
			continue // a path of the kernel's own multipath, which has a file for all of them
		}
		path, err := openNode(s.root, name)
		if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
			continue // no controller leads there now
		}
		if err != nil {
			return paths, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func openNode(root, name string) (*node, error) {
	file, err := reserve.OpenFile(root, name, bufferLen)
	if err != nil {
		return nil, err
	}
	id, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(file.FD), ioctlID, 0)
	if errno != 0 {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, errno), file.Close())
	}
	return &node{File: file, id: uint32(id)}, nil
}

func (n *node) name() string { return n.Name() }

func (n *node) buffer() []byte { return n.Data }

func (n *node) close() error { return n.Close() }

func (n *node) send(c *command) (status, error) {
	n.pass = passthrough{
		opcode: c.opcode, nsid: n.id, dw10: c.dw10, dw11: c.dw11, timeout: commandTime,
		addr: uint64(uintptr(unsafe.Pointer(&c.data[0]))), dataLen: uint32(len(c.data)),
	}
	call := uintptr(ioctlIO)
	if c.admin {
		call = ioctlAdmin
	}
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.FD), call, uintptr(unsafe.Pointer(&n.pass)))
	runtime.KeepAlive(c)
	if errno != 0 {
		return 0, errno
	}
	return status(r), nil
}
