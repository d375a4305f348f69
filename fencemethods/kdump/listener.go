// SPDX-License-Identifier: GPL-2.0-only

package kdump

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A listener is the one socket for an address and port, for all nodes, from the first device to the
// last: two crashes at once need one socket, and what comes before it is asked
// for is heard. Its goroutine hears, and remembers, and does nothing else.
type listener struct {
	conn  *net.UDPConn
	local netip.AddrPort
	among *listeners
	ended chan struct{}

	mu      sync.Mutex
	devices []*device
	out     [sealedLen]byte
}

// listeners are those of one Method: its devices are made one by one, by callers that do not know of
// each other.
type listeners struct {
	mu   sync.Mutex
	open map[netip.AddrPort]*listener
}

// join has d hear what comes in at local.
func (ls *listeners) join(local netip.AddrPort, d *device) (*listener, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.open[local]
	if l == nil {
		addr := &net.UDPAddr{Port: int(local.Port())} // all addresses, of both families
		if local.Addr().IsValid() {
			addr = net.UDPAddrFromAddrPort(local)
		}
		conn, err := listen(addr)
		if err != nil {
			return nil, err
		}
		l = &listener{conn: conn, local: local, among: ls, ended: make(chan struct{})}
		ls.open[local] = l
		go l.hear()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.devices = append(l.devices, d)
	return l, nil
}

// listen opens the socket, which tells when each packet came: under load it may be read later.
func listen(addr *net.UDPAddr) (*net.UDPConn, error) {
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		})
		err = errors.Join(err, failed)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// leave ends that; the last one closes the socket.
func (l *listener) leave(d *device) error {
	l.among.mu.Lock()
	defer l.among.mu.Unlock()
	l.mu.Lock()
	l.devices = slices.DeleteFunc(l.devices, func(other *device) bool { return other == d })
	last := len(l.devices) == 0
	l.mu.Unlock()
	if !last {
		return nil
	}
	delete(l.among.open, l.local)
	err := l.conn.Close()
	<-l.ended
	return err
}

// hear hands on what comes in until the socket is closed.
func (l *listener) hear() {
	defer close(l.ended)
	var in [sealedLen + 1]byte // what is longer is no message
	var control [64]byte
	for {
		n, size, _, from, err := l.conn.ReadMsgUDPAddrPort(in[:], control[:])
		switch {
		case err == nil:
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			l.heard(in[:n], from, time.Now().Add(-age(control[:size])))
		case isClosed(err):
			return
		default:
			time.Sleep(time.Millisecond) // an ICMP error of a challenge: it was to be told once
		}
	}
}

// age is for how long a packet had lain in the socket, by its timestamp (socket(7)): a cmsghdr and a
// timespec. Without one, which the kernel does not leave out, it is too old to count.
func age(control []byte) time.Duration {
	const header, timespec = unix.SizeofCmsghdr, 16
	if len(control) < header+timespec || unix.SizeofPtr != 8 ||
		binary.NativeEndian.Uint32(control[8:]) != unix.SOL_SOCKET ||
		binary.NativeEndian.Uint32(control[12:]) != unix.SCM_TIMESTAMPNS {
		return ancient
	}
	sec := binary.NativeEndian.Uint64(control[header:])
	nsec := binary.NativeEndian.Uint64(control[header+8:])
	return max(0, time.Since(time.Unix(int64(sec), int64(nsec))))
}

const ancient = 24 * time.Hour

func (l *listener) heard(p []byte, from netip.AddrPort, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, sealed := decode(p)
	if sealed && m.kind == kindProbe {
		l.served(m, from)
		return
	}
	plain := isPlain(p)
	if !sealed && !plain {
		return
	}
	for _, d := range l.devices {
		if !slices.Contains(d.addrs, from.Addr()) {
			continue
		}
		if plain {
			d.heardPlain(now)
		} else {
			d.heardSealed(m, p, from)
		}
	}
}

// served answers a check of this very machine, if the node that it is about is listened for.
func (l *listener) served(m message, from netip.AddrPort) {
	if !from.Addr().IsLoopback() && from.Addr() != l.local.Addr().Unmap() {
		return
	}
	for _, d := range l.devices {
		if d.tag == m.listener {
			m.kind = kindServed
			m.encode(&l.out)
			_, _ = l.conn.WriteToUDPAddrPort(l.out[:], from) // who gets no answer asks again
			return
		}
	}
}
