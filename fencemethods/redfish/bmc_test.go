// SPDX-License-Identifier: GPL-2.0-only

package redfish

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc/wire"
	"github.com/o2fence/o2fence/test/redfishd"
)

const (
	testUser     = "fence"
	testPassword = `s3cret"Passw0rd\`
)

// TestMain lets many cases wait at the same time: most of them do nothing else.
func TestMain(m *testing.M) {
	if os.Getenv(serveVar) != "" {
		serveBMC()
		return
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	m.Run()
}

func TestOffIsProvenWithBasicAuthentication(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{
		Method: Method(), Peer: "an own server, Basic", Crowd: "servers", Start: start(redfishd.Habits{}, nil),
	})
}

// The password is sent once, and a session that the BMC has forgotten is opened again.
func TestOffIsProvenWithSessions(t *testing.T) {
	habits := redfishd.Habits{NoBasic: true, Slash: true, Whole: true}
	fencetest.Run(t, fencetest.Harness{
		Method: Method(), Peer: "an own server, sessions", Crowd: "servers with sessions",
		Start: start(habits, map[string]string{"auth": "session"}),
	})
}

// start makes a harness of a BMC with a wire before it.
func start(h redfishd.Habits, others map[string]string) func(*testing.T, *fencetest.Machine) fencetest.Peer {
	return func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
		s := startBMC(t, m, h)
		w, err := wire.NewStream("tcp4", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		p := params(t, s)
		p["port"], p["retry_ms"] = strconv.Itoa(w.Port()), "300"
		maps.Copy(p, others)
		return fencetest.Peer{
			Params: p,
			Secret: testPassword,
			Wrong: map[string]map[string]string{
				"wrong password":    {"password_file": fencetest.SecretFile(t, "notThePassword")},
				"unknown user":      {"user": "nobody"},
				"other certificate": {"certificate": startBMC(t, m, redfishd.Habits{}).Fingerprint()},
				"other CA":          {"certificate": fencetest.SecretFile(t, string(startBMC(t, m, redfishd.Habits{}).CA()))},
			},
			Absent:   map[string]string{"port": strconv.Itoa(fencetest.ClosedPort(t, "tcp4"))},
			SetFault: w.SetFault,
			Restart:  s.Restart,
			Nowhere: func(testing.TB) map[string]map[string]string {
				return map[string]map[string]string{"no such system": {"system": redfishd.System + "9"}}
			},
			Foreign: foreign,
			Stream:  true,
			Sealed:  true,
		}
	}
}

// foreign are servers that are no BMC, the certificate of one of which is even known.
func foreign(t testing.TB) map[string]map[string]string {
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "<html>It works!</html>")
	}))
	t.Cleanup(web.Close)
	return map[string]map[string]string{
		"a web server": {
			"port":        strconv.Itoa(web.Listener.Addr().(*net.TCPAddr).Port),
			"certificate": fmt.Sprintf("%x", sha256.Sum256(web.Certificate().Raw)),
		},
		"an echo": {"port": fencetest.Echo(t, "tcp4")},
	}
}

func startBMC(t testing.TB, m *fencetest.Machine, h redfishd.Habits) *redfishd.Server {
	t.Helper()
	s, err := redfishd.Start(redfishd.Config{User: testUser, Password: testPassword, Power: m, Habits: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func params(t testing.TB, s *redfishd.Server) map[string]string {
	return map[string]string{
		"addr": "127.0.0.1", "port": strconv.Itoa(int(s.Addr().Port())), "system": redfishd.System,
		"user": testUser, "password_file": fencetest.SecretFile(t, testPassword), "certificate": s.Fingerprint(),
	}
}

// open opens a device for s, some of whose parameters are others.
func open(t testing.TB, s *redfishd.Server, others map[string]string) fencemethods.Device {
	t.Helper()
	p := params(t, s)
	maps.Copy(p, others)
	return fencetest.Open(t, Method(), p)
}
