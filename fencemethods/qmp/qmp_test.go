// SPDX-License-Identifier: GPL-2.0-only

package qmp

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc/wire"
)

// TestMain lets many cases wait at the same time: most of them do nothing else.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	m.Run()
}

func TestOffIsProvenOverTCP(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{Method: Method(), Peer: "an own monitor, TCP", Start: start("tcp4"), Crowd: "of the tests' own monitors"})
}

func TestOffIsProvenOverAUnixSocket(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{
		Method: Method(), Peer: "an own monitor, Unix socket", Together: startQEMUs, Crowd: "QEMUs",
		Start: func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
			q := startMonitor(t, "unix", m)
			return fencetest.Peer{
				Params:  params(q.addr),
				Absent:  map[string]string{"monitor": filepath.Join(t.TempDir(), "none")},
				Restart: q.restart,
				Foreign: foreign,
				Stream:  true,
			}
		},
	})
}

// startQEMUs has each machine be a virtual one. It obeys at once, whatever the machine's manners are.
func startQEMUs(t *testing.T, machines []*fencetest.Machine) (peers []fencetest.Peer) {
	t.Helper()
	for _, m := range machines {
		id := fmt.Sprintf("123e4567-e89b-12d3-a456-%012d", m.Node())
		q := startQEMU(t, "unix", sleeper, "-uuid", id)
		p := params(q.addr)
		p["uuid"] = id
		peers = append(peers, fencetest.Peer{Params: p, Running: func() bool { return q.status().Running }})
	}
	return peers
}

// start makes a harness of a monitor with a wire before it.
func start(network string) func(*testing.T, *fencetest.Machine) fencetest.Peer {
	return func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
		q := startMonitor(t, network, m)
		w, err := wire.NewLines(network, q.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		return fencetest.Peer{
			Params:   params(fmt.Sprint("127.0.0.1:", w.Port())),
			Absent:   map[string]string{"monitor": fmt.Sprint("127.0.0.1:", fencetest.ClosedPort(t, "tcp4"))},
			SetFault: w.SetFault,
			Restart:  q.restart,
			Foreign:  foreign,
			Stream:   true,
		}
	}
}

// foreign are servers that are no monitor, and the monitor of another machine.
func foreign(t testing.TB) map[string]map[string]string {
	return map[string]map[string]string{
		"an echo":         {"monitor": "127.0.0.1:" + fencetest.Echo(t, "tcp4")},
		"another machine": {"uuid": "123e4567-e89b-12d3-a456-426614174000"},
	}
}

func params(monitor string) map[string]string {
	return map[string]string{"monitor": monitor, "retry_ms": "200"}
}

func TestBadParametersAreRefused(t *testing.T) {
	for _, c := range []struct{ key, value, text string }{
		{"monitor", "qmp.sock", "absolute path of a socket nor IP:PORT"},
		{"monitor", "host.example.com:4444", "names are not looked up"},
		{"monitor", "192.0.2.1:0", "IP:PORT"},
		{"monitor", "[fe80::1%eth0]:4444", "IP:PORT"},
		{"monitor", "/" + strings.Repeat("x", maxSocket), "107 bytes"},
		{"uuid", "1", "is not a UUID"},
		{"uuid", "00000000-0000-0000-0000-000000000000", "without -uuid"},
		{"uuid", "123e4567-e89b-12d3-a456-42661417400g", "is not a UUID"},
		{"retry_ms", "99", "whole number from 100 to 60000"},
		{"socket", "/run/x", "unknown parameter"},
	} {
		p := params("/run/qemu/web1.qmp")
		p[c.key] = c.value
		_, err := Method().Parse(p)
		e, ok := errors.AsType[*fencemethods.ParamError](err)
		if !ok || e.Key != c.key || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
	}
}
