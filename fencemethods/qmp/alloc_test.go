// SPDX-License-Identifier: GPL-2.0-only

package qmp

import (
	"context"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// The dearest thing to do for a minute is to ask again and again.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	q := startQEMU(t, "unix", writer)
	q.migrate()
	fencetest.WithinBudget(t, Method(), 0, 5*time.Second, q.open(nil).Off)
}

// BenchmarkOffAndOn is a whole fence of a machine that runs, and its way back.
func BenchmarkOffAndOn(b *testing.B) {
	q := startQEMU(b, "unix", writer)
	d, err := Method().Open(fencemethods.Target{Name: "node1"}, params(q.addr))
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Off(ctx); err != nil {
			b.Fatal(err)
		}
		if err := d.On(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
