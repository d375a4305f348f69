// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import (
	"context"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc"
)

// serveVar makes this test binary a BMC for another one, whose allocations are counted: what its
// power server allocates must not be counted too.
const serveVar = "O2FENCE_TEST_SERVE_BMC"

// serveBMC runs ipmi_sim, says where on standard output, and ends with its standard input.
func serveBMC(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	b, err := bmc.Start(ctx, dir, bmc.Config{User: testUser, Password: testPassword, Power: new(fencetest.Machine)})
	if err != nil {
		return err
	}
	defer b.Close()
	fencetest.ServeUntilTheEnd(b.Addr().Port())
	return nil
}

// openApart returns a device whose BMC, ipmi_sim, is served by another process.
func openApart(t testing.TB) fencemethods.Device {
	t.Helper()
	var port int
	fencetest.Apart(t, serveVar+"="+t.TempDir(), nil, &port)
	p := params(t, port)
	delete(p, "retry_ms") // a packet sent again for impatience would allocate
	d, err := Method().Open(fencemethods.Target{Name: "node1"}, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func offThenOn(ctx context.Context, t testing.TB, d fencemethods.Device) {
	if err := d.Off(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.On(ctx); err != nil {
		t.Fatal(err)
	}
}

// An operation allocates its session's AES key schedule, and nothing else.
func TestAFenceAllocatesOneKey(t *testing.T) {
	d := openApart(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if got := testing.AllocsPerRun(20, func() { offThenOn(ctx, t, d) }); got > 2 {
		t.Errorf("Off and On allocated %v times, want one key each", got)
	}
}

// With nothing answering, an operation allocates for every packet that it waited for in vain.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	p := params(t, fencetest.ClosedPort(t, "udp4"))
	d, err := Method().Open(fencemethods.Target{Name: "node1"}, p)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fencetest.WithinBudget(t, Method(), 0, 2*time.Second, d.Off)
}

// BenchmarkOffAndOn is a whole fence of a node that is on, and its way back: two sessions, two
// commands, four readings of the power.
func BenchmarkOffAndOn(b *testing.B) {
	d := openApart(b)
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	offThenOn(ctx, b, d)
	b.ReportAllocs()
	for b.Loop() {
		offThenOn(ctx, b, d)
	}
}
