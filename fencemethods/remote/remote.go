// SPDX-License-Identifier: GPL-2.0-only

// Package remote has another machine act on a node: it gives sealed orders, and believes sealed
// answers to them, by the datagrams of package message. Package server is the other side.
//
// An order names cluster, node, operation, request and the time that is left. It is carried out once,
// however often it arrives, and not at all when it is called off, too old, or recorded and played
// again; an answer counts for the one operation that it was given to. Both sides have the same key,
// and a node's own clock is never compared with another's.
//
// After New nothing is allocated but the text of an answer or a failure, and the kernel's word that
// time is up for each wait that was in vain. (R19)
package remote

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/link"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

const (
	// KernelKiB is what the kernel may hold for each server that a Client knows.
	KernelKiB = link.KernelKiB

	// MemoryKiB is the Go heap that a Client of up to two servers may take in a minute.
	MemoryKiB = 128

	// KeyMin is the shortest key in bytes: a word could be guessed from one datagram.
	KeyMin = 16

	firstWait = 100 * time.Millisecond // for an answer; then longer and longer
	lastWait  = 500 * time.Millisecond
	ask       = 250 * time.Millisecond // how often the result is asked for
	silence   = 2 * time.Second        // after which a server counts as gone, where there is another
	margin    = 500 * time.Millisecond // at most, of the time that is left: for the answer's way back
)

// ReadKey reads a key file for both sides. The error never holds the key.
func ReadKey(name string) (fencemethods.Secret, error) {
	key, err := fencemethods.ReadSecret(name)
	if err != nil {
		return nil, err
	}
	if len(key) < KeyMin {
		key.Wipe()
		return nil, fmt.Errorf("%s: shorter than %d bytes: make one with openssl rand -hex 32", name, KeyMin)
	}
	return key, nil
}

// A Config is what New needs to know; all of it.
type Config struct {
	Peer    string           // what the servers are called in failures, such as "relay"
	Servers []netip.AddrPort // that do the same; the first one that answers is used
	Key     fencemethods.Secret
	Target  fencemethods.Target
}

// A Client gives orders for one node. It serves one goroutine at a time.
type Client struct {
	servers  []*peer
	key      fencemethods.Secret
	seal     *message.Seal
	failures *failures
	tag      message.Tag
	sender   uint64

	deadline time.Time       // of the operation under way
	question message.Message // Hello or Order
	answer   message.Message
	process  uint64 // of the server that has answered last
	out      [message.Size]byte
}

// A Result is what a server has answered.
type Result struct {
	State fencemethods.State
	Text  string // who and why, where people answer; up to message.TextMax bytes

	// Process names the server's process: two servers are one when it is the same. 0 is not known.
	Process uint64
}

// New makes the sockets; it sends nothing. The Client owns the key from then on.
func New(c Config) (*Client, error) {
	d := &Client{key: c.Key, seal: message.NewSeal(c.Key), failures: newFailures(c.Peer), tag: message.TagOf(c.Target)}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the program instead
	d.sender = binary.BigEndian.Uint64(id[:])
	for _, addr := range c.Servers {
		// One byte more than a datagram shows one that is too long.
		l, err := link.New(addr, message.Size+1)
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d.servers = append(d.servers, &peer{Link: l})
	}
	return d, nil
}

// Close closes the sockets and wipes the key.
func (d *Client) Close() error {
	d.key.Wipe()
	var errs []error
	for _, s := range d.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Do orders an operation and waits for its end. It ends by the context's deadline, which has to be
// there, and takes the order back when the context is canceled. The error is a *fencemethods.Error
// or the context's.
//
// The state is Off after message.Off and On after message.On, read by the server during this very
// order: one that claims success and another state fails with fencemethods.ErrProtocol.
func (d *Client) Do(ctx context.Context, op message.Op) (Result, error) {
	d.deadline, _ = ctx.Deadline()
	d.question = message.Message{Kind: message.Hello, Op: op, Node: d.tag, Sender: d.sender}
	d.describe(ctx)
	for _, s := range d.servers {
		s.begin()
	}
	err := d.tryAll(ctx)
	if err != nil {
		return Result{}, err
	}
	return Result{State: d.answer.State, Text: d.answer.Text(), Process: d.process}, nil
}

// describe has the question say why the node is acted on.
func (d *Client) describe(ctx context.Context) {
	r, ok := fencemethods.RequestOf(ctx)
	if !ok {
		return
	}
	m := &d.question
	m.Requested, m.Number, m.Incarnation, m.Attempt = true, r.Number, r.Incarnation, r.Attempt
	if !r.Silent.IsZero() {
		m.Silent = uint32(min(max(1, time.Since(r.Silent).Milliseconds()), math.MaxUint32))
	}
	message.SetText(m, r.Reason.Bytes())
}

// tryAll goes from one server to the next until one has succeeded, all have failed for good, or time
// is up.
func (d *Client) tryAll(ctx context.Context) error {
	for {
		alive := false
		for i, s := range d.servers {
			if s.final {
				continue
			}
			if d.over(ctx) {
				return d.giveUp(ctx)
			}
			if d.try(ctx, s, d.others(i)) {
				return nil
			}
			alive = alive || !s.final
		}
		switch {
		case canceled(ctx):
			return ctx.Err()
		case !alive || d.over(ctx):
			return d.giveUp(ctx)
		}
	}
}

// others tells whether another server than this one could still be of use.
func (d *Client) others(i int) bool {
	for j, s := range d.servers {
		if j != i && !s.final {
			return true
		}
	}
	return false
}

func canceled(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// over tells whether the operation's time is up, or its answer no longer wanted.
func (d *Client) over(ctx context.Context) bool {
	return ctx.Err() != nil || !time.Now().Before(d.deadline)
}

// giveUp says what is known when nothing more can be done: what a server has said before what none has.
func (d *Client) giveUp(ctx context.Context) error {
	if canceled(ctx) {
		return ctx.Err()
	}
	best := d.servers[0]
	for _, s := range d.servers[1:] {
		if s.knows() > best.knows() {
			best = s
		}
	}
	return d.why(best)
}

func (d *Client) why(s *peer) *failure {
	f := d.failures
	switch {
	case s.failed != nil:
		return s.failed
	case s.last == message.Busy:
		return &f.busy
	case s.last == message.Working && !s.silent:
		return &f.late
	case s.heard:
		return &f.lost
	case s.unverified:
		return &f.key
	case s.odd > 0:
		return &f.otherKey
	case s.ignored > 0:
		return &f.garbage
	case errors.Is(s.Err, syscall.ECONNREFUSED):
		return &f.closed
	case s.Err != nil:
		return &f.noRoute
	}
	return &f.silent
}
