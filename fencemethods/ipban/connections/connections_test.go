// SPDX-License-Identifier: GPL-2.0-only

package connections

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/o2fence/o2fence/test/netns"
)

const (
	v4     = "198.18.3.1"
	v6     = "2001:db8:3::1"
	server = "198.18.3.9"
	other  = "198.18.3.2"
)

// pair is a connection: what the node has and what the server has.
func pair(t *testing.T, node, srv *netns.Space, from, listen, to string) (far, near net.Conn) {
	t.Helper()
	var l net.Listener
	srv.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(listen, "0"))
		return err
	})
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	node.Do(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
		far, err = d.Dial("tcp", net.JoinHostPort(to, port))
		return err
	})
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close(); near.Close() })
	return far, near
}

func of(t *testing.T, addrs ...string) []Connection {
	t.Helper()
	var all []netip.Addr
	for _, a := range addrs {
		all = append(all, netip.MustParseAddr(a))
	}
	found, err := Of(all)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// await looks until the kernel tells of so many bytes that were not read.
func await(t *testing.T, addr string, unread uint32) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		found := of(t, addr)
		if len(found) == 1 && found[0].Unread == unread {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v, want one with %d bytes unread", found, unread)
		}
	}
}

func network(t *testing.T) (node, srv *netns.Space) {
	node, srv = netns.New(t), netns.New(t)
	netns.Link(node, srv, []string{v4 + "/24", other + "/24", v6 + "/64"}, []string{server + "/24", "2001:db8:3::9/64"})
	return node, srv
}

// A server that listens on all addresses has IPv4 connections on IPv6 sockets.
func TestANodesConnectionsAreEndedAndNoOthers(t *testing.T) {
	node, srv := network(t)
	_, first := pair(t, node, srv, v4, server, server)
	_, mapped := pair(t, node, srv, v4, "", server)
	_, six := pair(t, node, srv, v6, "2001:db8:3::9", "2001:db8:3::9")
	far, kept := pair(t, node, srv, other, server, server)
	srv.Enter()
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	found := of(t, v4, v6)
	if len(found) != 3 {
		t.Fatalf("found %+v", found)
	}
	if err := End(found); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{first, mapped, six} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("a connection that was ended: %v", err)
		}
	}
	if left := of(t, v4, v6); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	if err := End(found); err != nil {
		t.Errorf("ended twice: %v", err)
	}
	if _, err := far.Write([]byte{7}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(kept, make([]byte, 1)); err != nil {
		t.Errorf("another node's connection: %v", err)
	}
}

// The reason for all this: a filter does not take back what is here already.
func TestWhatCameInAndWasNotReadIsTold(t *testing.T) {
	node, srv := network(t)
	far, near := pair(t, node, srv, v4, server, server)
	srv.Enter()
	await(t, v4, 0)
	if _, err := far.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	await(t, v4, 1000)
	if err := End(of(t, v4)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(near, make([]byte, 1000)); err != nil {
		t.Errorf("%d bytes, %v: so End alone would do, and need not wait", n, err)
	}
}

// Nobody has taken it over from the network card yet: it is in no queue of the connection's.
func TestWhatIsInTheBacklogIsUnread(t *testing.T) {
	b := make([]byte, messageLen)
	b[0], b[1] = syscall.AF_INET, 1
	binary.NativeEndian.PutUint32(b[unreadAt:], 5)
	numbers := make([]byte, backlogAt+4)
	binary.NativeEndian.PutUint32(numbers[backlogAt:], 7)
	e := netlink.NewAttributeEncoder()
	e.Bytes(memInfo, numbers)
	info, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := parse(append(b, info...)); err != nil || c.Unread != 12 {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := parse(b); err == nil {
		t.Errorf("without these numbers: %+v", c)
	}
}

func TestAnEndThatWasNotReadIsNoData(t *testing.T) {
	node, srv := network(t)
	far, near := pair(t, node, srv, v4, server, server)
	srv.Enter()
	if _, err := far.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	far.Close()
	await(t, v4, 10)
	if _, err := io.ReadFull(near, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	await(t, v4, 0)
}

// The kernel knows of a connection before it has one: its last packet has not come, and may never do.
func TestAConnectionThatIsBeingMadeIsToldAndEnded(t *testing.T) {
	node, srv := network(t)
	var l net.Listener
	srv.Do(func() (err error) {
		l, err = net.Listen("tcp", server+":0")
		return err
	})
	defer l.Close()
	srv.Run("ip", "neigh", "replace", v4, "lladdr", "02:00:00:00:00:99", "dev", device(srv)) // answers go astray
	node.Do(func() error {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { syscall.Close(fd) })
		if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: netip.MustParseAddr(v4).As4()}); err != nil {
			return err
		}
		to := &syscall.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: netip.MustParseAddr(server).As4()}
		if err := syscall.Connect(fd, to); err != syscall.EINPROGRESS {
			return err
		}
		return nil
	})
	srv.Enter()
	await(t, v4, 0)
	if err := End(of(t, v4)); err != nil {
		t.Fatal(err)
	}
	if left := of(t, v4); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

// device is the name of a namespace's end of the cable.
func device(s *netns.Space) string {
	return strings.TrimSpace(s.Run("sh", "-c", "ls /sys/class/net | grep -v lo"))
}
