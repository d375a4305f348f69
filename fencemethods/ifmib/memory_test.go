// SPDX-License-Identifier: GPL-2.0-only

package ifmib

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

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
	fmt.Println(a.Addr().Port())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// The worst case is a switch with many ports that does not obey, by version 1, which tells of one
// port at a time.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveVar+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	var port int
	if _, err := fmt.Fscan(stdout, &port); err != nil {
		t.Fatal(err)
	}
	params := where(port, "stubborn")
	params["version"], params["community_file"], params["retry_ms"] = "1", secretFile(t, community), "5000"
	d := open(t, params)

	allocated := func(f func(context.Context) error, limit time.Duration) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = f(within(t, limit))
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	walk := allocated(d.Check, 30*time.Second)
	const seconds = 6
	perMinute := walk + allocated(d.Off, seconds*time.Second)*60/seconds
	t.Logf("%d KiB to find the port, %d KiB a minute", walk>>10, perMinute>>10)
	if budget := uint64(Method().MemoryKiB) << 10; perMinute > budget {
		t.Errorf("%d bytes a minute, more than the %d of MemoryKiB", perMinute, budget)
	}
}
