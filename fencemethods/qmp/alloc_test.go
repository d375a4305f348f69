// SPDX-License-Identifier: GPL-2.0-only

package qmp

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// The dearest thing to do for a minute is to ask again and again.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	q := startQEMU(t, "unix", writer)
	q.migrate()
	d := q.open(nil)
	const seconds = 5
	ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
	defer cancel()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := d.Off(ctx); err == nil {
		t.Error("FALSE SUCCESS")
	}
	runtime.ReadMemStats(&after)
	perMinute := (after.TotalAlloc - before.TotalAlloc) * 60 / seconds
	t.Logf("%d KiB a minute", perMinute>>10)
	if budget := uint64(Method().MemoryKiB) << 10; perMinute > budget {
		t.Errorf("%d bytes a minute, more than the %d of MemoryKiB", perMinute, budget)
	}
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
