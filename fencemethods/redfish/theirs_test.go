// SPDX-License-Identifier: GPL-2.0-only

package redfish

import (
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/redfishd"
)

// What Debian's agent makes of the same BMC, for docs/conformance.md. A certificate of the BMC's own
// it can take or leave, but not know, so that these cases are not asked of it.
func TestDebiansAgent(t *testing.T) {
	p := fencetest.Program{
		Name: "fence_redfish", Args: []string{"fence_redfish"},
		Input: func(v fencemethods.Values) map[string]string {
			return map[string]string{
				"ip": v["addr"], "ipport": v["port"], "username": v["user"], "ssl_insecure": "1",
				"systems_uri": v["system"], "password": fencetest.Text(v, "password_file"),
			}
		},
	}
	fencetest.Theirs(t, p.Name)
	ours := start(redfishd.Habits{}, nil)
	fencetest.Run(t, fencetest.Harness{
		Method: p.Method(Method()), Peer: "an own server, Basic", Crowd: "servers", Theirs: true, Slow: true,
		Start: func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
			peer := ours(t, m)
			delete(peer.Wrong, "other certificate")
			delete(peer.Wrong, "other CA")
			return peer
		},
	})
}
