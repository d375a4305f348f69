// SPDX-License-Identifier: GPL-2.0-only

// Package uapi mirrors docs/netlink/o2fence.yaml, the generic-netlink protocol between o2fence.ko and
// user space; a test of this package fails when the two disagree. The kernel's side is made of that
// specification.
package uapi

// The family, and the multicast group that its events go to.
const (
	GenlName    = "o2fence"
	GenlVersion = 1
	McgrpEvents = "events"
)

// Limits that the kernel enforces.
const (
	NodesMax  = 255  // node numbers are below it
	NameMax   = 64   // bytes of a cluster, region or method name without its NUL
	TextMax   = 255  // bytes of a reason or an error text without its NUL
	ParamsMax = 1024 // bytes of one method's parameters without their NUL
	StepsMax  = 8    // methods of one node
	History   = 64   // ended requests that the kernel remembers
)

// Cmd is enum o2fence_cmd: what a message is about.
type Cmd uint8

// The commands; the specification says who sends which attributes.
const (
	CmdUnspec Cmd = iota
	CmdNodeAdd
	CmdLeave
	CmdFence
	CmdRegionAdd
	CmdRegionDel
	CmdMemalloc       // puts the calling thread into PF_MEMALLOC mode
	CmdMemallocSocket // what is received on this socket may take from the reserve
	CmdBind           // the calling socket carries a method
	CmdInitiate       // from the kernel: fence this node
	CmdCancel         // from the kernel: the answer is no longer wanted
	CmdFenced         // the answer
	CmdNodeGet
	CmdMethodGet
	CmdRegionGet
	CmdRequestGet
	CmdEvent // from the kernel, to the multicast group
)

// Attr is enum o2fence_attr: one attribute, one fact.
type Attr uint16

// The attributes. Attr.Type gives the form of each.
const (
	AttrUnspec Attr = iota
	AttrMissed
	AttrPeriodMS
	AttrGateMS
	AttrFenceDelayMS
	AttrBlockBytes
	AttrBlocks
	AttrNodes
	AttrFD
	AttrStartBlock
	AttrRegion
	AttrCluster
	AttrNode
	AttrIncarnation
	AttrRequest
	AttrAttempt
	AttrErrno
	AttrErrmsg
	AttrReason
	AttrMethod
	AttrTimeoutMS
	AttrParams
	AttrModule
	AttrPortID
	AttrLive
	AttrSilent
	AttrState
	AttrEvent
	AttrAt
	AttrPad
)

// Event is enum o2fence_event: the steps of a request, and what else is told of nodes. It also
// numbers the times in AttrAt, and is the form of AttrState.
type Event uint32

// The events. EventGateExpired lets recovery go on without proof, as stock OCFS2 does.
const (
	EventUnspec        Event = iota
	EventStarted             // a request was made; the reason says by whom or why
	EventInitiated           // an attempt began; its answer is awaited
	EventAttemptFailed       // the attempt failed
	EventFenced              // the attempt succeeded; the notice is being written
	EventNotice              // the end: every node was told through every region's disk
	EventFailed              // the end: no method of the list could prove it
	EventObsolete            // the end: it needs no fencing any more
	EventRefused             // an answer was refused, stale or foreign
	EventSilent              // a node has missed its heartbeats
	EventNotOurs             // a silent node is another's duty, or this side has no quorum
	EventGateHeld            // o2dlm's recovery waits for the fence
	EventGateReleased        // recovery goes on, for the node is fenced
	EventGateExpired         // recovery goes on without proof, as stock OCFS2 does
)
