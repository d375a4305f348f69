// SPDX-License-Identifier: GPL-2.0-only

package uapi

import (
	"fmt"
	"strings"
)

// Type is the form of an attribute's payload.
type Type string

// The forms, named as docs/netlink/o2fence.yaml names them. Integers are in host byte order.
const (
	TypeUnused Type = "unused"
	TypeU32    Type = "u32"
	TypeU64    Type = "u64"
	TypeString Type = "string"
	TypeBinary Type = "binary"
	TypePad    Type = "pad"
)

var attrs = [...]struct {
	name string
	typ  Type
}{
	AttrUnspec:       {"unspec", TypeUnused},
	AttrCluster:      {"cluster", TypeString},
	AttrMissed:       {"missed", TypeU32},
	AttrPeriodMS:     {"period ms", TypeU32},
	AttrGateMS:       {"gate ms", TypeU32},
	AttrFenceDelayMS: {"fence delay ms", TypeU32},
	AttrNodes:        {"nodes", TypeU32},
	AttrNode:         {"node", TypeU32},
	AttrMethod:       {"method", TypeString},
	AttrTimeoutMS:    {"timeout ms", TypeU32},
	AttrParams:       {"params", TypeString},
	AttrModule:       {"module", TypeString},
	AttrPortID:       {"portid", TypeU32},
	AttrRegion:       {"region", TypeString},
	AttrFD:           {"fd", TypeU32},
	AttrStartBlock:   {"start block", TypeU64},
	AttrBlockBytes:   {"block bytes", TypeU32},
	AttrBlocks:       {"blocks", TypeU32},
	AttrLive:         {"live", TypeU32},
	AttrSilent:       {"silent", TypeU32},
	AttrIncarnation:  {"incarnation", TypeU64},
	AttrRequest:      {"request", TypeU64},
	AttrAttempt:      {"attempt", TypeU32},
	AttrErrno:        {"errno", TypeU32},
	AttrErrmsg:       {"errmsg", TypeString},
	AttrReason:       {"reason", TypeString},
	AttrState:        {"state", TypeU32},
	AttrEvent:        {"event", TypeU32},
	AttrAt:           {"at", TypeBinary},
	AttrPad:          {"pad", TypePad},
}

var cmds = [...]string{
	CmdUnspec:         "unspec",
	CmdNodeAdd:        "node add",
	CmdLeave:          "leave",
	CmdFence:          "fence",
	CmdRegionAdd:      "region add",
	CmdRegionDel:      "region del",
	CmdMemalloc:       "memalloc",
	CmdMemallocSocket: "memalloc socket",
	CmdBind:           "bind",
	CmdInitiate:       "initiate",
	CmdCancel:         "cancel",
	CmdFenced:         "fenced",
	CmdNodeGet:        "node get",
	CmdMethodGet:      "method get",
	CmdRegionGet:      "region get",
	CmdRequestGet:     "request get",
	CmdEvent:          "event",
}

var events = [...]string{
	EventUnspec:        "unspec",
	EventStarted:       "started",
	EventInitiated:     "initiated",
	EventAttemptFailed: "attempt failed",
	EventFenced:        "fenced",
	EventNotice:        "notice",
	EventFailed:        "failed",
	EventObsolete:      "obsolete",
	EventRefused:       "refused",
	EventSilent:        "silent",
	EventNotOurs:       "not ours",
	EventGateHeld:      "gate held",
	EventGateReleased:  "gate released",
	EventGateExpired:   "gate expired",
}

// Type is the form of a's payload, TypeUnused for an attribute that is newer than this package.
func (a Attr) Type() Type {
	if int(a) >= len(attrs) {
		return TypeUnused
	}
	return attrs[a].typ
}

// String is the specification's name in lower-case words, such as "period ms".
func (a Attr) String() string {
	if int(a) >= len(attrs) {
		return fmt.Sprintf("attribute %d", uint16(a))
	}
	return attrs[a].name
}

// String is the specification's name in lower-case words, such as "region add".
func (c Cmd) String() string { return word(cmds[:], "command", uint32(c)) }

// String is the specification's name in lower-case words, such as "attempt failed".
func (e Event) String() string { return word(events[:], "event", uint32(e)) }

// MarshalText makes the event a string or a key in JSON, such as "attempt_failed".
func (e Event) MarshalText() ([]byte, error) {
	return []byte(strings.ReplaceAll(e.String(), " ", "_")), nil
}

// A newer kernel may send what this package does not know; that is shown by its number.
func word(names []string, what string, n uint32) string {
	if n >= uint32(len(names)) {
		return fmt.Sprintf("%s %d", what, n)
	}
	return names[n]
}
