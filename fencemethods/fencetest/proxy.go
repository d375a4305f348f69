// SPDX-License-Identifier: GPL-2.0-only

package fencetest

import (
	"net"
	"net/netip"
	"testing"
)

// Proxy has a peer answer at another address as well, as address translation does, or somebody in between: UDP,
// for one client.
func Proxy(t testing.TB, at, peer netip.AddrPort) {
	t.Helper()
	near, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(peer))
	if err != nil {
		near.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	clients := make(chan netip.AddrPort, 1)
	go func() {
		var p [2048]byte
		for {
			n, from, err := near.ReadFromUDPAddrPort(p[:])
			if err != nil {
				return
			}
			select {
			case <-clients:
			default:
			}
			clients <- from
			_, _ = far.Write(p[:n])
		}
	}()
	go func() {
		var p [2048]byte
		var client netip.AddrPort
		for {
			n, err := far.Read(p[:])
			if err != nil {
				return
			}
			select {
			case client = <-clients:
			default:
			}
			_, _ = near.WriteToUDPAddrPort(p[:n], client)
		}
	}()
}
