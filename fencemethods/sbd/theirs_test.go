// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

const noDeadline = "it has no deadline but msgwait, after which a node that does not obey counts as reset"

// What Debian's sender, and the agent for it, make of the same disks, for docs/conformance.md.
func TestDebiansSender(t *testing.T) {
	p := fencetest.Program{
		Name: "sbd message", Args: []string{"sbd", "-n", "node1"},
		Line: func(action string, v fencemethods.Values) []string {
			return []string{"-d", v["disks"], "message", v["slot"], action}
		},
		Off: "reset",
	}
	fencetest.Theirs(t, "sbd")
	h := harness(t)
	h.Skip["deadline is kept"] = noDeadline
	h.Method, h.Theirs, h.Slow = p.Method(h.Method), true, true
	h.Skip["off and on again"] = "it sends, and reads no state"
	h.Skip["check changes nothing"] = "it sends, and checks nothing"
	fencetest.Run(t, h)
}

func TestDebiansAgent(t *testing.T) {
	p := fencetest.Program{
		Name: "fence_sbd", Args: []string{"fence_sbd"},
		Input: func(v fencemethods.Values) map[string]string {
			return map[string]string{"devices": v["disks"], "plug": v["slot"]}
		},
		Off: "reboot", // which it does when it is told nothing
	}
	fencetest.Theirs(t, p.Name)
	h := harness(t)
	h.Skip["deadline is kept"] = noDeadline
	h.Method, h.Theirs, h.Slow = p.Method(h.Method), true, true
	fencetest.Run(t, h)
}
