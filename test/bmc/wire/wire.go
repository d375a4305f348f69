// SPDX-License-Identifier: GPL-2.0-only

// Package wire is a UDP relay to put between a client and its device: a wire that can be made to
// lose, repeat, delay, damage and invent packets, while both ends are real.
package wire

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
)

// maxPacket is more than any packet of the protocols that run over a Wire.
const maxPacket = 2048

// A Wire relays packets between any number of clients and one device.
type Wire struct {
	device   netip.AddrPort
	front    *net.UDPConn // clients talk to this
	stranger *net.UDPConn // forged answers come from here
	wg       sync.WaitGroup

	mu     sync.Mutex
	fault  Fault
	counts [2]int
	lines  map[netip.AddrPort]*net.UDPConn // to the device, one for each client
	closed bool
}

// A Packet is on its way through a Wire.
type Packet struct {
	Data   []byte
	Answer bool // from the device
	N      int  // counts packets of this direction, from 0, since the fault was set

	wire   *Wire
	client netip.AddrPort
	line   *net.UDPConn
}

// New lays a wire to device.
func New(device netip.AddrPort) (*Wire, error) {
	front, err := listen()
	if err != nil {
		return nil, err
	}
	stranger, err := listen()
	if err != nil {
		front.Close()
		return nil, err
	}
	w := &Wire{
		device: device, front: front, stranger: stranger,
		lines: make(map[netip.AddrPort]*net.UDPConn),
	}
	w.wg.Go(w.serve)
	return w, nil
}

func listen() (*net.UDPConn, error) {
	return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
}

// Addr is where clients find the device.
func (w *Wire) Addr() netip.AddrPort { return w.front.LocalAddr().(*net.UDPAddr).AddrPort() }

// SetFault makes the wire faulty from the next packet on; nil mends it.
func (w *Wire) SetFault(f Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault, w.counts = f, [2]int{}
}

// Close cuts the wire and waits until nothing moves on it.
func (w *Wire) Close() error {
	w.mu.Lock()
	w.closed = true
	for _, line := range w.lines {
		line.Close()
	}
	w.mu.Unlock()
	w.front.Close()
	w.wg.Wait()
	return w.stranger.Close()
}

func (w *Wire) serve() {
	b := make([]byte, maxPacket)
	for {
		n, client, err := w.front.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if line := w.line(client); line != nil {
			w.carry(Packet{Data: bytes.Clone(b[:n]), wire: w, client: client, line: line})
		}
	}
}

// line returns the socket that stands for client towards the device, so that the device sees
// clients apart.
func (w *Wire) line(client netip.AddrPort) *net.UDPConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if line, ok := w.lines[client]; ok || w.closed {
		return line
	}
	line, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(w.device))
	if err != nil {
		return nil
	}
	w.lines[client] = line
	w.wg.Go(func() { w.answers(line, client) })
	return line
}

func (w *Wire) answers(line *net.UDPConn, client netip.AddrPort) {
	b := make([]byte, maxPacket)
	for {
		n, err := line.Read(b)
		switch {
		case err == nil:
			w.carry(Packet{Data: bytes.Clone(b[:n]), Answer: true, wire: w, client: client, line: line})
		case w.isClosed():
			return
		} // any other error is the device's port being closed: it may open again
	}
}

func (w *Wire) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

func (w *Wire) carry(p Packet) {
	w.mu.Lock()
	fault, count := w.fault, &w.counts[0]
	if p.Answer {
		count = &w.counts[1]
	}
	p.N = *count
	*count++
	w.mu.Unlock()
	if fault == nil {
		fault = Packet.Pass
	}
	fault(p)
}

// Pass delivers the packet as it is.
func (p Packet) Pass() { p.Deliver(p.Data) }

// Deliver delivers other data in the packet's place. It may be called more than once, at any time.
func (p Packet) Deliver(data []byte) {
	if p.Answer {
		_, _ = p.wire.front.WriteToUDPAddrPort(data, p.client)
		return
	}
	_, _ = p.line.Write(data)
}

// Forge sends data to the packet's client from an address that is not the device's.
func (p Packet) Forge(data []byte) {
	_, _ = p.wire.stranger.WriteToUDPAddrPort(data, p.client)
}
