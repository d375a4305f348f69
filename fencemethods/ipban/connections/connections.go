// SPDX-License-Identifier: GPL-2.0-only

// Package connections ends the TCP connections of a node that was banned, and tells whether what had
// come in on them was read before: a storage server's kernel may hold megabytes of a node's writes that
// no filter stops any more. It asks the kernel by sock_diag, as ss does. (R15)
package connections

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrUnsupported is for a kernel that lets nobody end connections (CONFIG_INET_DIAG_DESTROY).
var ErrUnsupported = errors.New("the kernel cannot end connections")

// A Connection is a TCP connection of this network namespace.
type Connection struct {
	Local, Remote netip.AddrPort
	Unread        uint32 // bytes that have come in and were not read by whom they are for

	family uint8
	id     [idLen]byte // as the kernel names it, with a cookie: never another one
}

// Wire sizes and offsets, include/uapi/linux/inet_diag.h.
const (
	idLen      = 48 // struct inet_diag_sockid
	requestLen = 8 + idLen
	messageLen = 4 + idLen + 5*4 // struct inet_diag_msg
	unreadAt   = 4 + idLen + 4

	byFamily = 20 // SOCK_DIAG_BY_FAMILY
	destroy  = 21 // SOCK_DESTROY

	memInfo   = 7  // INET_DIAG_SKMEMINFO
	backlogAt = 28 // SK_MEMINFO_BACKLOG, the eighth number
)

// synRecv is the state of a connection that is being made. As long as the far end has not answered there
// is no socket for it, and nothing unread.
const synRecv = 3

// The states in which the far end has said that nothing more comes: that counts as an unread byte.
const (
	closeWait = 8
	lastAck   = 9
	closing   = 11
)

// states are all but those in which nothing can come in: TIME_WAIT, CLOSE and LISTEN.
const states = 0xffff &^ (1<<6 | 1<<7 | 1<<10)

// Of returns the connections with one of these addresses at the far end, in whatever state and whoever
// has them, those that nobody has accepted yet included.
func Of(addrs []netip.Addr) ([]Connection, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	defer c.Close()
	var all []Connection
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		some, err := list(c, family, addrs)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func list(c *netlink.Conn, family uint8, addrs []netip.Addr) ([]Connection, error) {
	messages, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: byFamily, Flags: netlink.Request | netlink.Dump},
		Data:   request(family, [idLen]byte{}),
	})
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	var found []Connection
	for _, m := range messages {
		one, err := parse(m.Data)
		if err != nil {
			return nil, err
		}
		if slices.Contains(addrs, one.Remote.Addr()) {
			found = append(found, one)
		}
	}
	return found, nil
}

// request is a struct inet_diag_req_v2.
func request(family uint8, id [idLen]byte) []byte {
	b := []byte{family, unix.IPPROTO_TCP, 1 << (memInfo - 1), 0}
	b = binary.NativeEndian.AppendUint32(b, states)
	return append(b, id[:]...)
}

func parse(b []byte) (Connection, error) {
	if len(b) < messageLen {
		return Connection{}, fmt.Errorf("sock_diag: a message of %d bytes", len(b))
	}
	c := Connection{family: b[0], Unread: binary.NativeEndian.Uint32(b[unreadAt:])}
	if end := b[1] == closeWait || b[1] == lastAck || b[1] == closing; end && c.Unread > 0 {
		c.Unread--
	}
	copy(c.id[:], b[4:])
	c.Local = endpoint(c.family, c.id[4:], c.id[0:])
	c.Remote = endpoint(c.family, c.id[20:], c.id[2:])
	d, err := netlink.NewAttributeDecoder(b[messageLen:])
	if err != nil {
		return Connection{}, fmt.Errorf("sock_diag: %w", err)
	}
	known := b[1] == synRecv
	for d.Next() {
		if d.Type() == memInfo && len(d.Bytes()) >= backlogAt+4 {
			known = true
			c.Unread += binary.NativeEndian.Uint32(d.Bytes()[backlogAt:])
		}
	}
	if err := d.Err(); err != nil || !known {
		return Connection{}, errors.Join(errors.New("sock_diag: the kernel does not tell what is unread"), err)
	}
	return c, nil
}

func endpoint(family uint8, addr, port []byte) netip.AddrPort {
	n := 4
	if family == unix.AF_INET6 {
		n = 16
	}
	a, _ := netip.AddrFromSlice(addr[:n])
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

// End ends connections: who has one reads what is left unread, and then an error. One that has ended by
// itself is no error.
func End(connections []Connection) error {
	if len(connections) == 0 {
		return nil
	}
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return fmt.Errorf("sock_diag: %w", err)
	}
	defer c.Close()
	var errs []error
	for _, one := range connections {
		_, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: destroy, Flags: netlink.Request | netlink.Acknowledge},
			Data:   request(one.family, one.id),
		})
		switch {
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ESTALE):
		case errors.Is(err, syscall.EOPNOTSUPP):
			return ErrUnsupported
		case err != nil:
			errs = append(errs, fmt.Errorf("ending the connection from %v: %w", one.Remote, err))
		}
	}
	return errors.Join(errs...)
}

// Check returns ErrUnsupported where End cannot work. It ends nothing.
func Check() error { return End([]Connection{{family: unix.AF_INET}}) }
