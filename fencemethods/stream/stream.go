// SPDX-License-Identifier: GPL-2.0-only

// Package stream is a stream socket for the path of a fence, for methods that speak TCP or to a
// Unix socket. Package net starts a goroutine for a connection that a context can end; this starts
// none and makes no timer. It notices when the fence is called off, and waits for nothing without
// a limit. (R19)
package stream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// glance is how often who waits looks whether the fence was called off.
const glance = 100 * time.Millisecond

// What may wait in the socket. The kernel doubles it for its own bookkeeping, which it counts too: the
// longest answers, of 64 KiB, come in without a pause.
const (
	receiveBytes = 64 << 10
	sendBytes    = 16 << 10
)

// KernelKiB is what the kernel may hold for a Conn, with one packet that may be too much for each
// direction.
const KernelKiB = 2*(receiveBytes+sendBytes)>>10 + 8

// An Address is where a Conn leads. It is made beforehand, and nothing is looked up.
type Address struct {
	family   int
	sockaddr syscall.Sockaddr
}

// TCP returns the address of a TCP port.
func TCP(addr netip.AddrPort) Address {
	ip := addr.Addr().Unmap()
	if ip.Is4() {
		return Address{syscall.AF_INET, &syscall.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}}
	}
	return Address{syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(addr.Port()), Addr: ip.As16()}}
}

// Unix returns the address of a Unix socket.
func Unix(path string) Address {
	return Address{syscall.AF_UNIX, &syscall.SockaddrUnix{Name: path}}
}

// A Socket leads to one address, again and again. One for TCP is made once and kept: a new one at fence
// time would ask the kernel for memory, and nobody would have marked it to receive with the reserve
// (R20). A Unix socket cannot be connected again, so each connection has a new one; what it receives
// comes from this machine, and the kernel drops none of it for want of that mark.
type Socket struct {
	to   Address
	file *os.File // kept; nil for Unix
}

// New makes the socket. It sends nothing.
func New(to Address) (*Socket, error) {
	s := &Socket{to: to}
	if to.family == syscall.AF_UNIX {
		return s, nil
	}
	var err error
	s.file, err = open(to.family)
	return s, err
}

// Close gives the socket back.
func (s *Socket) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// A Conn is a connection. One goroutine uses it at a time; it is a net.Conn for crypto/tls only,
// and has no addresses.
type Conn struct {
	ctx   context.Context
	file  *os.File
	kept  bool // the Socket keeps file
	until time.Time
}

// Connect connects until then at most. The connection before it has to be closed. The context, which
// must stay valid as long as the Conn, ends all that waits when it is done.
func (s *Socket) Connect(ctx context.Context, until time.Time) (*Conn, error) {
	c := &Conn{ctx: ctx, file: s.file, kept: s.file != nil, until: until}
	if !c.kept {
		var err error
		if c.file, err = open(s.to.family); err != nil {
			return nil, err
		}
	}
	if err := c.connect(s.to.sockaddr); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func open(family int) (*os.File, error) {
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := adjust(fd, family); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

func adjust(fd, family int) error {
	err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBytes)
	if err == nil {
		err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, sendBytes)
	}
	if err == nil && family != syscall.AF_UNIX {
		// Questions are small, and waited for.
		err = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	}
	return err
}

func (c *Conn) connect(to syscall.Sockaddr) error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	return c.wait(c.file.SetWriteDeadline, func() error {
		var failed error
		err := raw.Write(func(fd uintptr) bool {
			failed = syscall.Connect(int(fd), to)
			// A Unix socket whose backlog is full says EAGAIN, and nothing tells when it no
			// longer is: that is for the caller to try again.
			return failed != syscall.EINPROGRESS && failed != syscall.EALREADY && failed != syscall.EINTR
		})
		if err == nil && failed != nil && failed != syscall.EISCONN {
			return os.NewSyscallError("connect", failed)
		}
		return err
	})
}

// Limit sets until when what follows may take.
func (c *Conn) Limit(until time.Time) { c.until = until }

// wait calls what waits, again and again, each time for a glance at most.
func (c *Conn) wait(setDeadline func(time.Time) error, do func() error) error {
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		next := time.Now().Add(glance)
		last := !next.Before(c.until)
		if last {
			next = c.until
		}
		if err := setDeadline(next); err != nil {
			return err
		}
		if err := do(); !errors.Is(err, os.ErrDeadlineExceeded) || last {
			return err
		}
	}
}

// Read reads what there is, and waits for it until the limit: os.ErrDeadlineExceeded.
func (c *Conn) Read(b []byte) (n int, err error) {
	err = c.wait(c.file.SetReadDeadline, func() (err error) {
		n, err = c.file.Read(b)
		return err
	})
	return n, err
}

// Write writes all of b, or fails.
func (c *Conn) Write(b []byte) (n int, err error) {
	err = c.wait(c.file.SetWriteDeadline, func() error {
		m, err := c.file.Write(b[n:])
		n += m
		return err
	})
	return n, err
}

// Close ends the connection, at once: what was not sent or not read is lost.
func (c *Conn) Close() error {
	file := c.file
	c.file = nil // and with it whoever still reads or writes
	if file == nil || !c.kept {
		return file.Close()
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = disconnect(int(fd)) })
	return errors.Join(err, failed)
}

// disconnect makes a TCP socket as it was. It keeps its port; that what came for an earlier connection is
// not taken for this one's, TCP sees to.
func disconnect(fd int) error {
	var unspec syscall.RawSockaddr
	_, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd),
		uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec))
	if errno != 0 {
		return os.NewSyscallError("connect", errno)
	}
	// To read the error that this leaves behind clears it.
	_, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	return os.NewSyscallError("getsockopt", err)
}

// LocalAddr returns nil.
func (c *Conn) LocalAddr() net.Addr { return nil }

// RemoteAddr returns nil.
func (c *Conn) RemoteAddr() net.Addr { return nil }

// SetDeadline does nothing: Limit does.
func (c *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing: Limit does.
func (c *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: Limit does.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// Sleep sleeps until then, or until the context is done.
func Sleep(ctx context.Context, until time.Time) {
	for left := time.Until(until); left > 0 && ctx.Err() == nil; left = time.Until(until) {
		time.Sleep(min(left, glance))
	}
}
