// SPDX-License-Identifier: GPL-2.0-only

package remote

import (
	"context"
	"crypto/rand"
	"math"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/link"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

// A peer is one server, and what is known of it since the operation began.
type peer struct {
	*link.Link
	heard      bool         // a genuine answer has come
	silent     bool         // but none to the last few questions
	last       message.Kind // of the genuine answers
	odd        int          // datagrams that were sealed with another key, or damaged
	ignored    int          // what is no datagram of ours
	unverified bool         // somebody has said in its name that it cannot verify us
	final      bool         // it has failed, and would again
	failed     *failure     // what it has said
	process    uint64       // its number; 0: not known
}

func (s *peer) begin() { *s = peer{Link: s.Link} }

// knows ranks what is known.
func (s *peer) knows() int {
	switch {
	case s.failed != nil:
		return 3
	case s.heard:
		return 2
	case s.unverified || s.odd+s.ignored > 0:
		return 1
	}
	return 0
}

// try has one server carry the order out, and tells whether it has. Where there is another server,
// this one gets half of the time at most, and none when it is silent.
func (d *Client) try(ctx context.Context, s *peer, others bool) bool {
	now := time.Now()
	end := d.deadline
	if others {
		end = earliest(end, now.Add(max(end.Sub(now)/2, lastWait)))
	}
	s.Err = nil
	s.Open(d.deadline)
	d.question.Kind = message.Hello
	d.question.Server, d.question.Clock, d.question.Left = message.Nonce{}, 0, 0
	_, _ = rand.Read(d.question.Client[:])
	wait, last := firstWait, now
	for !d.over(ctx) && !s.final && time.Now().Before(end) {
		if others && time.Since(last) >= silence {
			break
		}
		d.send(s, d.question)
		until := earliest(time.Now().Add(wait), end)
		if !d.hear(s, until, end) {
			s.silent = time.Since(last) >= silence/2
			wait = min(2*wait, lastWait)
			continue
		}
		last, s.silent = time.Now(), false
		switch d.answer.Kind {
		case message.Done:
			return d.done(s)
		case message.Challenge:
			wait = firstWait
		default:
			wait = ask
		}
	}
	if d.question.Kind == message.Order && (ctx.Err() != nil || others) {
		d.takeBack(s)
	}
	return false
}

// takeBack tells the server that the order is not wanted any more. It is not answered; said twice, it
// is lost less often, and who does not ask for a result any more is not waited for either.
func (d *Client) takeBack(s *peer) {
	m := d.question
	m.Kind = message.Cancel
	d.send(s, m)
	d.send(s, m)
}

func (d *Client) send(s *peer, m message.Message) {
	m.Encode(&d.out)
	d.seal.Close(&d.out)
	s.Send(d.out[:])
}

// hear waits for an answer that takes the operation further: a challenge, which it puts into the
// question at once, the end, or, when the wait is over, whether the server has said that it is at it.
func (d *Client) hear(s *peer, until, end time.Time) (heard bool) {
	for p := s.Receive(until); p != nil; p = s.Receive(until) {
		if !d.genuine(s, p) {
			continue
		}
		heard, s.heard, s.last = true, true, d.answer.Kind
		switch d.answer.Kind {
		case message.Challenge:
			s.process = d.answer.Process()
			d.order(end)
			return true
		case message.Done:
			d.process = s.process
			return true
		}
	}
	return heard
}

// order makes the question an order by the challenge that was the answer. The time that is left is
// that from now on, but for what the answer needs; the order is the same however often it is sent.
func (d *Client) order(end time.Time) {
	left := time.Until(end)
	left -= min(left/10, margin)
	d.question.Kind = message.Order
	d.question.Server, d.question.Clock = d.answer.Next, d.answer.Clock
	d.question.Left = uint32(min(max(0, left.Milliseconds()), math.MaxUint32))
}

// genuine takes an answer to the present question, sealed with our key, and nothing else.
func (d *Client) genuine(s *peer, p []byte) bool {
	m, ok := message.Decode(p)
	switch {
	case !ok || m.Kind.Question():
		s.ignored++
		return false
	case m.Client != d.question.Client || m.Node != d.tag || m.Op != d.question.Op:
		return false // late, or somebody plays it again
	case m.Kind == message.Unverified:
		// Whoever has seen the question can say so. It is for the failure's text alone: if it ended
		// anything, who can only speak could have a fence fail before the server has answered. The price
		// is that with the wrong key, which check shows beforehand, the next method waits for its turn.
		s.unverified = true
		return false
	case !d.seal.Genuine(p):
		s.odd++
		return false
	case m.Server != d.question.Server || m.Kind == message.Challenge && m.Next == (message.Nonce{}):
		return false
	case m.Kind != message.Challenge && m.Kind != message.Done && d.question.Kind != message.Order:
		return false
	case m.Kind == message.Done && m.Failure == 0 && d.question.Kind != message.Order:
		return false // nothing was ordered yet that could be done
	}
	d.answer = m
	return true
}

// done judges the answer. It is the one place that says that an order was carried out.
func (d *Client) done(s *peer) bool {
	want := d.answer.State
	switch d.answer.Op {
	case message.Off:
		want = fencemethods.Off
	case message.On:
		want = fencemethods.On
	}
	switch {
	case d.answer.Failure != 0:
		e := d.failures.undone
		e.Kind, e.Detail = d.answer.Failure.Kind(), message.Cut(d.answer.Text(), room-len(e.Advice))
		s.failed, s.final = &e, true
		return false
	case d.answer.State != want:
		s.failed, s.final = &d.failures.unproven, true
		return false
	}
	return true
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
