// SPDX-License-Identifier: GPL-2.0-only

package redfish

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/redfishd"
)

// serveVar makes this test binary a BMC, with these habits, for another one whose allocations are
// counted: what its server allocates must not be counted too.
const serveVar = "O2FENCE_TEST_SERVE_REDFISH"

// serveBMC runs a BMC, says where on standard output, and ends with its standard input.
func serveBMC() {
	c := redfishd.Config{User: testUser, Password: testPassword, Power: new(fencetest.Machine)}
	if err := json.Unmarshal([]byte(os.Getenv(serveVar)), &c.Habits); err != nil {
		log.Fatal(err)
	}
	s, err := redfishd.Start(c)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	fencetest.ServeUntilTheEnd(s.Addr().Port(), s.Fingerprint())
}

// openApart returns a device whose BMC is served by another process.
func openApart(t testing.TB, h redfishd.Habits, auth string) fencemethods.Device {
	t.Helper()
	habits, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var port, fingerprint string
	fencetest.Apart(t, serveVar+"="+string(habits), nil, &port, &fingerprint)
	d, err := Method().Open(fencemethods.Target{Name: "node1"}, map[string]string{
		"addr": "127.0.0.1", "port": port, "system": redfishd.System, "auth": auth,
		"user": testUser, "password_file": fencetest.SecretFile(t, testPassword), "certificate": fingerprint,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// The dearest things to do for a minute: a connection for each attempt, and reading a power state
// that does not change.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	for name, c := range map[string]struct {
		habits redfishd.Habits
		auth   string
		time   time.Duration // the pauses grow, so that a short time would count for too much
	}{
		"power stays on":           {redfishd.Habits{State: `"On"`, Length: 30000}, "basic", 6 * time.Second},
		"declined again and again": {redfishd.Habits{State: "null", Decline: 503}, "session", 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			d := openApart(t, c.habits, c.auth)
			ctx, cancel := context.WithTimeout(t.Context(), c.time)
			defer cancel()
			_, _ = d.Status(ctx) // package json learns our types once
			fencetest.WithinBudget(t, Method(), 0, c.time, d.Off)
		})
	}
}

func offThenOn(ctx context.Context, t testing.TB, d fencemethods.Device) {
	if err := d.Off(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.On(ctx); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkOffAndOn is a whole fence of a node that is on, and its way back: two connections, two
// commands, four readings of the power.
func BenchmarkOffAndOn(b *testing.B) {
	for _, auth := range []string{"basic", "session"} {
		b.Run(auth, func(b *testing.B) {
			d := openApart(b, redfishd.Habits{}, auth)
			ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
			defer cancel()
			offThenOn(ctx, b, d)
			b.ReportAllocs()
			for b.Loop() {
				offThenOn(ctx, b, d)
			}
		})
	}
}
