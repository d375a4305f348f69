// SPDX-License-Identifier: GPL-2.0-only

package ask

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

// What may wait in the socket. The kernel doubles it for its own bookkeeping, which it counts too. One
// packet may be too much for each direction.
const (
	receiveBytes = 64 << 10
	sendBytes    = 16 << 10

	kernelKiB = 2*(receiveBytes+sendBytes)>>10 + 8
)

// A socket is the one of a device, for all the machines that it asks. It never waits: a question may
// stand for a day, and what package net allocates for each wait that was in vain would add up. One
// goroutine uses it at a time. (R19)
type socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	in   [message.Size + 1]byte // what is longer is no message

	// Functions are made once, since making one allocates; these are what they work on.
	read, write func(fd uintptr)
	n           int
	err         error
	out         *[message.Size]byte
	to          unix.Sockaddr
}

// openSocket binds it to a port of its own for good: what comes for an earlier question has its nonce.
func openSocket(addrs []netip.AddrPort) (*socket, []unix.Sockaddr, error) {
	network := "udp4"
	for _, a := range addrs {
		if !a.Addr().Is4() {
			network = "udp" // of both families
		}
	}
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, nil, err
	}
	raw, err := conn.SyscallConn()
	if err := errors.Join(err, conn.SetReadBuffer(receiveBytes), conn.SetWriteBuffer(sendBytes)); err != nil {
		conn.Close()
		return nil, nil, err
	}
	s := &socket{conn: conn, raw: raw}
	s.read = func(fd uintptr) { s.n, s.err = syscall.Read(int(fd), s.in[:]) }
	s.write = func(fd uintptr) { s.err = unix.Sendto(int(fd), s.out[:], unix.MSG_DONTWAIT, s.to) }
	var to []unix.Sockaddr
	for _, a := range addrs {
		if network == "udp4" {
			to = append(to, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()})
		} else {
			to = append(to, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()})
		}
	}
	return s, to, nil
}

// send sends a datagram, or not: it is sent again later, and routes do come back.
func (s *socket) send(p *[message.Size]byte, to unix.Sockaddr) error {
	s.out, s.to = p, to
	if err := s.raw.Control(s.write); err != nil {
		return err
	}
	return s.err
}

// next returns the next datagram, valid until the next call, or nil when there is none.
func (s *socket) next() []byte {
	for {
		if err := s.raw.Control(s.read); err != nil {
			return nil
		}
		switch s.err {
		case nil:
			return s.in[:s.n]
		case syscall.EAGAIN:
			return nil
		}
	}
}

func (s *socket) close() error { return s.conn.Close() }
