// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import (
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc"
)

// What Debian's agent makes of the same BMCs, for docs/conformance.md.
func TestDebiansAgent(t *testing.T) {
	p := fencetest.Program{
		Name: "fence_ipmilan", Args: []string{"fence_ipmilan"},
		Input: func(v fencemethods.Values) map[string]string {
			return map[string]string{
				"ip": v["addr"], "ipport": v["port"], "username": v["user"], "lanplus": "1", "cipher": "3",
				"password": fencetest.Text(v, "password_file"),
			}
		},
	}
	fencetest.Theirs(t, p.Name)
	fencetest.Run(t, fencetest.Harness{
		Method: p.Method(Method()), Peer: "ipmi_sim", Crowd: "ipmi_sims", Start: start(bmc.Start), Theirs: true, Slow: true,
	})
}
