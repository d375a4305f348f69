// SPDX-License-Identifier: GPL-2.0-only

package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func soon() time.Time { return time.Now().Add(20 * time.Second) }

// listen listens at a free port, and gives the address to connect to.
func listen(t *testing.T) (net.Listener, Address) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, TCP(l.Addr().(*net.TCPAddr).AddrPort())
}

func connect(t *testing.T, ctx context.Context, to Address) *Conn {
	t.Helper()
	c, err := socket(t, to).Connect(ctx, soon())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func socket(t *testing.T, to Address) *Socket {
	t.Helper()
	s, err := New(to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestBytesGoThereAndBack(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6", "unix"} {
		t.Run(network, func(t *testing.T) {
			at := map[string]string{
				"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": filepath.Join(t.TempDir(), "s"),
			}[network]
			l, err := net.Listen(network, at)
			if err != nil {
				t.Skip("not on this machine:", err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err == nil {
					_, _ = io.Copy(c, c)
					c.Close()
				}
			}()
			to := Unix(at)
			if a, ok := l.Addr().(*net.TCPAddr); ok {
				to = TCP(a.AddrPort())
			}
			c := connect(t, t.Context(), to)
			// More than the socket's buffers hold comes back only if it is read meanwhile.
			go func() { _, _ = c.Write(make([]byte, 64<<10)) }()
			if n, err := io.ReadFull(c, make([]byte, 64<<10)); err != nil {
				t.Errorf("%d bytes came back: %v", n, err)
			}
		})
	}
}

// What is marked to receive with the reserve is what is connected, whatever became of the last
// connection, and nothing of that is left.
func TestTheSocketIsTheSameForAllConnections(t *testing.T) {
	l, to := listen(t)
	s := socket(t, to)
	first := cookie(t, s)
	for _, end := range []func(net.Conn){
		func(c net.Conn) { _, _ = c.Write(make([]byte, 10)) },                                       // that are not read
		func(c net.Conn) { c.Close() },                                                              // from the other end
		func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() },                           // as in a restart
		func(c net.Conn) { _ = l.Close(); l, _ = net.Listen("tcp4", l.Addr().String()); c.Close() }, // with its listener
	} {
		c, err := s.Connect(t.Context(), soon())
		if err != nil {
			t.Fatal(err)
		}
		other, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if _, err := other.Write([]byte{42}); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if n, err := c.Read(b); n != 1 || b[0] != 42 || err != nil {
			t.Errorf("read %d bytes, %v: %v", n, b, err)
		}
		end(other)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := c.Write(b); err == nil {
			t.Error("a connection that is closed takes bytes")
		}
		if got := cookie(t, s); got != first {
			t.Error("it is another socket")
		}
	}
	t.Cleanup(func() { l.Close() })
}

// A connection that could not be made leaves the socket as good as new.
func TestAfterARefusalTheSocketConnects(t *testing.T) {
	l, to := listen(t)
	s := socket(t, to)
	l.Close()
	for range 2 {
		if _, err := s.Connect(t.Context(), soon()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := s.Connect(t.Context(), soon())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the error of another connection: %v", err)
	}
}

// cookie is the kernel's own name of a socket.
func cookie(t *testing.T, s *Socket) (cookie uint64) {
	t.Helper()
	raw, err := s.file.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { cookie, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE) })
	}
	if err != nil || cookie == 0 {
		t.Fatal(cookie, err)
	}
	return cookie
}

func TestARefusedConnectionSaysSo(t *testing.T) {
	l, to := listen(t)
	l.Close()
	if _, err := socket(t, to).Connect(t.Context(), soon()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("TCP: %v", err)
	}
	if _, err := socket(t, Unix(filepath.Join(t.TempDir(), "none"))).Connect(t.Context(), soon()); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Unix: %v", err)
	}
}

// A listener whose backlog is full lets connections wait as a dead host does.
func TestConnectingEndsAtItsLimit(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := TCP(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*syscall.SockaddrInet4).Port)))
	for range 4 {
		c, err := socket(t, to).Connect(t.Context(), time.Now().Add(3*glance))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	t.Error("none of the connections had to wait")
}

func TestReadingEndsAtItsLimit(t *testing.T) {
	_, to := listen(t)
	c := connect(t, t.Context(), to)
	c.Limit(time.Now().Add(3 * glance))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestBeingCalledOffEndsReadingAndWriting(t *testing.T) {
	_, to := listen(t)
	for name, do := range map[string]func(*Conn) error{
		"read":  func(c *Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"write": func(c *Conn) error { _, err := c.Write(make([]byte, 64<<20)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			c := connect(t, ctx, to)
			time.AfterFunc(glance/2, cancel)
			if err := do(c); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}

func TestNoGoroutineIsStarted(t *testing.T) {
	_, to := listen(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	before := runtime.NumGoroutine()
	c := connect(t, ctx, to)
	c.Limit(time.Now().Add(2 * glance))
	_, _ = c.Read(make([]byte, 1))
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, there were %d", after, before)
	}
}

func TestSleepEndsWithItsTimeOrItsContext(t *testing.T) {
	start := time.Now()
	Sleep(t.Context(), start.Add(2*glance))
	if slept := time.Since(start); slept < 2*glance {
		t.Errorf("slept %v", slept)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(glance/2, cancel)
	until := soon()
	Sleep(ctx, until)
	if !time.Now().Before(until) {
		t.Error("slept on")
	}
}

func TestWhatTheKernelMayHoldIsWithinTheBudget(t *testing.T) {
	_, to := listen(t)
	raw, err := connect(t, t.Context(), to).file.SyscallConn()
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
