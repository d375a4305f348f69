// SPDX-License-Identifier: GPL-2.0-only

// Package wire is a relay to put between a client and its device: a wire that can be made to lose,
// repeat, delay, damage and invent packets, while both ends are real. A Wire carries UDP, a Stream
// carries TCP.
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
	switchboard

	mu     sync.Mutex
	lines  map[netip.AddrPort]*net.UDPConn // to the device, one for each client
	closed bool
}

// A Packet is on its way through a Wire.
type Packet struct {
	Data   []byte
	Answer bool // from the device
	N      int  // counts packets of this direction, from 0, since the fault was set

	deliver func([]byte)
	forge   func([]byte) // nil where the protocol below keeps strangers out
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
			w.carry(bytes.Clone(b[:n]), false, func(data []byte) { _, _ = line.Write(data) }, w.forge(client))
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
			w.carry(bytes.Clone(b[:n]), true, func(data []byte) { _, _ = w.front.WriteToUDPAddrPort(data, client) }, w.forge(client))
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

// forge returns what sends client something from an address that is not the device's.
func (w *Wire) forge(client netip.AddrPort) func([]byte) {
	return func(data []byte) { _, _ = w.stranger.WriteToUDPAddrPort(data, client) }
}

// A switchboard has the fault of a wire, and counts what it is called for.
type switchboard struct {
	mu     sync.Mutex
	fault  Fault
	counts [2]int
}

// SetFault makes the wire faulty from the next packet on; nil mends it.
func (s *switchboard) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.counts = f, [2]int{}
}

func (s *switchboard) carry(data []byte, answer bool, deliver, forge func([]byte)) {
	s.mu.Lock()
	fault, count := s.fault, &s.counts[0]
	if answer {
		count = &s.counts[1]
	}
	n := *count
	*count++
	s.mu.Unlock()
	if fault == nil {
		fault = Packet.Pass
	}
	fault(Packet{Data: data, Answer: answer, N: n, deliver: deliver, forge: forge})
}

// Pass delivers the packet as it is.
func (p Packet) Pass() { p.Deliver(p.Data) }

// Deliver delivers other data in the packet's place. It may be called more than once, at any time.
func (p Packet) Deliver(data []byte) { p.deliver(data) }

// Forge sends data to the packet's client from an address that is not the device's. On a Stream,
// nobody could take notice.
func (p Packet) Forge(data []byte) {
	if p.forge != nil {
		p.forge(data)
	}
}
