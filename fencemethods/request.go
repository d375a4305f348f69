// SPDX-License-Identifier: GPL-2.0-only

package fencemethods

import "context"

// A Request says which request of the kernel's an operation serves. Equal ones are the same attempt
// at the same life of a node. Why it was made the kernel does not tell a bridge.
type Request struct {
	Number      uint64 // counts the requests of this machine's kernel
	Incarnation uint64 // the life of the node that is to end; 0: whoever asked did not say, as by hand
	Attempt     uint32 // counts from 1 within its request
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
