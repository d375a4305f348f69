// SPDX-License-Identifier: GPL-2.0-only

package ifmib

import (
	"strconv"
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// What Debian's agent makes of the same switch, for docs/conformance.md. It finds a port by its
// number, which is what it is surest with.
func TestDebiansAgent(t *testing.T) {
	numbers := map[string]string{"port7": "1007", "port9999": "9999"}
	for i := range portsOfASwitch {
		numbers[crowdPort(i)] = strconv.Itoa(crowdPorts - i)
	}
	p := fencetest.Program{
		Name: "fence_ifmib", Args: []string{"fence_ifmib"},
		Input: func(v fencemethods.Values) map[string]string {
			return map[string]string{
				"ip": v["addr"], "ipport": v["port"], "snmp_version": v["version"], "plug": numbers[v["interface"]],
				"community": fencetest.Text(v, "community_file"),
			}
		},
	}
	fencetest.Theirs(t, p.Name)
	fencetest.Run(t, fencetest.Harness{
		Method: p.Method(Method()), Peer: "snmpd as a switch, version 2c",
		Start: start(false), Together: together(false), Crowd: crowd, Theirs: true, Slow: true,
	})
}
