// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/bridge/uapi"
)

// An Incarnation is one life of a node: the generation of its heartbeat, as the disk slot has it.
// Zero means that whoever asked for the fence did not know it.
type Incarnation uint64

// String has the 16 hexadecimal digits that OCFS2's own tools print.
func (i Incarnation) String() string { return fmt.Sprintf("%016x", uint64(i)) }

// MarshalText makes it a string in JSON, whose numbers cannot hold 64 bits everywhere.
func (i Incarnation) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// Rules say when the kernel takes a silent node for dead.
type Rules struct {
	Missed       uint32 `json:"missed"`         // heartbeats, 2..1000 (R24)
	PeriodMS     uint32 `json:"period_ms"`      // 100..60000 (R24)
	GateMS       uint32 `json:"gate_ms"`        // 0..60000, 0 is no gate
	FenceDelayMS uint32 `json:"fence_delay_ms"` // 0..600000 (R25)
}

// A Cluster is what Join takes (R4). The kernel knows it by its name and its nodes.
type Cluster struct {
	Name     string
	ThisNode uint32 // this machine's number, 0..254: the kernel is told of all nodes but this one
	Rules    Rules  // for the regions
	Nodes    []Node
}

// Others are the nodes that this one may have to fence.
func (c Cluster) Others() []Node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n Node) bool { return n.Number == c.ThisNode })
}

// A Node is what Join takes, and what Nodes shows.
type Node struct {
	Cluster string `json:"cluster"` // not for Join
	Number  uint32 `json:"node"`    // 0..254

	// Name is not told to the kernel, which knows nodes by their numbers: errors of Join use it.
	Name string `json:"name,omitempty"`

	Steps []Step   `json:"steps"`                  // at most 8, the last of which runs in the kernel
	Last  *Request `json:"last_request,omitempty"` // under way or ended, nil for none; not for Join
}

// A Step is one method of a node, in the order of the attempts.
type Step struct {
	Method    string `json:"method"`
	TimeoutMS uint32 `json:"timeout_ms"` // of one attempt, 1..86400000
	Params    []byte `json:"-"`          // at most 1024 bytes without a NUL, opaque; never shown
}

// String leaves out the parameters, which may hold secrets.
func (s Step) String() string { return fmt.Sprintf("%s (%d ms)", s.Method, s.TimeoutMS) }

// A Method is registered by a kernel module, or carried by a bridge.
type Method struct {
	Name   string `json:"method"`
	Module string `json:"module"` // o2fence itself for those of a bridge
	PortID uint32 `json:"portid"` // the bridge's socket; 0 for a module's, and when the bridge is gone
}

// Carried tells whether it can be used now: the kernel also remembers the methods of bridges that are gone.
func (m Method) Carried() bool { return m.PortID != 0 || m.Module != uapi.GenlName }

// Carries tells whether one of that name is among them and can be used now.
func Carries(methods []Method, name string) bool {
	return slices.ContainsFunc(methods, func(m Method) bool { return m.Name == name && m.Carried() })
}

// A Region is a heartbeat region of OCFS2 on a shared disk.
type Region struct {
	Cluster    string `json:"cluster"`
	UUID       string `json:"region"`      // as in configfs
	StartBlock uint64 `json:"-"`           // in blocks; not shown
	BlockBytes uint32 `json:"block_bytes"` // 512..4096
	Blocks     uint32 `json:"blocks"`      // 1..255, one for each node
	Nodes      uint32 `json:"nodes"`       // that have to have joined, without this one
	Rules
	Live   []uint32 `json:"live"`   // nodes that live here; not for RegionAdd
	Silent []uint32 `json:"silent"` // nodes that have missed their heartbeats; the same
}

// A Request is one fence of one node, with what is known of its last attempt.
type Request struct {
	Cluster     string        `json:"cluster"`
	Node        uint32        `json:"node"`
	Incarnation Incarnation   `json:"incarnation"`
	ID          uint64        `json:"request"` // never reused while the module is loaded
	Attempt     uint32        `json:"attempt"` // counts from 1
	State       uapi.Event    `json:"state"`   // its last step
	Method      string        `json:"method"`
	Errno       syscall.Errno `json:"errno"` // 0, or why the attempt failed
	Errmsg      string        `json:"errmsg"`
	Reason      string        `json:"reason"` // by whom or why it was made

	At map[uapi.Event]time.Time `json:"at"` // when each step happened last
}

// An Event is one step of a request, or the news that steps were lost.
type Event struct {
	// Lost says that events could not be delivered before this one, because their reader was too
	// slow. One that the kernel had no memory for is lost without a word. How many is not known;
	// Requests and Nodes show what has become of all. Nothing else is set.
	Lost bool `json:"lost,omitempty"`

	Event   uapi.Event `json:"event,omitempty"`
	Request Request    `json:"request,omitzero"`
}
