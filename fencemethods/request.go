// SPDX-License-Identifier: GPL-2.0-only

package fencemethods

import (
	"context"
	"sync"
	"time"
)

// A Request says which request of the kernel's an operation serves. Equal ones are the same attempt
// at the same life of a node.
type Request struct {
	Number      uint64 // counts the requests of this machine's kernel
	Incarnation uint64 // the life of the node that is to end; 0: whoever asked did not say, as by hand
	Attempt     uint32 // counts from 1 within its request

	Silent time.Time // when the node was found silent; zero: it was not, as where it is fenced by hand
	Reason Text      // why it was made, for people
	Note   *Note     // see Vouch; nil: nobody reads it
}

// A Text is up to 255 bytes for people, in place: to keep one allocates nothing. Texts are comparable.
type Text struct {
	size  uint8
	bytes [255]byte
}

// Set makes it a copy of b, or of as much as there is room for.
func (t *Text) Set(b []byte) {
	*t = Text{}
	t.size = uint8(copy(t.bytes[:], b))
}

// Bytes alias t.
func (t *Text) Bytes() []byte { return t.bytes[:t.size] }

// String allocates.
func (t Text) String() string { return string(t.bytes[:t.size]) }

// A Note is what a fence that succeeded leaves in the kernel's history. Any goroutine may use it.
type Note struct {
	mu   sync.Mutex
	text string
}

// Take returns what was noted since the last time, and forgets it.
func (n *Note) Take() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := n.text
	n.text = ""
	return text
}

func (n *Note) add(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.text != "" {
		text = n.text + "; " + text
	}
	n.text = text
}

// Vouch is for methods whose success rests on somebody's word, not on a reading: it notes who gives
// it and why, for the history, which has nothing to say of a success otherwise. It does nothing where
// the operation serves no request.
func Vouch(ctx context.Context, who string) {
	if r, ok := RequestOf(ctx); ok && r.Note != nil {
		r.Note.add(who)
	}
}

// requestKey is for Value of a context. Whoever keeps a Request beside other things answers to it
// with a pointer, which costs nothing.
type requestKey struct{}

// RequestOf returns the request that the operation with this context serves. There is none where
// nobody's death is asked for: Check, Status, On, and what an administrator's tool does by itself.
// It allocates nothing.
func RequestOf(ctx context.Context) (Request, bool) {
	r, ok := ctx.Value(requestKey{}).(*Request)
	if !ok || r == nil {
		return Request{}, false
	}
	return *r, true
}

// WithRequest returns a context for an operation that serves r.
func WithRequest(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, &r)
}

// IsRequestKey tells whether a context's Value is asked for a *Request, which need not live longer
// than the operation. It is for contexts that are made once and used again and again, where
// WithRequest would allocate.
func IsRequestKey(key any) bool {
	_, ok := key.(requestKey)
	return ok
}
