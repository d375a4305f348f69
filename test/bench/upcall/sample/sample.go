// SPDX-License-Identifier: GPL-2.0-only

// Package sample is what the program in the machine tells the benchmark that started it.
package sample

import "time"

// The ways to fence, by the names that they have in the results.
const (
	Kernel    = "kernel"
	Bridge    = "bridge"
	Waiting   = "bridge-50ms" // with a device that takes so long
	Helper    = "usermodehelper"
	Pacemaker = "pacemaker"
	Script    = "pacemaker-script"
)

// A Round is so many nodes fenced at once in one way, one line of JSON.
type Round struct {
	Way    string  `json:"way"`
	Nodes  int     `json:"nodes"`
	Fences []Fence `json:"fences"`

	// Faults is how many page faults the bridge's process took meanwhile.
	Faults int `json:"faults,omitempty"`
}

// A Fence is one of them. Times are in ns, by one clock for all of a Round.
type Fence struct {
	Asked     int64 `json:"asked"`     // for o2fence: its request was made
	Initiated int64 `json:"initiated"` // the method was called; for Pacemaker the same as Asked
	Fenced    int64 `json:"fenced"`    // its answer was there
}

// Span is from the first call of a method until all nodes are fenced.
func (r Round) Span() time.Duration {
	var first, last int64
	for i, f := range r.Fences {
		if i == 0 || f.Initiated < first {
			first = f.Initiated
		}
		last = max(last, f.Fenced)
	}
	return time.Duration(last - first)
}
