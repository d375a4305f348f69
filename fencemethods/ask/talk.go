// SPDX-License-Identifier: GPL-2.0-only

package ask

import (
	"crypto/rand"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ask/letter"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

const (
	firstWait = 100 * time.Millisecond // for an answer; then twice as long each time, up to repeat_ms
	margin    = 500 * time.Millisecond // at most, of the time that is left: for the answer's way back
)

// An answer is what somebody at a machine has said.
type answer int

const (
	none answer = iota
	yes         // the node is off; or, to a Check, all is well
	no
)

// A talk is what is said with one machine about the question under way.
type talk struct {
	d    *device
	to   unix.Sockaddr
	addr string

	question message.Message // Hello or Order
	next     time.Time       // when to say it again
	wait     time.Duration

	answer  answer
	word    string // who, and why
	process uint64 // of the listener; 0: not known

	err        error     // of the last datagram that could not be sent
	heard      time.Time // when a genuine answer last came; zero: never
	odd        int       // datagrams that were sealed with another key, or damaged
	unverified bool      // somebody has said in its name that it cannot verify us
}

func (t *talk) begin(op message.Op) {
	*t = talk{d: t.d, to: t.to, addr: t.addr, wait: firstWait}
	r := &t.d.request
	t.question = message.Message{
		Kind: message.Hello, Op: op, Node: t.d.tag, Sender: t.d.question,
		Requested: t.d.requested, Number: r.Number, Incarnation: r.Incarnation, Attempt: r.Attempt,
	}
	_, _ = rand.Read(t.question.Client[:])
}

// tick says what is to be said when it is time.
func (t *talk) tick(now time.Time) {
	if now.Before(t.next) {
		return
	}
	t.say(now, &t.question)
	t.wait = min(2*t.wait, t.d.repeat)
}

func (t *talk) say(now time.Time, m *message.Message) {
	m.Encode(&t.d.out)
	t.d.seal.Close(&t.d.out)
	t.err = t.d.socket.send(&t.d.out, t.to)
	t.next = now.Add(t.wait)
}

// hear takes an answer to this talk's question, sealed with our key, and nothing else.
func (t *talk) hear(m *message.Message, p []byte, now time.Time) {
	switch {
	case m.Kind.Question() || m.Node != t.d.tag || m.Op != t.question.Op:
		return
	case m.Kind == message.Unverified:
		t.unverified = true // for a failure's text alone: whoever has seen the question can say so
		return
	case !t.d.seal.Genuine(p):
		t.odd++
		return
	case m.Server != t.question.Server || !t.same(m):
		return
	}
	t.heard, t.d.heard = now, now
	switch ordered := t.question.Kind == message.Order; {
	case m.Kind == message.Challenge && m.Next != (message.Nonce{}):
		t.process = m.Process()
		t.order(m, now)
	case m.Kind == message.Working && ordered:
		t.wait = t.d.repeat
		t.next = now.Add(t.wait)
	case m.Kind == message.Done && ordered && t.answer == none:
		t.done(m)
	}
}

// same tells whether an answer is about the request that the question is about.
func (t *talk) same(m *message.Message) bool {
	q := &t.question
	return m.Requested == q.Requested && m.Sender == q.Sender &&
		m.Number == q.Number && m.Incarnation == q.Incarnation && m.Attempt == q.Attempt
}

// order puts the question itself, with the challenge that was the answer.
func (t *talk) order(m *message.Message, now time.Time) {
	left := t.d.deadline.Sub(now)
	left -= min(left/10, margin)
	t.question.Kind = message.Order
	t.question.Server, t.question.Clock = m.Next, m.Clock
	t.question.Left = milliseconds(left)
	t.question.Silent = 0
	if silent := t.d.request.Silent; !silent.IsZero() {
		t.question.Silent = max(1, milliseconds(now.Sub(silent)))
	}
	t.write()
	t.wait = firstWait
	t.say(now, &t.question)
}

// milliseconds is a duration as a datagram has it.
func milliseconds(d time.Duration) uint32 {
	return uint32(min(max(0, d.Milliseconds()), math.MaxUint32))
}

// write writes the letter.
func (t *talk) write() {
	q := &t.d.letter
	q.Taken, q.Reason = t.answer != none, t.d.request.Reason.Bytes()
	t.d.text = q.Append(t.d.text[:0])
	message.SetText(&t.question, t.d.text)
}

// done judges the answer.
func (t *talk) done(m *message.Message) {
	switch {
	case m.Failure == 0 && (m.Op == message.Check || m.State == fencemethods.Off):
		t.answer = yes
	case m.Failure != 0:
		t.answer = no
	default:
		return // no success, no failure
	}
	t.word = m.Text()
	t.write() // which says that it was taken, while others are awaited
	t.wait = t.d.repeat
}

// cancel says that the question is over.
func (t *talk) cancel(taken bool, how string) {
	if t.question.Kind != message.Order {
		return
	}
	m := t.question
	m.Kind = message.Cancel
	t.d.text = letter.AppendEnd(t.d.text[:0], taken, how)
	message.SetText(&m, t.d.text)
	t.say(time.Now(), &m)
}
