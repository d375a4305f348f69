// SPDX-License-Identifier: GPL-2.0-only

package ask

import (
	"strconv"
	"testing"

	"github.com/o2fence/o2fence/fencemethods/ask/desk"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc/wire"
)

// Each machine has an administrator who powers it off, looks, and confirms what he has seen.
func TestOffIsProven(t *testing.T) {
	const noReading = "nobody reads the node's power: who is asked and sees it on does not answer, which is a timeout"
	fencetest.Run(t, fencetest.Harness{
		Method: Method(), Peer: "the listener, and a robot that looks before it confirms",
		Start: startPeer, Together: startCrowd, Crowd: "questions on one admin machine",
		Skip: map[string]string{
			"off and on again":                 "an administrator is neither asked to power a node on, nor whether it is",
			"half-dead, commands ignored":      noReading + "; see \"deadline is kept\"",
			"comes back on before it was read": noReading,
			"half-dead, state stale":           noReading,
			"old answers played again":         noReading + "; see TestOldAnswersDoNotCount",
			"a stranger says off":              noReading + "; see TestOldAnswersDoNotCount, TestAnAnswerToAnythingElseNeverCounts",
		},
	})
}

// startCrowd is one admin machine that is asked about all.
func startCrowd(t *testing.T, machines []*fencetest.Machine) (peers []fencetest.Peer) {
	t.Helper()
	look := map[string]func(*admin, desk.Record){}
	for _, m := range machines {
		look[m.Target().Name] = diligent(m)
	}
	a := startAdmin(t, "127.0.0.1:0", func(a *admin, r desk.Record) { look[r.Node](a, r) })
	for range machines {
		peers = append(peers, fencetest.Peer{Params: params(t, a.port())})
	}
	return peers
}

func startPeer(t *testing.T, m *fencetest.Machine) fencetest.Peer {
	t.Helper()
	a := startAdmin(t, "127.0.0.1:0", diligent(m))
	w, err := wire.New(a.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return fencetest.Peer{
		Params: params(t, int(w.Addr().Port())), Secret: testKey,
		Wrong:    map[string]map[string]string{"another key": {"key_file": fencetest.SecretFile(t, otherKey)}},
		Absent:   map[string]string{"addrs": "127.0.0.9", "port": strconv.Itoa(9)},
		SetFault: w.SetFault,
		Restart:  a.restart,
	}
}
