// SPDX-License-Identifier: GPL-2.0-only

package ifmib

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/snmpd"
)

// serveVar makes this test binary a switch for another one, whose allocations are counted: what
// serves the ports must not be counted too.
const serveVar = "O2FENCE_TEST_SERVE_SWITCH"

// serve runs a switch with as many ports as are looked at, the first of which takes orders and stays
// up. It says where on standard output, and ends with its standard input.
func serve(dir string) {
	stubborn := fixed("stubborn", up, up)
	stubborn.set = func(int) error { return nil }
	rows := map[int]*row{1: stubborn}
	for n := range maxRows - 2 {
		rows[2+n] = fixed("port"+strconv.Itoa(n), up, up)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	a, err := snmpd.Start(ctx, dir, snmpd.Config{Community: community, Objects: ports(rows), Without: own()})
	if err != nil {
		panic(err)
	}
	defer a.Close()
	fencetest.ServeUntilTheEnd(a.Addr().Port())
}

// The worst case is a switch with many ports that does not obey, by version 1, which tells of one
// port at a time.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	var port int
	fencetest.Apart(t, serveVar+"="+t.TempDir(), nil, &port)
	params := where(port, "stubborn")
	params["version"], params["community_file"], params["retry_ms"] = "1", fencetest.SecretFile(t, community), "5000"
	d := fencetest.Open(t, Method(), params)
	walk := fencetest.Allocated(func() { _ = d.Check(within(t, 30*time.Second)) }) // to find the port
	fencetest.WithinBudget(t, Method(), walk, 6*time.Second, d.Off)
}
