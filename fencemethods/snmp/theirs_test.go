// SPDX-License-Identifier: GPL-2.0-only

package snmp

import (
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// What Debian's agent makes of the same power strip, for docs/conformance.md.
func TestDebiansAgent(t *testing.T) {
	p := fencetest.Program{
		Name: "fence_apc_snmp", Args: []string{"fence_apc_snmp"},
		Input: func(v fencemethods.Values) map[string]string {
			return map[string]string{
				"ip": v["addr"], "ipport": v["port"], "snmp_version": v["version"], "plug": v["outlets"],
				"community": fencetest.Text(v, "community_file"),
			}
		},
	}
	fencetest.Theirs(t, p.Name)
	fencetest.Run(t, fencetest.Harness{
		Method: p.Method(Method()), Peer: "snmpd as an APC rPDU, version 2c",
		Start: start("apc-rpdu", byCommunity("2c")), Theirs: true, Slow: true,
		Together: strips("apc-rpdu", byCommunity("2c")), Crowd: crowd,
	})
}
