// SPDX-License-Identifier: GPL-2.0-only

package desk

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ask/letter"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

// freshFor is how old a challenge may be when a question that was not heard before comes with it.
const freshFor = 3 * time.Second

// longest is the longest time for an attempt, in ms, as in fence.conf.
const longest = 86400000

// A Listener takes the questions of clusters, by the datagrams of package message, and puts them on a
// Desk. What it says, it says to whoever has the key.
//
// It keeps nothing of what it has not verified: the challenge is a code over what it challenges, so
// that a stranger can fill no memory here.
type Listener struct {
	desk  *Desk
	conn  *net.UDPConn
	keys  []fencemethods.Secret
	seals []*message.Seal
	start time.Time // what the clock in a challenge counts from

	process uint64 // names the Listener

	mu     sync.Mutex // guards what follows
	secret [32]byte   // of this process: what was recorded of an earlier one is worth nothing
	asking map[ID]conversation
}

// A conversation is the last one about a question, for the answer when it is there.
type conversation struct {
	question message.Message
	seal     *message.Seal
	from     netip.AddrPort
}

// NewListener opens the socket at addr. It takes questions that are sealed with any of the keys, which
// it owns from then on.
func NewListener(d *Desk, addr netip.AddrPort, keys []fencemethods.Secret) (*Listener, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	l := &Listener{desk: d, conn: conn, keys: keys, start: time.Now(), asking: map[ID]conversation{}}
	_, _ = rand.Read(l.secret[:]) // never fails: it ends the program instead
	l.process = message.NewProcess()
	for _, key := range keys {
		l.seals = append(l.seals, message.NewSeal(key))
	}
	return l, nil
}

// Addr is where it listens.
func (l *Listener) Addr() netip.AddrPort { return l.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close ends Serve, and wipes the keys.
func (l *Listener) Close() error {
	err := l.conn.Close()
	for _, key := range l.keys {
		key.Wipe()
	}
	return err
}

// Serve takes questions until ctx is done, and closes the Listener then.
func (l *Listener) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer stop()
	defer l.Close()
	var in [message.Size + 1]byte // what is longer is no message
	for {
		n, from, err := l.conn.ReadFromUDPAddrPort(in[:])
		switch {
		case err == nil:
			l.heard(in[:n], from)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
			// of something that was sent; reading it clears it
		default:
			return err
		}
	}
}

// heard answers a datagram. What is no question is not answered at all.
func (l *Listener) heard(p []byte, from netip.AddrPort) {
	m, ok := message.Decode(p)
	if !ok || !m.Kind.Question() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := conversation{question: m, seal: l.verify(p), from: from}
	switch {
	case c.seal == nil:
		l.unverified(c)
	case m.Kind == message.Cancel:
		l.cancel(c)
	case m.Kind == message.Hello || m.Server != l.nonce(&m) || !l.current(&m):
		r := c.reply(message.Challenge)
		r.Next, r.Clock = l.nonce(&m), l.clock()
		r.SetProcess(l.process)
		l.send(c, r)
	case m.Op == message.Check:
		l.send(c, c.reply(message.Done))
	case m.Op == message.Off:
		l.ask(c)
	default:
		l.refuse(c, fencemethods.ErrUnsupported, "administrators are not asked for that")
	}
}

func (l *Listener) verify(p []byte) *message.Seal {
	for _, s := range l.seals {
		if s.Genuine(p) {
			return s
		}
	}
	return nil
}

// nonce is the challenge of one conversation: whoever repeats it has got it at the address that it
// gives, from this very process.
func (l *Listener) nonce(m *message.Message) (n message.Nonce) {
	mac := hmac.New(sha256.New, l.secret[:])
	mac.Write(m.Client[:])
	mac.Write(m.Node[:])
	mac.Write([]byte{byte(m.Op)})
	copy(n[:], mac.Sum(nil))
	return n
}

func (l *Listener) clock() uint64 { return uint64(time.Since(l.start).Milliseconds()) }

// current tells whether an order is not one that was recorded, and is played again after its question
// was forgotten here.
func (l *Listener) current(m *message.Message) bool {
	now := l.clock()
	return l.desk.Known(ID(m.Sender)) || m.Clock <= now && now-m.Clock <= uint64(freshFor.Milliseconds())
}

// ask puts a question on the desk, and answers what there is to answer.
func (l *Listener) ask(c conversation) {
	m := &c.question
	q, ok := letter.ParseQuestion(m.Text())
	if !ok || message.TagOf(q.Target) != m.Node {
		l.refuse(c, fencemethods.ErrProtocol, "the question cannot be read: check the versions")
		return
	}
	id := ID(m.Sender)
	r, err := l.desk.Ask(id, l.question(m, q))
	if err != nil {
		l.refuse(c, fencemethods.ErrBusy, err.Error())
		return
	}
	if q.Taken {
		l.desk.Take(id)
	}
	if r.State != Over {
		l.asking[id] = c
	}
	l.tell(c, r)
}

func (l *Listener) question(m *message.Message, q letter.Question) Question {
	now := time.Now()
	asked := Question{
		Request: ID(m.Sender).Request(m.Number), Cluster: q.Target.Cluster, Node: q.Target.Name,
		Number: q.Target.Node, Attempt: m.Attempt, AskedBy: q.Asker, Reason: string(q.Reason),
		Until: now.Add(time.Duration(min(m.Left, longest)) * time.Millisecond),
	}
	if m.Incarnation != 0 {
		asked.Incarnation = fmt.Sprintf("%016x", m.Incarnation)
	}
	if m.Silent != 0 {
		asked.SilentSince = now.Add(-time.Duration(m.Silent) * time.Millisecond)
	}
	return asked
}

// Tell tells whoever asked what was answered, at once. What is lost is asked for again. It is for the
// News of the Desk.
func (l *Listener) Tell(r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, c := range l.asking {
		switch {
		case id.Request(c.question.Number) != r.Request:
		case r.State == Over:
			delete(l.asking, id)
		default:
			l.tell(c, r)
		}
	}
}

func (l *Listener) tell(c conversation, r Record) {
	switch r.State {
	case Open:
		l.send(c, c.reply(message.Working))
	case Confirmed:
		answer := c.reply(message.Done)
		answer.State = fencemethods.Off
		message.SetText(answer, r.Who+": "+r.Why)
		l.send(c, answer)
	case Declined:
		l.refuse(c, fencemethods.ErrRefused, r.Who+": "+r.Why)
	}
}

// cancel ends a question. Nobody but whoever asked it knows what it has to repeat.
func (l *Listener) cancel(c conversation) {
	m := &c.question
	if m.Server != l.nonce(m) || m.Op != message.Off {
		return
	}
	taken, how := letter.ParseEnd(m.Text())
	if taken {
		l.desk.Take(ID(m.Sender))
	}
	l.desk.End(ID(m.Sender), how)
	delete(l.asking, ID(m.Sender))
}

func (l *Listener) refuse(c conversation, kind error, text string) {
	r := c.reply(message.Done)
	r.Failure = message.FailureOf(kind)
	message.SetText(r, text)
	l.send(c, r)
}

// unverified says so, without a seal. It is no longer than what it answers, and goes where that came
// from.
func (l *Listener) unverified(c conversation) {
	m := &c.question
	if m.Kind == message.Cancel {
		return
	}
	r := message.Message{Kind: message.Unverified, Op: m.Op, Node: m.Node, Client: m.Client}
	var out [message.Size]byte
	r.Encode(&out)
	_, _ = l.conn.WriteToUDPAddrPort(out[:], c.from)
}

// reply begins an answer.
func (c *conversation) reply(kind message.Kind) *message.Message {
	m := &c.question
	return &message.Message{
		Kind: kind, Op: m.Op, Node: m.Node, Client: m.Client, Server: m.Server,
		Sender: m.Sender, Requested: m.Requested, Number: m.Number, Incarnation: m.Incarnation, Attempt: m.Attempt,
	}
}

func (l *Listener) send(c conversation, r *message.Message) {
	var out [message.Size]byte
	r.Encode(&out)
	c.seal.Close(&out)
	_, _ = l.conn.WriteToUDPAddrPort(out[:], c.from)
}
