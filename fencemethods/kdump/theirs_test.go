// SPDX-License-Identifier: GPL-2.0-only

package kdump

import (
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// What Debian's agent makes of the same senders, for docs/conformance.md. Like ours it is asked for
// all nodes at one port, and for one after another, where it is not about many.
func TestDebiansAgent(t *testing.T) {
	p := fencetest.Program{
		Name: "fence_kdump", Args: []string{"fence_kdump", "-f", "ipv4", "-t", "20"},
		Line: func(action string, v fencemethods.Values) []string {
			return []string{"-o", action, "-n", v["addrs"], "-p", v["port"]}
		},
	}
	fencetest.Theirs(t, p.Name)
	c, port, skip := new(crashes), freePort(t), skip()
	skip["check changes nothing"] = "its monitor looks whether this very machine would dump, and asks nobody"
	fencetest.Run(t, fencetest.Harness{
		Method: c.method(p.Method(Method())), Peer: "an own sender, fence_kdump's messages", Crowd: crowd,
		Skip: skip, Theirs: true, Slow: true, Serial: true,
		Start: c.start(port, true, func(*testing.T) map[string]string { return plainParams(port) }),
	})
}
