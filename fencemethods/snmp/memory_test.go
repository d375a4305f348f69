// SPDX-License-Identifier: GPL-2.0-only

package snmp

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/snmpd"
)

// serveVar makes this test binary the server of a power strip for another one, whose allocations are
// counted: what serves the outlets must not be counted too.
const serveVar = "O2FENCE_TEST_SERVE_PDU"

// serve runs a power strip with the users of its one argument, says where on standard output, and
// ends with its standard input. Outlets 1 to 7 obey, outlet 8 does not.
func serve(dir string) {
	var users []snmpd.User
	if err := json.Unmarshal([]byte(os.Args[len(os.Args)-1]), &users); err != nil {
		panic(err)
	}
	kind, _ := findTable("apc-rpdu")
	sockets := map[outlet]power{{1, 8}: &socket{on: true, ignore: 1e9}}
	for n := 1; n < 8; n++ {
		sockets[outlet{1, n}] = &socket{on: true}
	}
	c := pdu(kind, sockets)
	c.Users = users
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	a, err := snmpd.Start(ctx, dir, c)
	if err != nil {
		panic(err)
	}
	defer a.Close()
	fencetest.ServeUntilTheEnd(a.Addr().Port())
}

// openApart opens an outlet of a power strip that another process serves.
func openApart(t testing.TB, version, outlets string) fencemethods.Device {
	t.Helper()
	var c snmpd.Config
	params := byCommunity(version)(t, &c).params
	if version == "3" {
		params = byUser("sha256", "SHA-256", "aes", "AES")(t, &c).params
	}
	users, err := json.Marshal(c.Users)
	if err != nil {
		t.Fatal(err)
	}
	var port int
	fencetest.Apart(t, serveVar+"="+t.TempDir(), []string{string(users)}, &port)
	return fencetest.Open(t, Method(), with(params, where(port, "apc-rpdu", outlets)))
}

// The worst case is a device that answers, and does not obey.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	for _, version := range []string{"2c", "3"} {
		t.Run(version, func(t *testing.T) {
			fencetest.WithinBudget(t, Method(), 0, 6*time.Second, openApart(t, version, "1,2,3,4,5,6,7,8").Off)
		})
	}
}

// BenchmarkOffAndOn is a whole fence of a node that is on, and its way back.
func BenchmarkOffAndOn(b *testing.B) {
	for _, version := range []string{"1", "2c", "3"} {
		b.Run(version, func(b *testing.B) {
			d := openApart(b, version, "3")
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
		})
	}
}
