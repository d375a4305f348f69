// SPDX-License-Identifier: GPL-2.0-only

// Package dispatch is the bridge's core loop: it takes what the kernel asks, has the node's device
// carry it out, and answers.
//
// Nothing in it allocates, starts or opens anything between INITIATE and FENCED (R19): each node has
// a goroutine of its own from the start, with a place for one order, for the kernel never asks for
// more at a time. So the bound of R19.3 is static: as many orders as nodes.
package dispatch

import (
	"bytes"
	"context"
	"errors"
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
	Fenced(context.Context, *kernel.Answer) error
}

// A Job is one method of a node, ready to be carried out.
type Job struct {
	Method string
	Params []byte // as the node was joined with
	Device fencemethods.Device
}

// A Node is a node with the methods that this bridge carries for it.
type Node struct {
	Cluster string
	Number  uint32
	Jobs    []Job

	ThenOn    bool          // power it on again when it was fenced
	ThenDelay time.Duration // and how long after that
}

// Options are what else a Dispatcher needs.
type Options struct {
	// Settled tells whether a node has no fence under way and no notice outstanding: only then is
	// it powered on again. Not called on the path.
	Settled func(cluster string, node uint32) (bool, error)
	// Idle is called whenever the last order has been answered: the time to collect garbage. Not
	// called on the path, though an order may come meanwhile.
	Idle func()
	// Log gets what went wrong outside of the path. It must not block.
	Log func(format string, args ...any)
}

// A Dispatcher serves one bridge.
type Dispatcher struct {
	kernel  Kernel
	options Options
	workers []*worker
	active  atomic.Int32
	idle    chan struct{}
	in      kernel.Initiate
}

// New prepares a goroutine for each node.
func New(k Kernel, nodes []Node, o Options) *Dispatcher {
	d := &Dispatcher{kernel: k, options: o, idle: make(chan struct{}, 1)}
	for _, n := range nodes {
		d.workers = append(d.workers, newWorker(d, n))
	}
	return d
}

// Serve carries out what the kernel asks until Receive fails. The goroutines end with it.
func (d *Dispatcher) Serve() error {
	var running sync.WaitGroup
	defer running.Wait()
	ended := make(chan struct{})
	defer close(ended)
	for _, w := range d.workers {
		running.Go(func() { w.serve(ended) })
	}
	running.Go(func() { d.housekeep(ended) })
	for {
		cmd, err := d.kernel.Receive(&d.in)
		if err != nil {
			return err
		}
		d.hand(cmd, &d.in)
	}
}

// hand gives an order to the node's goroutine.
func (d *Dispatcher) hand(cmd uapi.Cmd, in *kernel.Initiate) {
	for _, w := range d.workers {
		if w.node.Number != in.Node || !in.Cluster.Is(w.node.Cluster) {
			continue
		}
		switch cmd {
		case uapi.CmdInitiate:
			w.take(in)
		case uapi.CmdCancel:
			w.forget(in.Attempt)
		}
		return
	}
	if cmd == uapi.CmdInitiate {
		// Not from here: the acknowledgement comes in through this very goroutine.
		go d.answer(&kernel.Answer{Attempt: in.Attempt}, errUnknownNode)
	}
}

// What is answered when the configuration is not the one that was joined with: to fence by another
// one could be to fence another machine.
var (
	errUnknownNode = errors.New("the bridge's configuration has no such node: restart o2fenced, then join again")
	errStaleConfig = errors.New("the bridge's configuration is not the one joined with: restart o2fenced, then join again")
)

func (d *Dispatcher) answer(a *kernel.Answer, err error) {
	a.Errno, a.Errmsg = 0, ""
	switch {
	case errors.Is(err, errUnknownNode), errors.Is(err, errStaleConfig):
		a.Errno, a.Errmsg = syscall.ESTALE, err.Error()
	case err != nil:
		a.Errno, a.Errmsg = fencemethods.Errno(err), err.Error()
	}
	err = d.kernel.Fenced(context.Background(), a)
	if err != nil && !errors.Is(err, kernel.ErrStale) {
		d.options.Log("node %d, request %d: %v", a.Node, a.Request, err)
	}
}

// housekeep calls Idle after each time that orders were carried out.
func (d *Dispatcher) housekeep(ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case <-d.idle:
			if d.active.Load() == 0 {
				d.options.Idle()
			}
		}
	}
}

// A worker carries out the orders of one node.
type worker struct {
	d    *Dispatcher
	node Node
	wake chan struct{}

	mu      sync.Mutex // protects the rest but current
	pending bool
	next    kernel.Initiate
	attempt *attempt // of the order under way, nil when there is none

	current kernel.Initiate // changed by the serving goroutine, under mu
	result  kernel.Answer   // the serving goroutine's own
}

func newWorker(d *Dispatcher, n Node) *worker {
	return &worker{d: d, node: n, wake: make(chan struct{}, 1)}
}

// take leaves an order for the goroutine. The one under way is given up: the kernel, which asks for
// one at a time, has gone on.
func (w *worker) take(in *kernel.Initiate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.attempt != nil {
		w.attempt.cancel()
	}
	if !w.pending {
		w.d.active.Add(1)
	}
	w.pending = true
	w.next = *in
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// forget gives up an attempt, begun or not.
func (w *worker) forget(a kernel.Attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.attempt != nil && w.current.Attempt == a {
		w.attempt.cancel()
	}
	if w.pending && w.next.Attempt == a {
		w.drop()
	}
}

// drop forgets the order that has not begun. The caller holds mu.
func (w *worker) drop() {
	w.pending = false
	w.done()
}

func (w *worker) done() {
	if w.d.active.Add(-1) == 0 {
		select {
		case w.d.idle <- struct{}{}:
		default:
		}
	}
}

// begin makes the next order the current one.
func (w *worker) begin(a *attempt) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.pending {
		return false
	}
	w.pending = false
	w.current = w.next
	a.start(w.current.Timeout)
	w.attempt = a
	return true
}

func (w *worker) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attempt = nil
}

func (w *worker) serve(ended <-chan struct{}) {
	restore := time.NewTimer(0)
	if !restore.Stop() {
		<-restore.C
	}
	a := newAttempt()
	for {
		select {
		case <-ended:
			return
		case <-restore.C:
			if !w.restored() {
				restore.Reset(w.node.ThenDelay)
			}
		case <-w.wake:
			restore.Stop()
			for w.begin(a) {
				err := w.fence(a)
				w.end()
				w.result.Attempt = w.current.Attempt
				w.d.answer(&w.result, err)
				w.done()
				if err == nil && w.node.ThenOn {
					restore.Reset(w.node.ThenDelay)
				}
				a.cancel()
				a = newAttempt()
			}
		}
	}
}

// fence carries out the current order.
func (w *worker) fence(ctx context.Context) error {
	if job := w.job(); job != nil {
		return job.Device.Off(ctx)
	}
	return errStaleConfig
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

// restoreTimeout bounds the return of a node's power, which nobody waits for.
const restoreTimeout = time.Minute

// restored powers the node on again, through the method that fenced it. It is too early, false, while
// the node is being fenced once more or a notice is outstanding: a second fencer must never meet a
// node that is coming back. One that somebody else has powered on is left alone.
func (w *worker) restored() bool {
	ctx, cancel := context.WithTimeout(context.Background(), restoreTimeout)
	defer cancel()
	settled, err := w.d.options.Settled(w.node.Cluster, w.node.Number)
	if err == nil && settled {
		err = w.powerOn(ctx)
	}
	if err != nil {
		w.d.options.Log("node %d is left off: %v", w.node.Number, err)
	}
	return err != nil || settled
}

func (w *worker) powerOn(ctx context.Context) error {
	job := w.job()
	if job == nil {
		return errStaleConfig
	}
	state, err := job.Device.Status(ctx)
	if err != nil || state != fencemethods.Off {
		return err
	}
	return job.Device.On(ctx)
}
