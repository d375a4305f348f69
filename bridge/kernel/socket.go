// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A socket is a netlink socket whose receiver blocks in the system call, and not in the runtime's
// poller: from there it is three more system calls to the message, and a thread may have to be woken.
// That is a good part of what it takes to answer the kernel (make bench-upcall).
type socket struct {
	fd int

	mu     sync.Mutex
	users  int // calls that use fd
	closed bool
}

// openSocket connects a socket to the kernel, port 0: then the kernel itself refuses what any other
// process sends to it (ECONNREFUSED, netlink_getsockbyportid), and INITIATE is what it seems.
func openSocket() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return 0, fmt.Errorf("netlink socket: %w", err)
	}
	// The socket option is doubled by the kernel, for the overhead that waitingBytes counts.
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, waitingBytes/2),
		unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	)
	if err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("netlink socket: %w", err)
	}
	return fd, nil
}

// enter keeps fd open until leave. The error is os.ErrClosed.
func (s *socket) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return os.ErrClosed
	}
	s.users++
	return nil
}

// leave closes fd when that was to be done and this was the last user.
func (s *socket) leave() (closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	if s.closed && s.users == 0 {
		unix.Close(s.fd)
	}
	return s.closed
}

// receive waits for a message.
func (s *socket) receive(in []byte) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	n, err := unix.Read(s.fd, in)
	for err == unix.EINTR {
		n, err = unix.Read(s.fd, in)
	}
	switch closed := s.leave(); {
	case closed:
		return 0, os.ErrClosed
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// send does not wait: the kernel takes a message and obeys in the sender's system call.
func (s *socket) send(message []byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return os.NewSyscallError("send", unix.Send(s.fd, message, unix.MSG_DONTWAIT))
}

// close wakes the receiver, which no system call does to a netlink socket, by having the kernel
// acknowledge a message that says nothing. Who leaves last closes fd.
func (s *socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return os.ErrClosed
	}
	s.closed = true
	if s.users == 0 {
		return unix.Close(s.fd)
	}
	return os.NewSyscallError("send", unix.Send(s.fd, farewell(), unix.MSG_DONTWAIT))
}

func farewell() []byte {
	b := host.AppendUint32(nil, unix.NLMSG_HDRLEN)
	b = host.AppendUint16(b, unix.NLMSG_NOOP)
	b = host.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return host.AppendUint64(b, 0)
}
