// SPDX-License-Identifier: GPL-2.0-only

// Package wire is what the measuring process of the pressure tests and the host say to each other:
// one JSON value in a UDP datagram each way. It is not the machine's serial port, because the process
// at that end waits for memory like all others.
package wire

import "time"

// A Report is what the machine tells. It is sent until a Reply of its number comes.
type Report struct {
	Seq    int
	Sample *Sample `json:",omitempty"` // how short memory is
	Stack  string  `json:",omitempty"` // where one of the tasks waits that are stuck
	Power  string  `json:",omitempty"` // switch this fencer's machine on
	Fence  *Fence  `json:",omitempty"` // a fence has ended
	Done   string  `json:",omitempty"` // a phase has ended
	Error  string  `json:",omitempty"` // it cannot go on
}

// A Reply acknowledges a report and says what is wanted next.
type Reply struct {
	Seq   int
	Phase string
}

// The phases: nothing is asked for; fences without and with pressure; the process is to end.
const (
	Idle     = "idle"
	Calm     = "calm"
	Pressure = "pressure"
	End      = "end"
)

// The fencers.
const (
	O2fence = "o2fence"
	Plain   = "without the rules"
	Shell   = "shell agent"
	IPMILan = "fence_ipmilan"
)

// A Fence is one that has ended, well or not.
type Fence struct {
	Fencer string
	Phase  string
	Took   time.Duration // from INITIATED to FENCED, or until it was given up
	Device time.Duration // of that, until the BMC had answered; the host adds it
	OK     bool
	Why    string `json:",omitempty"` // it failed
}

// A Sample is the machine's memory at one time. Sizes are in KiB, counts are since boot.
type Sample struct {
	Free, Available, Dirty, Writeback, SwapFree int

	// Reserve is vm.min_free_kbytes: what only those may take who keep the memory rules.
	Reserve int

	// DirtyLimit is what may be dirty before writers are held up.
	DirtyLimit int

	Stalls   int // reclaims by tasks that wanted memory (allocstall)
	OOMKills int

	// Full is for how much of the last 10 s all tasks waited for memory, in percent (PSI).
	Full float64

	Blocked int // tasks that cannot be interrupted (state D)
	// Stuck are those of them that reclaim memory and wait for a lock of the cluster in it.
	Stuck  int
	Kswapd bool // is among the stuck
	Locks  int  // the rest of the blocked that wait for a lock of the cluster
	Who    string
}
