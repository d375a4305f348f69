// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import (
	"context"
	"flag"
	"log"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc"
	"github.com/o2fence/o2fence/test/bmc/wire"
	"github.com/o2fence/o2fence/test/snmpd"
)

const (
	testUser     = "admin"
	testPassword = "s3cretPassw0rd"
)

// TestMain lets many cases wait at the same time: most of them do nothing else.
func TestMain(m *testing.M) {
	if dir := os.Getenv(serveVar); dir != "" {
		if err := serveBMC(dir); err != nil {
			log.Fatal(err)
		}
		return
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	m.Run()
}

// A starter starts one of the BMC servers.
type starter func(ctx context.Context, dir string, c bmc.Config) (*bmc.BMC, error)

func TestOffIsProvenAgainstOpenIPMI(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{Method: Method(), Peer: "ipmi_sim", Crowd: "ipmi_sims", Start: start(bmc.Start)})
}

func TestOffIsProvenAgainstGoIPMI(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{Method: Method(), Peer: "go-ipmi", Crowd: "of go-ipmi's servers", Start: start(goIPMI(t))})
}

// goIPMI builds go-ipmi's server.
func goIPMI(t *testing.T) starter {
	t.Helper()
	program, err := bmc.BuildGoIPMI(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, dir string, c bmc.Config) (*bmc.BMC, error) {
		return bmc.StartGoIPMI(ctx, dir, program, c)
	}
}

// Pyghmi's server leaves who asks for an unknown user without an answer.
func TestOffIsProvenAgainstPyghmi(t *testing.T) {
	withWire := start(bmc.StartPyghmi)
	fencetest.Run(t, fencetest.Harness{
		Method: Method(), Peer: "pyghmi", Crowd: "of pyghmi's servers",
		Many: 3, Fewer: "each is a Python program of its own, and the others show it",
		Start: func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
			p := withWire(t, m)
			delete(p.Wrong, "unknown user")
			return p
		},
	})
}

// start makes a harness of a BMC server with a wire before it.
func start(server starter) func(*testing.T, *fencetest.Machine) fencetest.Peer {
	return func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
		b := startBMC(t, server, bmc.Config{Power: m})
		w, err := wire.New(b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		return fencetest.Peer{
			Params: params(t, int(w.Addr().Port())),
			Secret: testPassword,
			Wrong: map[string]map[string]string{
				"wrong password": {"password_file": fencetest.SecretFile(t, "notThePassword")},
				"unknown user":   {"user": "nobody"},
			},
			Absent:   map[string]string{"port": strconv.Itoa(fencetest.ClosedPort(t, "udp4"))},
			SetFault: w.SetFault,
			Restart:  func() error { return b.Restart(t.Context()) },
			Foreign:  foreign,
		}
	}
}

// foreign are servers that are no BMC.
func foreign(t testing.TB) map[string]map[string]string {
	a, err := snmpd.Start(t.Context(), t.TempDir(), snmpd.Config{Community: "public"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return map[string]map[string]string{
		"an SNMP agent": {"port": strconv.Itoa(int(a.Addr().Port()))},
		"an echo":       {"port": fencetest.Echo(t, "udp4")},
	}
}

func startBMC(t testing.TB, server starter, c bmc.Config) *bmc.BMC {
	t.Helper()
	c.User, c.Password = testUser, testPassword
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b, err := server(ctx, t.TempDir(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func params(t testing.TB, port int) map[string]string {
	return map[string]string{
		"addr": "127.0.0.1", "port": strconv.Itoa(port), "user": testUser,
		"password_file": fencetest.SecretFile(t, testPassword), "retry_ms": "50",
	}
}
