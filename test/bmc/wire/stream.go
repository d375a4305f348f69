// SPDX-License-Identifier: GPL-2.0-only

package wire

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"sync"
)

// maxLine is the longest line that a Stream of lines relays.
const maxLine = 1 << 20

// A Stream relays connections to one device. What a protocol over TCP can lose or get twice is not a
// packet of the network but something its ends say: a Fault decides about lines, or about what the
// other end has written at once.
type Stream struct {
	switchboard
	dial     func() (net.Conn, error)
	listener net.Listener
	split    bufio.SplitFunc
	end      []byte // what is delivered after each packet
	wg       sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

// NewStream lays a wire to the device at that address of a network of package net, such as "tcp".
// Its packets are what comes in one piece.
func NewStream(network, device string) (*Stream, error) {
	return newStream(network, device, nil, nil)
}

// NewLines lays a wire whose packets are lines, without the end of the line.
func NewLines(network, device string) (*Stream, error) {
	return newStream(network, device, bufio.ScanLines, []byte("\n"))
}

func newStream(network, device string, split bufio.SplitFunc, end []byte) (*Stream, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Stream{
		dial:     func() (net.Conn, error) { return net.Dial(network, device) },
		listener: l, split: split, end: end,
		open: make(map[net.Conn]bool),
	}
	s.wg.Go(s.serve)
	return s, nil
}

// Port is where clients find the device, on 127.0.0.1.
func (s *Stream) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// Close cuts the wire and waits until nothing moves on it.
func (s *Stream) Close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	err := s.listener.Close()
	s.wg.Wait()
	return err
}

func (s *Stream) serve() {
	for {
		client, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() { s.relay(client) })
	}
}

// relay ends both connections with the first of them. A device that refuses hangs up, here, on who
// has been let in already.
func (s *Stream) relay(client net.Conn) {
	defer s.forget(client)
	device, err := s.dial()
	if err != nil {
		return
	}
	defer s.forget(device)
	if !s.keep(client) || !s.keep(device) {
		return
	}
	var ends sync.WaitGroup
	ends.Go(func() { s.pass(client, device, false) })
	ends.Go(func() { s.pass(device, client, true) })
	ends.Wait()
}

func (s *Stream) keep(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = true
	return !s.closed
}

func (s *Stream) forget(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	c.Close()
}

func (s *Stream) pass(from, to net.Conn, answer bool) {
	defer from.Close()
	defer to.Close()
	deliver := func(data []byte) { _, _ = to.Write(append(bytes.Clone(data), s.end...)) }
	next := pieces(from)
	if s.split != nil {
		lines := bufio.NewScanner(from)
		lines.Buffer(nil, maxLine)
		lines.Split(s.split)
		next = func() ([]byte, bool) {
			ok := lines.Scan()
			return lines.Bytes(), ok
		}
	}
	for data, ok := next(); ok; data, ok = next() {
		s.carry(bytes.Clone(data), answer, deliver, nil)
	}
}

func pieces(r io.Reader) func() ([]byte, bool) {
	b := make([]byte, 64<<10)
	return func() ([]byte, bool) {
		n, err := r.Read(b)
		return b[:n], err == nil
	}
}
