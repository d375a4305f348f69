// SPDX-License-Identifier: GPL-2.0-only

package dispatch

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/limit"
)

// A worker is what there is to do for one node: the order that waits, the one that is carried out, its
// power that is to come back. One goroutine at a time serves it, for whichever was the receiver when an
// order came for a node at rest carries it out; see Dispatcher.
//
// The receiver gives up what is under way, whatever it is: the kernel asks for one attempt at a time,
// so that it has gone on. An order that the kernel does not want any more, because it was canceled or
// because another one has come, is not answered: the answer would only be refused.
type worker struct {
	d     *Dispatcher
	node  Node
	wake  chan call    // holds one, which was sent with mu
	limit *limit.Limit // of what is under way
	timer *time.Timer

	mu        sync.Mutex // protects what follows
	resting   bool       // the goroutine that serves it waits, and was not called yet
	over      bool       // no orders any more
	pending   bool       // next has not begun
	next      *kernel.Initiate
	fencing   bool // current is under way
	unwanted  bool // and its answer is not wanted
	due       bool // its power
	restoreAt time.Time

	current *kernel.Initiate // changed with mu, at its end or by who has found it resting
	answer  kernel.Answer    // of who serves it
	note    fencemethods.Note
	fenced  *Job // by which the node was last fenced, or may have been; the same
}

// A call ends the rest of a worker's goroutine.
type call int

const (
	look    call = iota // for what there is to do
	receive             // for the caller has taken its place
)

func newWorker(d *Dispatcher, n Node) *worker {
	w := &worker{
		d: d, node: n, wake: make(chan call, 1), limit: limit.New(),
		next: new(kernel.Initiate), current: new(kernel.Initiate),
	}
	w.timer = time.AfterFunc(math.MaxInt64, w.remind)
	w.timer.Stop()
	return w
}

// resume is for Dispatcher.Resume. With two methods of the name it is not known which was the one.
func (w *worker) resume(method string, fenced time.Time) bool {
	named := func(j Job) bool { return j.Method == method }
	i := slices.IndexFunc(w.node.Jobs, named)
	ago := time.Since(fenced)
	if i < 0 || slices.ContainsFunc(w.node.Jobs[i+1:], named) || !w.node.ThenOn || ago < 0 || ago >= w.node.ThenDelay {
		return false
	}
	w.fenced = &w.node.Jobs[i]
	w.restoreIn(w.node.ThenDelay - ago)
	return true
}

// take is the receiver's. It returns true when it is for the caller to carry the order out, and the
// goroutine that served the worker is the receiver from now on; otherwise that one finds it. In its
// place in is another Initiate.
func (w *worker) take(in **kernel.Initiate) (yours bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.pending {
		w.d.begun()
	}
	if w.resting {
		*in, w.current = w.current, *in
		w.begin()
		w.call(receive)
		return true
	}
	w.giveUp()
	w.pending = true
	*in, w.next = w.next, *in
	return false
}

// forget gives up an attempt, begun or not.
func (w *worker) forget(a *kernel.Attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fencing && w.current.Attempt == *a {
		w.giveUp()
	}
	if w.next.Attempt == *a {
		w.drop()
	}
}

// quit ends the worker. No other order may be taken after it.
func (w *worker) quit() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.giveUp()
	w.drop()
	w.timer.Stop()
	w.over = true
	if w.resting {
		w.call(look)
	}
}

// giveUp and drop are for what has begun and for what has not, call is for who rests. The caller
// holds mu.
func (w *worker) giveUp() {
	w.unwanted = true
	w.limit.Cancel()
}

func (w *worker) drop() {
	if w.pending {
		w.pending = false
		w.d.ended()
	}
}

func (w *worker) call(c call) {
	w.resting = false
	w.wake <- c
}

// serve does what there is to do, until its goroutine is called to receive: true, or quit: false.
func (w *worker) serve() bool {
	for {
		switch w.look() {
		case fence:
			w.fence()
		case powerOn:
			w.restore()
		case rest:
			if <-w.wake == receive {
				return true
			}
		case end:
			return false
		}
	}
}

// What there is to do.
type duty int

const (
	rest duty = iota
	fence
	powerOn
	end
)

// look finds out what there is to do, and begins it. An order goes before all else.
func (w *worker) look() duty {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over:
		return end
	case w.pending:
		w.pending = false
		w.current, w.next = w.next, w.current
		w.begin()
		return fence
	case w.due:
		w.due = false
		w.d.begun()
		w.limit.Start(restoreTime)
		return powerOn
	}
	w.resting = true
	return rest
}

// A device gets nine tenths of the kernel's time, so that it says what was wrong before the kernel
// says that the time is over.
const tenths = 9

// begin begins the current order. The caller holds mu.
func (w *worker) begin() {
	w.fencing, w.unwanted = true, false
	r := fencemethods.Request{
		Number: w.current.Request, Incarnation: uint64(w.current.Incarnation), Attempt: w.current.Number,
		Silent: w.current.Silent, Note: &w.note,
	}
	r.Reason.Set(w.current.Reason())
	w.note.Take() // of an attempt that was given up
	w.limit.StartFor(w.current.Timeout/10*tenths, r)
}

// end tells whether the current order is still to be answered.
func (w *worker) end() (wanted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit.Stop()
	w.fencing = false
	return !w.unwanted
}

// fence carries out the current order.
func (w *worker) fence() {
	if w.carryOut() && w.node.ThenOn {
		w.restoreIn(w.node.ThenDelay)
	}
}

// restoreIn has the power restored that much later, whatever was to be before.
func (w *worker) restoreIn(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.due = false
	w.restoreAt = time.Now().Add(d)
	w.timer.Reset(d)
}

// remind is called by the timer, possibly late: the time may be another already.
func (w *worker) remind() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over || time.Now().Before(w.restoreAt) {
		return
	}
	w.due = true
	if w.resting {
		w.call(look)
	}
}

// carryOut fences the node and answers. It returns true when the node may be off now, whether that
// was proven or not.
func (w *worker) carryOut() bool {
	defer w.d.ended()
	job, err := w.job(), errStaleConfig
	if job != nil {
		err = job.Device.Off(w.limit)
		w.fenced, job.tried = job, true
	}
	if err == nil && w.d.options.Proven != nil {
		w.d.options.Proven()
	}
	if w.end() {
		w.answer.Attempt, w.answer.Errmsg = w.current.Attempt, w.note.Take()
		w.d.answer(&w.answer, err)
	}
	return job != nil
}

// job is the method that the current order names, with the very parameters that were joined with.
func (w *worker) job() *Job {
	for i := range w.node.Jobs {
		job := &w.node.Jobs[i]
		if w.current.Method.Is(job.Method) && bytes.Equal(job.Params, w.current.Params()) {
			return job
		}
	}
	return nil
}

const (
	restoreTime  = time.Minute // for the return of a node's power, which nobody waits for
	restoreAgain = time.Second // at least, between two looks whether it is time
)

// restore powers the node on again, by the method that fenced it, and comes back to it when it is too
// early: while the node is being fenced once more, by whatever method, or a notice is outstanding. A
// second fencer must never meet a node that is coming back. An order that comes meanwhile goes first.
func (w *worker) restore() {
	defer w.d.ended()
	settled, err := w.d.options.Settled(w.limit, w.node.Cluster, w.node.Number)
	if err == nil && settled {
		err = w.powerUp()
	}
	w.limit.Stop()
	switch {
	case errors.Is(w.limit.Err(), context.Canceled), err == nil && !settled:
		w.restoreIn(max(w.node.ThenDelay, restoreAgain))
	case err != nil:
		w.d.options.Log("node %d is not powered on again: %v", w.node.Number, err)
	}
}

// powerUp powers on by the method that fenced the node. Several devices that were tried before it may have
// gone off by halves.
func (w *worker) powerUp() error {
	err := w.fenced.powerUp(w.limit)
	for i := range w.node.Jobs {
		job := &w.node.Jobs[i]
		if job.tried && job.Several && job != w.fenced {
			err = errors.Join(err, job.powerUp(w.limit))
		}
		job.tried = job.tried && err != nil
	}
	return err
}

// powerUp leaves a node alone that somebody else has powered on, or that was never off.
func (j *Job) powerUp(ctx context.Context) error {
	if j.Several {
		return j.Device.On(ctx)
	}
	state, err := j.Device.Status(ctx)
	if err != nil || state != fencemethods.Off {
		return err
	}
	return j.Device.On(ctx)
}
