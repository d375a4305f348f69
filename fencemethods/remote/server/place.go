// SPDX-License-Identifier: GPL-2.0-only

package server

import (
	"errors"
	"net/netip"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/limit"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

// A stage is how far the order at a place is.
type stage int

const (
	none    stage = iota // there is none that would be known when it came again
	waiting              // for the goroutine, which is at an earlier one still
	running
	done
)

// A place has the one order of a node. The receiving goroutine puts it there, the place's own carries
// it out.
type place struct {
	s     *Server
	node  Node
	tag   message.Tag
	seals []*seal
	wake  chan struct{} // holds one: look at the stage; closed at the end
	limit *limit.Limit  // of what is running
	note  fencemethods.Note

	// Server.mu guards what follows.
	next     message.Nonce // that the next order has to have; each is good for one
	stage    stage
	busy     bool // the goroutine has something to do, be it to find that it has not
	order    message.Message
	serial   uint64 // counts the orders
	deadline time.Time
	by       *seal
	from     netip.AddrPort // that last asked
	asked    time.Time      // and when
	result   Result         // once done
	failure  message.Failure
}

func newPlace(s *Server, n Node) *place {
	p := &place{s: s, node: n, tag: message.TagOf(n.Target), wake: make(chan struct{}, 1), limit: limit.New()}
	renew(&p.next)
	for _, key := range n.Keys {
		p.seals = append(p.seals, s.sealOf(key))
	}
	return p
}

// heard is called with a genuine question, and answers.
func (p *place) heard(m *message.Message, by *seal, from netip.AddrPort) {
	now := time.Now()
	known := p.stage != none && m.Client == p.order.Client && m.Server == p.order.Server
	switch {
	case m.Kind == message.Cancel:
		p.cancel(m, known)
		return
	case m.Kind == message.Hello, !known && !p.current(m, now):
		p.challenge(m, by, from, now)
		return
	case known:
		p.from, p.asked = from, now
	case (p.stage == waiting || p.stage == running) && !p.yields(m):
		p.s.answer(m, message.Busy)
		p.s.send(by, from)
		return
	default:
		p.take(m, by, from, now)
	}
	p.tell()
}

// current tells whether an order has a challenge that is neither used nor old.
func (p *place) current(m *message.Message, now time.Time) bool {
	given := p.s.start.Add(time.Duration(m.Clock) * time.Millisecond)
	return m.Server == p.next && !given.After(now) && now.Sub(given) <= freshFor
}

func (p *place) challenge(m *message.Message, by *seal, from netip.AddrPort, now time.Time) {
	p.s.answer(m, message.Challenge)
	p.s.reply.Next = p.next
	p.s.reply.Clock = uint64(now.Sub(p.s.start).Milliseconds())
	p.s.reply.SetProcess(p.s.process)
	p.s.send(by, from)
}

// yields tells whether what is running makes way for m: when the same client gives another order it has
// given up the first, and a fence does not wait for anything but a fence.
func (p *place) yields(m *message.Message) bool {
	return m.Sender == p.order.Sender || m.Op == message.Off && p.order.Op != message.Off
}

// take makes m the place's order. The time that is left counts from its challenge, so that an order
// that was long on its way has less.
func (p *place) take(m *message.Message, by *seal, from netip.AddrPort, now time.Time) {
	if p.stage == running {
		p.limit.Cancel()
	}
	if !p.busy {
		p.busy = true
		p.s.active.Add(1)
	}
	p.stage, p.order, p.by, p.from, p.asked = waiting, *m, by, from, now
	p.serial++
	renew(&p.next)
	left := time.Duration(min(m.Left, longest)) * time.Millisecond
	p.deadline = p.s.start.Add(time.Duration(m.Clock)*time.Millisecond + left)
	p.wakeUp()
}

// longest is the longest time for an attempt, in ms, as in fence.conf.
const longest = 86400000

func (p *place) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// cancel gives up an order. One that has not come yet is not taken when it does.
func (p *place) cancel(m *message.Message, known bool) {
	if !known {
		if m.Server == p.next {
			renew(&p.next)
		}
		return
	}
	p.giveUp()
}

// giveUp makes the place forget its order, unless that is done.
func (p *place) giveUp() {
	switch p.stage {
	case waiting:
		p.stage = none
	case running:
		p.stage = none
		p.limit.Cancel()
	}
}

// expire gives up an order whose client no longer asks.
func (p *place) expire(now time.Time) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if now.Sub(p.asked) > lease {
		p.giveUp()
	}
}

// tell says how far the order is to who last asked.
func (p *place) tell() {
	if p.stage != done {
		p.s.answer(&p.order, message.Working)
	} else {
		p.s.answer(&p.order, message.Done)
		p.s.reply.State, p.s.reply.Failure = p.result.State, p.failure
		message.SetText(&p.s.reply, p.result.Text)
	}
	p.s.send(p.by, p.from)
}

// serve carries out orders until quit.
func (p *place) serve() {
	for range p.wake {
		for {
			o, serial, ok := p.begin()
			if !ok {
				break
			}
			result, err := p.node.Handler.Order(p.limit, o)
			p.limit.Stop()
			p.end(o, serial, result, err)
		}
	}
}

// quit ends the place. The caller sees to it that no other order comes.
func (p *place) quit() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.giveUp()
	close(p.wake)
}

func (p *place) begin() (o Order, serial uint64, ok bool) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.stage != waiting {
		if p.busy {
			p.busy = false
			p.s.ended()
		}
		return Order{}, 0, false
	}
	p.stage = running
	left := time.Until(p.deadline)
	if p.order.Requested {
		p.limit.StartFor(left, p.request())
	} else {
		p.limit.Start(left)
	}
	return Order{Target: p.node.Target, Op: p.order.Op, From: p.from}, p.serial, true
}

// request is the client's, as far as an order tells of it.
func (p *place) request() fencemethods.Request {
	m := &p.order
	r := fencemethods.Request{Number: m.Number, Incarnation: m.Incarnation, Attempt: m.Attempt, Note: &p.note}
	if m.Silent > 0 {
		r.Silent = p.asked.Add(-time.Duration(m.Silent) * time.Millisecond)
	}
	r.Reason.Set(m.Bytes())
	return r
}

// end answers, unless the order was given up meanwhile, or another has come.
func (p *place) end(o Order, serial uint64, result Result, err error) {
	if err == nil {
		err = unproven(o.Op, result.State)
	}
	note := p.note.Take()
	if result.Text == "" {
		result.Text = note
	}
	if err != nil {
		result = Result{Text: textOf(err)}
		p.s.options.Log("%s: %s, ordered by %v: %v", o.Name, o.Op, o.From.Addr(), err)
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.serial != serial || p.stage != running {
		return
	}
	p.stage, p.result, p.failure = done, result, message.FailureOf(err)
	p.tell()
}

var errUnproven = &fencemethods.Error{Kind: fencemethods.ErrTimeout, Detail: "nobody knows whether it is done"}

// unproven keeps a Handler that is wrong about its own result from being believed.
func unproven(op message.Op, state fencemethods.State) error {
	switch {
	case op == message.Off && state != fencemethods.Off, op == message.On && state != fencemethods.On:
		return errUnproven
	}
	return nil
}

// textOf is what an error says, without what the answer's kind and the client's own names say. Room
// is short.
func textOf(err error) string {
	e, ok := errors.AsType[*fencemethods.Error](err)
	if !ok {
		return err.Error()
	}
	text := e.Detail
	if text == "" {
		text = e.Advice
	}
	if e.Method != "" {
		text = e.Method + ": " + text
	}
	if e.Detail != "" && e.Advice != "" {
		text += "; " + e.Advice
	}
	return text
}
