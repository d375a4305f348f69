// SPDX-License-Identifier: GPL-2.0-only

package fencemethods

import (
	"context"
	"testing"
	"time"
)

func TestAContextTellsItsRequest(t *testing.T) {
	if r, ok := RequestOf(t.Context()); ok {
		t.Errorf("of none: %+v", r)
	}
	want := Request{Number: 7, Incarnation: 0xabc, Attempt: 2}
	ctx, cancel := context.WithTimeout(WithRequest(t.Context(), want), time.Minute)
	defer cancel()
	if got, ok := RequestOf(ctx); !ok || got != want {
		t.Errorf("%+v, %v; want %+v", got, ok, want)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = RequestOf(ctx) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
