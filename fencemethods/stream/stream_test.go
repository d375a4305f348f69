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
	c, err := Connect(ctx, to, soon())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
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

func TestARefusedConnectionSaysSo(t *testing.T) {
	l, to := listen(t)
	l.Close()
	if _, err := Connect(t.Context(), to, soon()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("TCP: %v", err)
	}
	if _, err := Connect(t.Context(), Unix(filepath.Join(t.TempDir(), "none")), soon()); !errors.Is(err, syscall.ENOENT) {
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
		c, err := Connect(t.Context(), to, time.Now().Add(3*glance))
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
	Sleep(ctx, soon())
	if time.Since(start) > 10*time.Second {
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
