// SPDX-License-Identifier: GPL-2.0-only

package link

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// listen returns a socket of a device's, and its address.
func listen(t *testing.T) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func newLink(t *testing.T, device netip.AddrPort) *Link {
	t.Helper()
	l, err := New(device, 512)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.Open(soon())
	return l
}

func soon() time.Time { return time.Now().Add(10 * time.Second) }

// heard is what the device hears next, and from whom.
func heard(t *testing.T, device *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	b := make([]byte, 512)
	if err := device.SetReadDeadline(soon()); err != nil {
		t.Fatal(err)
	}
	n, from, err := device.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), from
}

func send(t *testing.T, from *net.UDPConn, to netip.AddrPort, text string) {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte(text), to); err != nil {
		t.Fatal(err)
	}
}

func TestAPacketGoesThereAndBack(t *testing.T) {
	device, addr := listen(t)
	l := newLink(t, addr)
	l.Send([]byte("question"))
	text, from := heard(t, device)
	send(t, device, from, "answer")
	if p := l.Receive(soon()); text != "question" || string(p) != "answer" || l.Err != nil {
		t.Errorf("%q, %q, %v", text, p, l.Err)
	}
}

func TestWhatOthersSendDoesNotArrive(t *testing.T) {
	device, addr := listen(t)
	stranger, _ := listen(t)
	l := newLink(t, addr)
	l.Send(nil)
	_, from := heard(t, device)
	send(t, stranger, from, "forged")
	send(t, device, from, "genuine")
	if p := l.Receive(soon()); string(p) != "genuine" {
		t.Errorf("%q", p)
	}
}

func TestWhatComesForAnEarlierSessionDoesNotArrive(t *testing.T) {
	device, addr := listen(t)
	l := newLink(t, addr)
	l.Send(nil)
	_, before := heard(t, device)
	send(t, device, before, "waiting when the session ends")
	l.Open(soon())
	send(t, device, before, "late")
	l.Send(nil)
	_, after := heard(t, device)
	send(t, device, after, "new")
	if p := l.Receive(soon()); string(p) != "new" || before == after {
		t.Errorf("%q, from port %d and then %d", p, before.Port(), after.Port())
	}
}

func TestAClosedPortIsReported(t *testing.T) {
	device, addr := listen(t)
	device.Close()
	l := newLink(t, addr)
	l.Send(nil)
	if p := l.Receive(time.Now().Add(100 * time.Millisecond)); p != nil || !errors.Is(l.Err, syscall.ECONNREFUSED) {
		t.Errorf("%q, %v; want %v", p, l.Err, syscall.ECONNREFUSED)
	}
}

func TestWhatTheKernelMayHoldIsWithinTheBudget(t *testing.T) {
	_, addr := listen(t)
	raw, err := newLink(t, addr).conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	err = raw.Control(func(fd uintptr) {
		for _, option := range []int{syscall.SO_RCVBUF, syscall.SO_SNDBUF} {
			n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, option)
			if err != nil {
				t.Error(err)
			}
			total += n
		}
	})
	if err != nil || total == 0 || total > KernelKiB<<10 {
		t.Errorf("%d bytes may wait in the socket, KernelKiB allows %d KiB: %v", total, KernelKiB, err)
	}
}
