// SPDX-License-Identifier: GPL-2.0-only

package fencemethods

import (
	"context"
	"strings"
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

func TestWhoVouchesIsNotedWithTheRequest(t *testing.T) {
	Vouch(t.Context(), "nobody reads it")
	note := new(Note)
	ctx, cancel := context.WithTimeout(WithRequest(t.Context(), Request{Number: 7, Note: note}), time.Minute)
	defer cancel()
	Vouch(ctx, "ann: pulled one cord")
	Vouch(ctx, "ben: pulled the other")
	if got := note.Take(); got != "ann: pulled one cord; ben: pulled the other" {
		t.Errorf("noted %q", got)
	}
	if got := note.Take(); got != "" {
		t.Errorf("still there: %q", got)
	}
}

func TestATextIsACopyAndIsCutToItsRoom(t *testing.T) {
	var a, b Text
	in := []byte(strings.Repeat("x", 300))
	a.Set(in)
	in[0] = 'y'
	if a.String() != strings.Repeat("x", 255) {
		t.Errorf("%q", a)
	}
	a.Set([]byte("missed 5"))
	b.Set([]byte("missed 5"))
	if a != b || string(a.Bytes()) != "missed 5" {
		t.Errorf("%q and %q", a, b)
	}
}
