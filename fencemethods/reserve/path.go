// SPDX-License-Identifier: GPL-2.0-only

package reserve

import "runtime"

type order int

const (
	read order = iota
	preempt
	prove
	register
	reserve
)

// A path is a link with its thread. What the thread has not given back is not touched.
type path struct {
	link   Link
	mine   Key
	theirs Key
	orders chan order
	answer chan struct{}
	ended  chan struct{}

	told  Table    // the thread's, while it has an order
	wrong *Failure // the same

	table Table    // what was last read
	fault *Failure // what was wrong with the last order

	busy bool // the thread has an order
	old  bool // which belongs to an operation that has given up waiting
	due  bool // an order is to be given or waited for
}

func newPath(link Link, mine, theirs Key) *path {
	p := &path{
		link: link, mine: mine, theirs: theirs,
		// Neither the device nor the thread ever waits to send.
		orders: make(chan order, 1), answer: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	go p.serve()
	return p
}

// serve has a thread for itself, so that one that hangs in the kernel is not missing anywhere.
func (p *path) serve() {
	runtime.LockOSThread()
	defer close(p.ended)
	for o := range p.orders {
		p.carryOut(o)
		p.answer <- struct{}{}
	}
	_ = p.link.Close() // nothing was written that could be lost
}

func (p *path) carryOut(o order) {
	switch o {
	case read:
		p.told, p.wrong = p.link.Read(p.mine, p.theirs)
	case preempt:
		p.wrong = p.link.Preempt(p.mine, p.theirs)
	case prove:
		p.wrong = p.link.Prove(p.mine)
	case register:
		p.wrong = p.link.Register(p.mine)
	case reserve:
		p.wrong = p.reserve()
	}
}

// reserve is content with the reservation that another node has made. Whether one of several holders
// may make it again targets see differently.
func (p *path) reserve() *Failure {
	f := p.link.Reserve(p.mine)
	if f != Conflict {
		return f
	}
	t, f := p.link.Read(p.mine, p.theirs)
	if f == nil && !(t.Held && t.Right) {
		return failOther
	}
	return f
}

// look takes an answer that is there, and gives the order when the thread is free. It tells whether
// the order has been carried out.
func (p *path) look(o order) bool {
	if p.busy {
		select {
		case <-p.answer:
			p.busy = false
			if !p.old {
				p.table, p.fault, p.due = p.told, p.wrong, false
			}
			p.old = false
		default:
			return false
		}
	}
	if !p.due {
		return true
	}
	p.busy = true
	p.orders <- o
	return false
}

// leave gives up waiting. The answer, when it comes, is nobody's.
func (p *path) leave() {
	if p.due {
		p.old, p.due, p.fault = p.busy, false, failHung
	}
}

// close ends the thread. One that hangs closes its link when it comes back: to wait for it could be
// for ever.
func (p *path) close() {
	close(p.orders)
	if !p.busy {
		<-p.ended
	}
}
