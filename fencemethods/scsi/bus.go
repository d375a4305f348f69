// SPDX-License-Identifier: GPL-2.0-only

package scsi

import (
	"errors"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// bufferLen is the memory of a path. It takes 2047 keys.
const bufferLen = 16 << 10

// A bus takes commands to a disk and brings back what it says.
type bus interface {
	name() string
	// buffer is for the data of all commands.
	buffer() []byte
	// send carries a command out. An error says that the disk has not answered.
	send(*command) error
	close() error
}

// A command is a SCSI command and what came of it.
type command struct {
	cdb  []byte
	out  bool   // data goes to the disk
	data []byte // at the beginning of the buffer

	status byte
	read   int // bytes of data that came
	sense  []byte
}

// A node is the device file of a path.
type node struct {
	*reserve.File
	head  sgIO
	sense [64]byte
}

// struct sg_io_hdr of scsi/sg.h.
type sgIO struct {
	interfaceID  int32
	direction    int32
	cmdLen       uint8
	senseMax     uint8
	_            uint16 // iovec_count
	dataLen      uint32
	data         uintptr
	cmd          uintptr
	sense        uintptr
	timeout      uint32 // ms
	flags        uint32
	_            int32   // pack_id
	_            uintptr // usr_ptr
	status       uint8
	_            uint8 // masked_status
	_            uint8 // msg_status
	senseLen     uint8
	hostStatus   uint16
	driverStatus uint16
	residual     int32
	_            uint32 // duration
	_            uint32 // info
}

const (
	sgIOCall = 0x2285 // SG_IO
	toDisk   = -2     // SG_DXFER_TO_DEV
	fromDisk = -3     // SG_DXFER_FROM_DEV

	// commandTime in ms is that of the disk's ordinary commands: with a shorter one the kernel would
	// reset a disk that is merely slow, under everybody who uses it.
	commandTime = 30000

	// driverSense says only that there is sense data; kernels before 5.14 set it.
	driverSense = 8
)

// sysfs finds disks below a root.
type sysfs struct{ root string }

// open opens all paths to a disk. That there is none is no error.
func (s sysfs) open(wwid string) ([]bus, error) {
	names, err := reserve.Paths(s.root, "sd*/device/wwid", wwid)
	if err != nil {
		return nil, err
	}
	var paths []bus
	for _, name := range names {
		file, err := reserve.OpenFile(s.root, name, bufferLen)
		switch {
		case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
			paths = append(paths, &offline{file: name})
		case err != nil:
			return paths, err
		default:
			paths = append(paths, &node{File: file})
		}
	}
	return paths, nil
}

// An offline path is one that the kernel had given up when it was to be opened. It counts as a path that
// does not answer: a bridge that starts meanwhile has other work to do, too.
type offline struct {
	file string
	data [bufferLen]byte
}

var errOffline = errors.New("was offline when it was to be opened")

func (o *offline) name() string        { return o.file }
func (o *offline) buffer() []byte      { return o.data[:] }
func (o *offline) send(*command) error { return errOffline }
func (o *offline) close() error        { return nil }

func (n *node) name() string { return n.Name() }

func (n *node) buffer() []byte { return n.Data }

func (n *node) close() error { return n.Close() }

// A hostError is a command that did not reach the disk, or whose answer did not come back: what the
// host adapter and the driver say of it.
type hostError uint32

func (e hostError) Error() string { return "host status 0x" + strconv.FormatUint(uint64(e), 16) }

func (n *node) send(c *command) error {
	direction := int32(fromDisk)
	if c.out {
		direction = toDisk
	}
	n.head = sgIO{
		interfaceID: 'S', direction: direction, timeout: commandTime,
		cmdLen: uint8(len(c.cdb)), cmd: uintptr(unsafe.Pointer(&c.cdb[0])),
		dataLen: uint32(len(c.data)), data: uintptr(unsafe.Pointer(&c.data[0])),
		senseMax: uint8(len(n.sense)), sense: uintptr(unsafe.Pointer(&n.sense[0])),
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.FD), sgIOCall, uintptr(unsafe.Pointer(&n.head)))
	runtime.KeepAlive(c)
	switch h := &n.head; {
	case errno != 0:
		return errno
	case h.hostStatus != 0, h.driverStatus&^driverSense != 0:
		return hostError(uint32(h.driverStatus)<<16 | uint32(h.hostStatus))
	}
	c.status, c.sense = n.head.status, n.sense[:min(int(n.head.senseLen), len(n.sense))]
	c.read = len(c.data) - int(min(max(n.head.residual, 0), int32(len(c.data))))
	return nil
}
