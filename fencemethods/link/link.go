// SPDX-License-Identifier: GPL-2.0-only

// Package link is the UDP socket of a device: made once, kept, and without anything to wait for
// memory for when it counts. (R19)
package link

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// What may wait in the socket. The kernel doubles it for its own bookkeeping, which it counts too: a
// small packet as 768 bytes. So there is room for an answer behind 160 packets of garbage, and for
// the few packets of ours that a network without an answer to ARP holds back.
const (
	receiveBytes = 64 << 10
	sendBytes    = 8 << 10
)

// KernelKiB is what the kernel may hold for a Link, with one packet that may be too much for each
// direction.
const KernelKiB = 2*(receiveBytes+sendBytes)>>10 + 8

// A Link is the one UDP socket of a device, made once and kept: a new one at fence time would ask
// the kernel for memory. It serves one goroutine at a time.
type Link struct {
	// Err is the last error that the kernel told of. Whoever wants to know of new ones clears it.
	Err error

	conn    *net.UDPConn
	connect func() error
	in      []byte
}

// New makes the socket for packets of up to size bytes; of longer ones the rest is lost. It
// succeeds without a route to addr: a network that is down today may be up when it counts.
func New(addr netip.AddrPort, size int) (*Link, error) {
	network, peer := sockaddr(addr)
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err := errors.Join(err, conn.SetReadBuffer(receiveBytes), conn.SetWriteBuffer(sendBytes)); err != nil {
		conn.Close()
		return nil, err
	}
	l := &Link{conn: conn, in: make([]byte, size)}
	var failed error
	// Both functions are made here because making one allocates.
	control := func(fd uintptr) { failed = reconnect(int(fd), peer, l.in) }
	l.connect = func() error {
		if err := raw.Control(control); err != nil {
			return err
		}
		return failed
	}
	return l, nil
}

func sockaddr(addr netip.AddrPort) (network string, peer syscall.Sockaddr) {
	if addr.Addr().Is4() {
		return "udp4", &syscall.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	return "udp6", &syscall.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
}

// reconnect gives a socket a new port of its own and connects it to peer by today's route. The new
// port keeps away what still comes for earlier sessions, and devices that go by the client's port do
// not mix them up (pyghmi's BMC does). From here on the kernel delivers only what peer sends.
func reconnect(fd int, peer syscall.Sockaddr, scratch []byte) error {
	// Connecting to AF_UNSPEC disconnects and gives back a port that was not asked for by number.
	var unspec syscall.RawSockaddr
	_, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd),
		uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec))
	if errno != 0 {
		return errno
	}
	// Without a port nothing arrives any more, so this ends.
	for {
		if _, err := syscall.Read(fd, scratch); err != nil && err != syscall.EINTR {
			break
		}
	}
	return syscall.Connect(fd, peer)
}

// Open makes the link ready for a session that is over by then.
func (l *Link) Open(deadline time.Time) {
	err := l.conn.SetWriteDeadline(deadline)
	if err == nil {
		err = l.connect()
	}
	if err != nil {
		l.Err = err
	}
}

// Send sends one packet. One that cannot be sent counts as lost on the way: it is sent again later,
// and routes and ports do come back.
func (l *Link) Send(p []byte) {
	if _, err := l.conn.Write(p); err != nil {
		l.Err = err
	}
}

// Receive returns the next packet, valid until the next call, or nil when there is none until then.
func (l *Link) Receive(until time.Time) []byte {
	if err := l.conn.SetReadDeadline(until); err != nil {
		l.Err = err
		return nil
	}
	for {
		n, err := l.conn.Read(l.in)
		if err == nil {
			return l.in[:n]
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		l.Err = err // an ICMP answer to something sent before; reading it clears it
	}
}

// Close closes the socket.
func (l *Link) Close() error { return l.conn.Close() }
