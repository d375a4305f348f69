// SPDX-License-Identifier: GPL-2.0-only

// Package dispatch is the bridge's core loop: it takes what the kernel asks, has the node's device
// carry it out, and answers.
//
// Nothing in it allocates, starts or opens anything between INITIATE and FENCED (R19), but for the
// text of a failure, and the words of whoever vouches for a success: each node has a goroutine of its
// own from the start, with a place for one order, for the kernel never asks for more at a time. So the
// bound of R19.3 is static: as many orders as nodes.
package dispatch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods"
)

// A Kernel is what asks and is answered: a kernel.Bridge.
type Kernel interface {
	Receive(*kernel.Initiate) (uapi.Cmd, error)
	Fenced(*kernel.Answer) error
}

// A Job is one method of a node, ready to be carried out.
type Job struct {
	Method string
	Params []byte // as the node was joined with
	Device fencemethods.Device

	// Several says that the Device is several, of which some may be off and others not: its On looks
	// for itself which it has to switch on.
	Several bool
	tried   bool // since the node was last powered on; the worker's own
}

// A Node is a node with the methods that this bridge carries for it.
type Node struct {
	Cluster string
	Number  uint32
	Jobs    []Job

	ThenOn    bool          // power it on again when it was fenced
	ThenDelay time.Duration // and how long after that
}

// Options are what else a Dispatcher needs; all of them.
type Options struct {
	// Settled tells whether a node has no fence under way and no notice outstanding: only then is
	// it powered on again. Not called on the path.
	Settled func(ctx context.Context, cluster string, node uint32) (bool, error)
	// Idle is called when the last thing under way has ended and nothing has begun for a while: the time
	// to collect garbage. Not called on the path, though an order may come meanwhile.
	Idle func()
	// Log gets what went wrong and cannot be answered. It must not block.
	Log func(format string, args ...any)
	// Begin is called once by each goroutine that carries out orders or answers, and has returned in
	// all of them before the first is taken: the time to grow its stack.
	Begin func()
	// Proven is called when a node was proven off, before that is answered, if it is not nil. It is on the
	// path, and called by several goroutines at once.
	Proven func()
}

// A Dispatcher serves one bridge.
//
// It has a goroutine for each node and one that receives, and they take turns: the receiver carries out
// itself what has come, and the goroutine of the node, which was at rest, receives in its place. So an
// order waits neither for another goroutine nor for another thread to be woken, however long its device
// takes.
type Dispatcher struct {
	kernel  Kernel
	options Options
	workers []*worker
	tables  []table

	in  *kernel.Initiate // the receiver's
	err error            // of Receive, once the last receiver has ended

	strangers chan kernel.Attempt // to fence nodes that are not in the configuration
	active    atomic.Int32        // orders that wait or are carried out, and nodes being powered on
	idle      chan struct{}       // holds one: active has come down to 0
	over      chan struct{}       // closed when there is nothing to wait for any more
}

// A table has the workers of a cluster, by the numbers of their nodes.
type table struct {
	name  string
	nodes [uapi.NodesMax]*worker
}

// New prepares a worker for each node.
func New(k Kernel, nodes []Node, o Options) *Dispatcher {
	d := &Dispatcher{
		kernel: k, options: o, in: new(kernel.Initiate),
		strangers: make(chan kernel.Attempt, uapi.NodesMax),
		idle:      make(chan struct{}, 1),
		over:      make(chan struct{}),
	}
	for _, n := range nodes {
		d.add(newWorker(d, n))
	}
	return d
}

func (d *Dispatcher) add(w *worker) {
	d.workers = append(d.workers, w)
	i := slices.IndexFunc(d.tables, func(t table) bool { return t.name == w.node.Cluster })
	if i < 0 {
		i = len(d.tables)
		d.tables = append(d.tables, table{name: w.node.Cluster})
	}
	d.tables[i].nodes[w.node.Number] = w
}

// Resume is for a node that was fenced by a method before this bridge was there: its power comes back
// when it would have with the last bridge. It returns false, and does nothing, where that is not wanted
// or may have happened: after ThenDelay the last bridge may have done it, and somebody may have switched
// the node off for good since. Call it before Serve.
func (d *Dispatcher) Resume(cluster string, node uint32, method string, fenced time.Time) bool {
	for _, w := range d.workers {
		if w.node.Cluster == cluster && w.node.Number == node {
			return w.resume(method, fenced)
		}
	}
	return false
}

// Serve carries out what the kernel asks until Receive fails for good, and returns that error. What
// is under way then is given up. It is called once.
func (d *Dispatcher) Serve() error {
	var workers, others, begun sync.WaitGroup
	begin := func(group *sync.WaitGroup, serve func()) {
		begun.Add(1)
		group.Go(func() {
			d.options.Begin()
			begun.Done()
			serve()
		})
	}
	for _, w := range d.workers {
		begin(&workers, func() { d.take(w) })
	}
	begin(&others, d.turnAway)
	begin(&others, d.housekeep)
	begin(&workers, func() { // the last one, for it waits for all that were begun
		begun.Wait()
		d.take(nil)
	})
	workers.Wait()
	close(d.strangers)
	close(d.over)
	others.Wait()
	return d.err
}

// take is what each of the goroutines that take turns does: it serves a worker, or receives when there
// is none.
func (d *Dispatcher) take(w *worker) {
	for {
		if w == nil {
			if w = d.receive(); w == nil {
				return
			}
			w.fence()
		}
		if !w.serve() {
			return
		}
		w = nil
	}
}

// receive hands on what comes in. It does nothing that waits. It returns the worker whose order the caller is to carry out, and
// nil at the end.
func (d *Dispatcher) receive() *worker {
	for {
		cmd, err := d.kernel.Receive(d.in)
		switch {
		case err == nil:
			if w := d.hand(cmd); w != nil {
				return w
			}
		case errors.Is(err, kernel.ErrMalformed), errors.Is(err, syscall.ENOBUFS):
			d.options.Log("a message of the kernel is lost: %v", err)
		case errors.Is(err, kernel.ErrStale): // somebody was first, or the time was over
		case isRefusal(err):
			d.options.Log("an answer was refused: %v", err)
		default:
			d.err = err
			for _, w := range d.workers {
				w.quit()
			}
			return nil
		}
	}
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*kernel.Refusal](err)
	return ok
}

// hand gives an order to the node's worker, and returns that when the caller has to carry it out.
func (d *Dispatcher) hand(cmd uapi.Cmd) *worker {
	w := d.worker(&d.in.Attempt)
	switch {
	case cmd == uapi.CmdInitiate && w != nil:
		if w.take(&d.in) {
			return w
		}
	case cmd == uapi.CmdCancel && w != nil:
		w.forget(&d.in.Attempt)
	case cmd == uapi.CmdInitiate:
		select {
		case d.strangers <- d.in.Attempt:
		default: // there cannot be so many; the kernel's timer answers
		}
	}
	return nil
}

func (d *Dispatcher) worker(a *kernel.Attempt) *worker {
	for i := range d.tables {
		if t := &d.tables[i]; a.Cluster.Is(t.name) && a.Node < uint32(len(t.nodes)) {
			return t.nodes[a.Node]
		}
	}
	return nil
}

// What is answered when the configuration is not the one that was joined with: to fence by another
// one could be to fence another machine.
var (
	errUnknownNode = errors.New("the bridge's configuration has no such node: restart o2fenced, then join again")
	errStaleConfig = errors.New("the bridge's configuration is not the one joined with: restart o2fenced, then join again")
)

// turnAway answers orders for nodes that have no worker.
func (d *Dispatcher) turnAway() {
	for a := range d.strangers {
		d.answer(&kernel.Answer{Attempt: a}, errUnknownNode)
	}
}

// The kernel has an answer at once, unless memory is too short even for that.
const (
	replyTries = 5
	replyPause = 100 * time.Millisecond
)

// answer tells the kernel how an attempt has ended. On success, Errmsg says who vouches for it, if
// it rests on somebody's word.
func (d *Dispatcher) answer(a *kernel.Answer, err error) {
	a.Errno = 0
	if err != nil {
		a.Errno, a.Errmsg = errno(err), err.Error()
	}
	for try := range replyTries {
		if try > 0 {
			time.Sleep(replyPause)
		}
		if err = d.kernel.Fenced(a); err == nil {
			return
		}
	}
	d.options.Log("node %d, request %d: the answer could not be given: %v", a.Node, a.Request, err)
}

func errno(err error) syscall.Errno {
	if errors.Is(err, errUnknownNode) || errors.Is(err, errStaleConfig) {
		return syscall.ESTALE
	}
	return fencemethods.Errno(err)
}

// Busy tells whether an order is under way, or a node is being powered on. Any goroutine may ask.
func (d *Dispatcher) Busy() bool { return d.active.Load() > 0 }

func (d *Dispatcher) begun() { d.active.Add(1) }

func (d *Dispatcher) ended() {
	if d.active.Add(-1) == 0 {
		select {
		case d.idle <- struct{}{}:
		default:
		}
	}
}

// quiet is how long nothing must be under way before it is time to keep house: nodes often die one
// shortly after the other, and the next must not wait for it.
const quiet = 100 * time.Millisecond

// housekeep calls Idle whenever there is nothing to do any more.
func (d *Dispatcher) housekeep() {
	for wait := time.NewTimer(quiet); ; {
		select {
		case <-d.idle:
		case <-d.over:
			return
		}
		wait.Reset(quiet)
		select {
		case <-wait.C:
		case <-d.over:
			return
		}
		if d.active.Load() == 0 {
			d.options.Idle()
		}
	}
}
