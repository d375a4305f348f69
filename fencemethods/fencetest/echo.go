// SPDX-License-Identifier: GPL-2.0-only

package fencetest

import (
	"io"
	"net"
	"strconv"
	"testing"
)

// Echo starts a server of RFC 862, of network "tcp4" or "udp4", and returns its port. As a device of
// another make it is the worst: all that it says is well-formed, for it is what the method said.
func Echo(t testing.TB, network string) (port string) {
	t.Helper()
	if network == "udp4" {
		c, err := net.ListenUDP(network, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go echoPackets(c)
		return strconv.Itoa(c.LocalAddr().(*net.UDPAddr).Port)
	}
	l, err := net.Listen(network, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func echoPackets(c *net.UDPConn) {
	var b [64 << 10]byte
	for {
		n, from, err := c.ReadFromUDPAddrPort(b[:])
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort(b[:n], from)
	}
}
