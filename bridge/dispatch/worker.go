// SPDX-License-Identifier: GPL-2.0-only

package dispatch

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/limit"
)

// A worker carries out the orders of one node, one at a time, and powers it on again.
//
// The receiving goroutine leaves an order in next and gives up what is under way, whatever it is:
// the kernel asks for one attempt at a time, so that it has gone on. The serving goroutine makes next
// the current one. An order that the kernel does not want any more, because it was canceled or
// because another one has come, is not answered: the answer would only be refused.
type worker struct {
	d     *Dispatcher
	node  Node
	wake  chan struct{} // holds one: look at pending; closed at the end
	limit *limit.Limit  // of what is under way
	reply *limit.Limit  // of one try to answer

	mu       sync.Mutex // protects what follows
	pending  bool       // next has not begun
	next     kernel.Initiate
	fencing  bool // current is under way
	unwanted bool // and its answer is not wanted

	current kernel.Initiate // changed by the serving goroutine, with mu
	answer  kernel.Answer   // the serving goroutine's own
	note    fencemethods.Note
	fenced  *Job // by which the node was last fenced, or may have been; the same
}

func newWorker(d *Dispatcher, n Node) *worker {
	return &worker{d: d, node: n, wake: make(chan struct{}, 1), limit: limit.New(), reply: limit.New()}
}

// take leaves an order for the serving goroutine.
func (w *worker) take(in *kernel.Initiate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.giveUp()
	if !w.pending {
		w.d.begun()
	}
	w.pending = true
	w.next = *in
	select {
	case w.wake <- struct{}{}:
	default:
	}
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
	close(w.wake)
}

// giveUp and drop are for what has begun and for what has not. The caller holds mu.
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

// serve carries out orders until quit.
func (w *worker) serve() {
	restore := time.NewTimer(0)
	restore.Stop()
	for {
		select {
		case _, ok := <-w.wake:
			if !ok {
				return
			}
			for w.begin() {
				if w.carryOut() && w.node.ThenOn {
					restore.Reset(w.node.ThenDelay)
				}
			}
		case <-restore.C:
			if !w.restore() {
				restore.Reset(max(w.node.ThenDelay, restoreAgain))
			}
		}
	}
}

// A device gets nine tenths of the kernel's time, so that it says what was wrong before the kernel
// says that the time is over.
const tenths = 9

// begin makes the order that waits, if there is one, the current one.
func (w *worker) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.pending {
		return false
	}
	w.pending, w.fencing, w.unwanted = false, true, false
	w.current = w.next
	r := fencemethods.Request{
		Number: w.current.Request, Incarnation: uint64(w.current.Incarnation), Attempt: w.current.Number,
		Silent: w.current.Silent, Note: &w.note,
	}
	r.Reason.Set(w.current.Reason())
	w.note.Take() // of an attempt that was given up
	w.limit.StartFor(w.current.Timeout/10*tenths, r)
	return true
}

// end tells whether the current order is still to be answered.
func (w *worker) end() (wanted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit.Stop()
	w.fencing = false
	return !w.unwanted
}

// carryOut fences the node and answers. It returns true when the node may be off now, whether that
// was proven or not.
func (w *worker) carryOut() bool {
	defer w.d.ended()
	job, err := w.job(), errStaleConfig
	if job != nil {
		err = job.Device.Off(w.limit)
		w.fenced = job
	}
	if w.end() {
		w.answer.Attempt, w.answer.Errmsg = w.current.Attempt, w.note.Take()
		w.d.answer(w.reply, &w.answer, err)
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

// restore powers the node on again, by the method that fenced it, and returns true when there is
// nothing left to do. It is too early while the node is being fenced once more, by whatever method,
// or a notice is outstanding: a second fencer must never meet a node that is coming back. An order
// that comes meanwhile goes first.
func (w *worker) restore() bool {
	if !w.beginRestore() {
		return false
	}
	defer w.d.ended()
	settled, err := w.d.options.Settled(w.limit, w.node.Cluster, w.node.Number)
	if err == nil && settled {
		err = powerOn(w.limit, w.fenced.Device)
	}
	w.limit.Stop()
	if errors.Is(w.limit.Err(), context.Canceled) {
		return false
	}
	if err != nil {
		w.d.options.Log("node %d is not powered on again: %v", w.node.Number, err)
	}
	return err != nil || settled
}

func (w *worker) beginRestore() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending {
		return false
	}
	w.d.begun()
	w.limit.Start(restoreTime)
	return true
}

// powerOn leaves a node alone that somebody else has powered on, or that was never off.
func powerOn(ctx context.Context, device fencemethods.Device) error {
	state, err := device.Status(ctx)
	if err != nil || state != fencemethods.Off {
		return err
	}
	return device.On(ctx)
}
