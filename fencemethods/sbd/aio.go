// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A queue is a context of the kernel's asynchronous I/O, as sbd itself uses it: what a disk that hangs has
// taken holds up nobody, and whoever waits sees all disks at once. To submit may wait all the same, for
// room in the disk's queue. See io_submit(2).
type queue struct {
	id     uintptr
	events [disksMax]ioEvent
}

// struct iocb of linux/aio_abi.h. Nameless: aio_key and aio_rw_flags, aio_reqprio, and at the end
// aio_reserved2, aio_flags and aio_resfd, all of them 0.
type iocb struct {
	data   uint64
	_      [2]uint32
	opcode uint16
	_      int16
	fd     uint32
	buf    uint64
	bytes  uint64
	offset int64
	_      [2]uint64
}

// struct io_event. Nameless: obj and res2.
type ioEvent struct {
	data uint64
	_    uint64
	res  int64
	_    int64
}

const (
	opRead  = 0 // IOCB_CMD_PREAD
	opWrite = 1 // IOCB_CMD_PWRITE
)

func newQueue() (*queue, error) {
	q := &queue{}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, disksMax, uintptr(unsafe.Pointer(&q.id)), 0); errno != 0 {
		return nil, errno
	}
	return q, nil
}

// submit begins what cb asks for. Cb and its buffer have to stay where they are until it has ended.
func (q *queue) submit(cb *iocb) error {
	list := [1]*iocb{cb}
	_, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, q.id, 1, uintptr(unsafe.Pointer(&list)))
	runtime.KeepAlive(cb)
	if errno != 0 {
		return errno
	}
	return nil
}

// ended returns what has ended, without waiting, valid until the next call.
func (q *queue) ended() []ioEvent {
	var now unix.Timespec
	n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, q.id, 0, uintptr(len(q.events)),
		uintptr(unsafe.Pointer(&q.events)), uintptr(unsafe.Pointer(&now)), 0)
	if errno != 0 {
		return nil // EINTR: the next call has them
	}
	return q.events[:n]
}

// close waits for what has not ended: see device.Close.
func (q *queue) close() error {
	if _, _, errno := unix.Syscall(unix.SYS_IO_DESTROY, q.id, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
