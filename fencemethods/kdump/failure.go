// SPDX-License-Identifier: GPL-2.0-only

package kdump

import "github.com/o2fence/o2fence/fencemethods"

// A failure is an error without the names that fencemethods adds.
type failure = fencemethods.Error

var (
	failSilent = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "no word from a kdump kernel",
		Advice: "none is due where the node did not crash; else check addrs, port, and fence_kdump_nodes in the node's kdump.conf",
	}
	failUnconfirmed = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "a kdump kernel has spoken, but too late to see whether the node stays silent",
		Advice: "allow more time than confirm_ms",
	}
	failUnproven = &failure{
		Kind: fencemethods.ErrTimeout, Detail: "a kdump kernel has spoken, but does not answer",
		Advice: "check the way back to it, and its sender",
	}
	failKey = &failure{
		Kind: fencemethods.ErrAuth, Detail: "what came from the node's address has another seal",
		Advice: "check that key_file, cluster and node number are those in the node's kdump image",
	}
	failPlain = &failure{
		Kind: fencemethods.ErrAuth, Detail: "only messages without a seal came, which anybody can send",
		Advice: "have the node's kdump image send sealed ones, or set plain = yes instead of key_file",
	}
	failByHand = &failure{
		Kind:   fencemethods.ErrUnsupported,
		Detail: "a plain message proves nothing where the kernel saw no silence, as in a fence ordered by hand",
		Advice: "use key_file, or have another method behind this one",
	}
	failTaken = &failure{
		Kind: fencemethods.ErrBusy, Detail: "another process has the port",
		Advice: "stop fence_kdump or what it is, and restart o2fenced",
	}
	failNotServed = &failure{
		Kind: fencemethods.ErrUnreachable, Detail: "no o2fence listens on the port for this node",
		Advice: "start o2fenced, or restart it with this configuration",
	}
	failNoWay = &failure{
		Kind: fencemethods.ErrUnsupported, Detail: "a listener cannot switch a node on",
		Advice: "the node restarts by itself when its dump is written",
	}
)
