// SPDX-License-Identifier: GPL-2.0-only

package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	maxOpen  = 1024 // questions at a time: of four clusters that ask about all nodes at once
	maxEnded = 64   // questions that are remembered after their end
	maxNews  = 4096 // changes that nobody has read

	// lost is for how long a question may not have come before it counts as over: who asks has died, or
	// cannot reach this machine any more. It goes on when it comes again.
	lost = time.Minute

	// grace is for how long after its time a question may still be answered: the network and the two
	// clocks take some. An answer that comes too late does not count, and whoever gave it is told.
	grace = 5 * time.Second

	// TextMax is how long who and why may be together, in bytes: they are kept in the kernel's history.
	TextMax = 160
)

// What can be wrong with an answer, for errors.Is.
var (
	ErrUnknown  = errors.New("there is no such question")
	ErrStale    = errors.New("that question is over")
	ErrAnswered = errors.New("that question is answered already")
	ErrText     = errors.New("unusable text")
	errFull     = errors.New("too many questions at once")
)

// A Desk keeps questions. Its methods may be called by any number of goroutines.
type Desk struct {
	changed chan struct{} // holds one: there is news

	mu    sync.Mutex
	news  []Record // at most maxNews
	open  []*entry // as they came
	ended []*entry // as they ended, the last maxEnded
}

type entry struct {
	id ID
	Record
	yes     bool          // what was answered here, by Who
	lost    bool          // it is over only as long as it does not come again
	settled chan struct{} // closed when the answer was taken, and at the end
}

// New makes a Desk without questions.
func New() *Desk { return &Desk{changed: make(chan struct{}, 1)} }

// News waits for questions that have come, or that something has become of, and returns them as they
// were then. It is for one goroutine, and returns nil when ctx is done.
func (d *Desk) News(ctx context.Context) []Record {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.changed:
		}
		d.mu.Lock()
		news := d.news
		d.news = nil
		d.mu.Unlock()
		if len(news) > 0 {
			return news
		}
	}
}

// tell is called with mu held. Where nobody reads, the oldest is forgotten.
func (d *Desk) tell(r Record) {
	if len(d.news) == maxNews {
		d.news = slices.Delete(d.news, 0, 1)
	}
	d.news = append(d.news, r)
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Ask takes a question, for the first time or again, and returns what has become of it so far. The
// first time counts for AskedAt.
func (d *Desk) Ask(id ID, q Question) (Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expire()
	now := time.Now()
	if e := d.find(id); e != nil {
		e.HeardAt = now
		return e.Record, nil
	}
	i := slices.IndexFunc(d.ended, func(e *entry) bool { return e.id == id })
	switch {
	case i >= 0 && !d.ended[i].lost:
		return d.ended[i].Record, nil // it was on its way still
	case len(d.open) >= maxOpen:
		return Record{}, errFull
	}
	q.AskedAt = now
	e := &entry{id: id, Record: Record{Question: q, State: Open}}
	if i >= 0 {
		e = d.ended[i]
		d.ended = slices.Delete(d.ended, i, i+1)
		e.reopen()
	}
	e.HeardAt, e.settled = now, make(chan struct{})
	d.open = append(d.open, e)
	d.tell(e.Record)
	return e.Record, nil
}

// reopen has a question go on where it was lost, with the answer that was given.
func (e *entry) reopen() {
	e.lost, e.End, e.EndedAt, e.Taken = false, "", time.Time{}, false
	e.State = e.answered()
}

func (e *entry) answered() State {
	switch {
	case e.Who == "":
		return Open
	case e.yes:
		return Confirmed
	}
	return Declined
}

// Known tells whether a question was asked before.
func (d *Desk) Known(id ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.find(id) != nil || slices.ContainsFunc(d.ended, func(e *entry) bool { return e.id == id })
}

// Take says that the cluster has taken the answer given here. It may go on to ask others.
func (d *Desk) Take(id ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.find(id)
	if e == nil || e.State == Open || e.Taken {
		return
	}
	e.Taken = true
	close(e.settled)
	d.tell(e.Record)
}

// End says how a question has ended.
func (d *Desk) End(id ID, how string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.find(id); e != nil {
		d.end(e, how)
	}
}

// Answer gives an administrator's answer to a question: that the node is off (yes), or that nobody
// can vouch for that. Node is whom he believes the question to be about. The error is ErrUnknown,
// ErrStale, ErrAnswered or ErrText, and then nothing has changed.
func (d *Desk) Answer(request, node string, yes bool, who, why string) (Record, error) {
	if err := checkText(who, why); err != nil {
		return Record{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expire()
	e := d.named(request)
	switch {
	case e == nil:
		return Record{}, d.missing(request, node)
	case e.Node != node:
		return Record{}, fmt.Errorf("%w: %s is about node %s, not %s", ErrUnknown, request, e.Node, node)
	case e.State != Open:
		return Record{}, fmt.Errorf("%w: %s by %s: %s", ErrAnswered, e.State, e.Who, e.Why)
	}
	e.yes, e.Who, e.Why, e.AnsweredAt = yes, who, why, time.Now()
	e.State = e.answered()
	d.tell(e.Record)
	return e.Record, nil
}

func checkText(who, why string) error {
	switch {
	case who == "" || why == "":
		return fmt.Errorf("%w: say who you are, and how you know", ErrText)
	case len(who)+len(why) > TextMax:
		return fmt.Errorf("%w: name and reason have %d bytes, expected at most %d", ErrText, len(who)+len(why), TextMax)
	case slices.ContainsFunc([]rune(who+why), func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }):
		return fmt.Errorf("%w: expected one line of printable UTF-8", ErrText)
	}
	return nil
}

// missing says why a question is not there: it makes a difference to somebody who has just vouched.
func (d *Desk) missing(request, node string) error {
	for _, e := range d.ended {
		if e.Request == request {
			return fmt.Errorf("%w: %s", ErrStale, e.End)
		}
	}
	for _, e := range d.open {
		if e.Node == node {
			return fmt.Errorf("%w: nobody asks %s; of node %s there is %s", ErrUnknown, request, node, e.Request)
		}
	}
	return fmt.Errorf("%w: nobody asks %s", ErrUnknown, request)
}

// Await waits until the answer to a question was taken, or the question is over, or ctx is done, and
// returns what is known then.
func (d *Desk) Await(ctx context.Context, request string) Record {
	d.mu.Lock()
	e := d.named(request)
	d.mu.Unlock()
	if e != nil {
		select {
		case <-e.settled:
		case <-ctx.Done():
		}
	}
	for _, r := range d.Records() {
		if r.Request == request {
			return r
		}
	}
	return Record{Question: Question{Request: request}, State: Over} // and forgotten
}

// Records are the questions that are not over, as they came, and after them those that are, the last
// one first.
func (d *Desk) Records() []Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expire()
	all := make([]Record, 0, len(d.open)+len(d.ended))
	for _, e := range d.open {
		all = append(all, e.Record)
	}
	for _, e := range slices.Backward(d.ended) {
		all = append(all, e.Record)
	}
	return all
}

func (d *Desk) find(id ID) *entry {
	for _, e := range d.open {
		if e.id == id {
			return e
		}
	}
	return nil
}

func (d *Desk) named(request string) *entry {
	for _, e := range d.open {
		if e.Request == request {
			return e
		}
	}
	return nil
}

// expire ends what nobody waits for any more, though nobody has said so.
func (d *Desk) expire() {
	now := time.Now()
	for _, e := range slices.Clone(d.open) {
		switch {
		case now.After(e.Until.Add(grace)):
			d.end(e, "its time is over")
		case now.After(e.HeardAt.Add(lost)):
			e.lost = true
			d.end(e, "whoever asked is not heard any more")
		}
	}
}

func (d *Desk) end(e *entry, how string) {
	if !e.Taken {
		close(e.settled)
	}
	e.State, e.End, e.EndedAt = Over, how, time.Now()
	d.open = slices.DeleteFunc(d.open, func(other *entry) bool { return other == e })
	if len(d.ended) == maxEnded {
		d.ended = slices.Delete(d.ended, 0, 1)
	}
	d.ended = append(d.ended, e)
	d.tell(e.Record)
}
