// SPDX-License-Identifier: GPL-2.0-only

// Package server is the other side of package remote: it takes orders for nodes from those who have
// the key, one at a time for each node, and has a Handler carry them out.
//
// Everything that an order needs is there from New on: a place, a goroutine and a context for each
// node, one buffer for what comes in and one for what goes out. Nothing is allocated between an order
// and its answer but the text of a failure, so that a server can live under the rules of package
// memsafe (R19). Only a Handler may wait.
package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

const (
	// What may wait in the socket, see package link: room for a few questions of each of 254 nodes'
	// bridges at once, and for answers to clients that do not answer to ARP.
	receiveBytes = 512 << 10
	sendBytes    = 64 << 10

	// KernelKiB is what the kernel may hold for a Server at a time.
	KernelKiB = 2*(receiveBytes+sendBytes)>>10 + 8

	// freshFor is how old a challenge may be when its order comes.
	freshFor = 3 * time.Second
	// lease is after what time an order is given up when its client no longer asks for the result:
	// nobody is waiting for it, and the node may be back.
	lease = 5 * time.Second
	look  = time.Second // how often that is looked at
)

// An Order is what a Handler is to carry out. That the client has the key is certain, and that it
// wants this now: the order is no older than freshFor.
type Order struct {
	fencemethods.Target
	Op   message.Op
	From netip.AddrPort // where it came from; for messages, since addresses can be forged
}

// A Result is how an order ended.
type Result struct {
	State fencemethods.State
	Text  string // for people, up to message.TextMax bytes; what was noted by fencemethods.Vouch if empty
}

// A Handler carries out the orders for one node. Order is called by one goroutine at a time, ends by
// its context's deadline, and soon when that is canceled: nobody wants the result any more. The context
// tells the client's request (fencemethods.RequestOf) if there is one.
//
// The result of message.Off is Off when the node was read as off, or cut off, during the call. Any
// other state without an error is passed on as no proof. An error that is a *fencemethods.Error keeps
// its kind on the way back.
type Handler interface {
	Order(ctx context.Context, o Order) (Result, error)
}

// A Node is one that orders are taken for.
type Node struct {
	Target  fencemethods.Target
	Handler Handler
	Keys    []fencemethods.Secret // of those who may give them; at least one
}

// Options are what else a Server needs. What is nil is left out.
type Options struct {
	// Log is told of orders and of what is wrong. It must not block.
	Log func(format string, args ...any)
	// Begin is called once by each goroutine before the first order is taken: the time to grow its
	// stack.
	Begin func()
	// Idle is called whenever the last order under way has ended: the time to collect garbage.
	Idle func()
}

// A Server takes orders at one address.
type Server struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	process uint64 // names the Server
	options Options
	places  []*place
	idle    chan struct{} // holds one: nothing is under way
	active  atomic.Int32  // orders that wait or are carried out
	closed  chan struct{}
	once    sync.Once

	mu      sync.Mutex // guards what follows, and what is said at the places
	seals   []*seal
	start   time.Time
	reply   message.Message
	out     [message.Size]byte
	to4     unix.SockaddrInet4
	to6     unix.SockaddrInet6
	four    bool                  // the address is in to4
	deliver func(fd uintptr) bool // made once, since making it allocates
}

// A seal is that of one key, which several nodes may share.
type seal struct {
	*message.Seal
	key fencemethods.Secret
}

// New opens the socket at addr, which has to be an address of this machine's: the answers of one that
// listens on all could come from another than was asked.
func New(addr netip.AddrPort, nodes []Node, o Options) (*Server, error) {
	s := &Server{
		process: message.NewProcess(), options: o, start: time.Now(),
		idle: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	s.options.fill()
	s.deliver = s.write
	for _, n := range nodes {
		if len(n.Keys) == 0 {
			return nil, fmt.Errorf("node %s: no key", n.Target.Name)
		}
		s.places = append(s.places, newPlace(s, n))
	}
	if err := s.listen(addr); err != nil {
		return nil, err
	}
	return s, nil
}

func (o *Options) fill() {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.Begin == nil {
		o.Begin = func() {}
	}
	if o.Idle == nil {
		o.Idle = func() {}
	}
}

func (s *Server) listen(addr netip.AddrPort) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	s.conn = conn
	s.raw, err = conn.SyscallConn()
	if err := errors.Join(err, conn.SetReadBuffer(receiveBytes), conn.SetWriteBuffer(sendBytes)); err != nil {
		conn.Close()
		return err
	}
	return nil
}

// sealOf returns the seal of a key, the same one for the same key.
func (s *Server) sealOf(key fencemethods.Secret) *seal {
	for _, known := range s.seals {
		if string(known.key) == string(key) {
			return known
		}
	}
	made := &seal{message.NewSeal(key), key}
	s.seals = append(s.seals, made)
	return made
}

// Addr is where the Server listens.
func (s *Server) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close ends Serve, which gives up what is under way.
func (s *Server) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.conn.Close()
}

// Serve takes orders until Close, and returns nil then. It is called once.
func (s *Server) Serve() error {
	var all, begun sync.WaitGroup
	begin := func(serve func()) {
		begun.Add(1)
		all.Go(func() {
			s.options.Begin()
			begun.Done()
			serve()
		})
	}
	for _, p := range s.places {
		begin(p.serve)
	}
	begin(s.housekeep)
	s.options.Begin()
	begun.Wait()
	err := s.receive()
	s.once.Do(func() { close(s.closed) })
	for _, p := range s.places {
		p.quit()
	}
	all.Wait()
	return err
}

func (s *Server) receive() error {
	var in [message.Size + 1]byte // what is longer is no message
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(in[:])
		switch {
		case err == nil:
			s.heard(in[:n], from)
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
			// of something that was sent; reading it clears it
		default:
			return err
		}
	}
}

// housekeep sees to it that nothing goes on for nobody, and calls Idle.
func (s *Server) housekeep() {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-s.closed:
			return
		case now := <-tick.C:
			for _, p := range s.places {
				p.expire(now)
			}
		case <-s.idle:
			if s.active.Load() == 0 {
				s.options.Idle()
			}
		}
	}
}

func (s *Server) ended() {
	if s.active.Add(-1) == 0 {
		select {
		case s.idle <- struct{}{}:
		default:
		}
	}
}

// heard answers a datagram. What is none of ours is not answered at all.
func (s *Server) heard(p []byte, from netip.AddrPort) {
	m, ok := message.Decode(p)
	if !ok || !m.Kind.Question() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, place := range s.places {
		if place.tag != m.Node {
			continue
		}
		if by := verify(place.seals, p); by != nil {
			place.heard(&m, by, from)
		} else {
			s.unverified(&m, from)
		}
		return
	}
	by := verify(s.seals, p)
	if by == nil {
		s.unverified(&m, from)
		return
	}
	s.answer(&m, message.Done)
	s.reply.Failure = message.FailureOf(fencemethods.ErrRefused)
	message.SetText(&s.reply, unknownNode)
	s.send(by, from)
}

const unknownNode = "there, no node of this cluster has this number and name"

func verify(seals []*seal, p []byte) *seal {
	for _, by := range seals {
		if by.Genuine(p) {
			return by
		}
	}
	return nil
}

// unverified says so, without a seal. It is no longer than what it answers, and goes where that came
// from. A damaged datagram is answered so, too.
func (s *Server) unverified(m *message.Message, from netip.AddrPort) {
	if m.Kind == message.Cancel {
		return
	}
	s.reply = message.Message{Kind: message.Unverified, Op: m.Op, Node: m.Node, Client: m.Client}
	s.reply.Encode(&s.out)
	s.deliverTo(from)
}

// answer begins an answer to m, and send sends it. The caller of both, and of all below, holds mu.
func (s *Server) answer(m *message.Message, kind message.Kind) {
	s.reply = message.Message{
		Kind: kind, Op: m.Op, Node: m.Node, Client: m.Client, Server: m.Server,
		Sender: m.Sender, Requested: m.Requested, Number: m.Number, Incarnation: m.Incarnation, Attempt: m.Attempt,
	}
}

func (s *Server) send(by *seal, to netip.AddrPort) {
	s.reply.Encode(&s.out)
	by.Close(&s.out)
	s.deliverTo(to)
}

// deliverTo does not wait for room in the socket: what is lost is asked for again.
func (s *Server) deliverTo(to netip.AddrPort) {
	addr := to.Addr()
	if s.four = addr.Is4(); s.four {
		s.to4 = unix.SockaddrInet4{Port: int(to.Port()), Addr: addr.As4()}
	} else {
		s.to6 = unix.SockaddrInet6{Port: int(to.Port()), Addr: addr.As16()}
	}
	_ = s.raw.Write(s.deliver) // which fails when the socket is closed
}

func (s *Server) write(fd uintptr) bool {
	var to unix.Sockaddr = &s.to6
	if s.four {
		to = &s.to4
	}
	_ = unix.Sendto(int(fd), s.out[:], unix.MSG_DONTWAIT, to)
	return true
}

// renew makes a nonce that was never there, in place, since a returned one might allocate.
func renew(n *message.Nonce) { _, _ = rand.Read(n[:]) } // never fails: it ends the program instead
