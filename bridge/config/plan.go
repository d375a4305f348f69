// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"fmt"
	"slices"
)

// untilTimeout is the other word of "until": each method has its timeout, and the watchdog waits.
const untilTimeout = "timeout"

const (
	heartbeatMS = 2000 // between two heartbeats of OCFS2 (O2HB_REGION_TIMEOUT_MS)
	marginMS    = 500  // that the method watchdog waits for longer (MARGIN_MS)
)

// WatchdogMS is when after the order to fence, in ms, the watchdog is believed: what is left then of the
// silence after which a node has reset itself. It is 0 when a fence for silence begins no earlier.
// That is the configuration's reckoning; the kernel goes by the threshold in the node's own slot.
func (c *Cluster) WatchdogMS() uint32 {
	dead, silent := c.Threshold*heartbeatMS+marginMS, c.Missed*c.PeriodMS
	return dead - min(dead, silent)
}

// EndsMS is when after the order to fence, in ms, each of the node's steps has ended at the latest: the
// worst case, in which every device uses up its time.
func (c *Cluster) EndsMS(n Node) []uint64 {
	var ends []uint64
	now := uint64(0)
	for _, s := range n.Steps {
		wait, err := span{high: maxTimeout}.parse(s.Values["wait"])
		switch {
		case s.Method != Watchdog:
			now += uint64(s.TimeoutMS)
		case err == nil:
			now += uint64(wait)
		default:
			now = max(now, uint64(c.WatchdogMS()))
		}
		ends = append(ends, now)
	}
	return ends
}

// delay has the first method of the bridge begin later. Its time is longer by that, and by the tenth
// that the kernel keeps of every time.
func (f *fenceFile) delay(n *Node, in fields) {
	fixed := in.number("delay_ms", span{high: 600000})
	random := in.number("delay_random_ms", span{high: 600000})
	if fixed+random == 0 {
		return
	}
	line := max(in.byKey["delay_ms"].line, in.byKey["delay_random_ms"].line)
	first := &n.Steps[0]
	more := (uint64(fixed+random)*10 + 8) / 9
	switch {
	case isKernel(*first):
		f.add(line, "node %s: expected a delay only where the first method does not run in the kernel, as %s does", n.Name, first.Method)
	case uint64(first.TimeoutMS)+more > maxTimeout:
		f.add(line, "node %s: expected a delay and a timeout_ms of at most %d ms together", n.Name, maxTimeout)
	default:
		first.DelayMS, first.DelayRandomMS = fixed, random
		first.TimeoutMS += uint32(more)
		first.Params = fmt.Appendf(first.Params, "\ndelay_ms=%d\ndelay_random_ms=%d\n", fixed, random)
		f.fits(*first, line)
	}
}

// until cuts the times of what comes before the watchdog, so that its turn comes as soon as it can be
// believed: the watchdog then ends a fence that a slow device has not.
func (f *fenceFile) until(c *Cluster, n *Node, in fields) {
	line := in.line
	if e, ok := in.byKey["until"]; ok {
		line = e.line
	}
	if in.word("until", f.untils[c], untilTimeout, Watchdog) != Watchdog {
		return
	}
	at := slices.IndexFunc(n.Steps, func(s Step) bool { return isKernel(s) && s.Method == Watchdog })
	switch {
	case at < 0:
		f.add(line, "node %s: until = watchdog: expected the method watchdog in the list, or until = %s", n.Name, untilTimeout)
		return
	case n.Steps[at].Values["wait"] != "":
		f.add(line, "node %s: until = watchdog: expected no wait of the method watchdog, which begins with its turn", n.Name)
		return
	}
	left := c.WatchdogMS()
	for i := range n.Steps[:at] {
		f.cut(n, &n.Steps[i], &left, line)
	}
}

// shortest is the shortest time that an attempt may have, in ms.
const shortest = 100

// cut takes a step's time from what is left.
func (f *fenceFile) cut(n *Node, s *Step, left *uint32, line int) {
	needs := uint32(shortest)
	for _, m := range s.Members {
		needs = max(needs, (m.AfterMS+1)/9*10+10)
	}
	if delay := s.DelayMS + s.DelayRandomMS; delay > 0 {
		needs += delay/9*10 + 10
	}
	switch {
	case *left < needs:
		f.add(line, "node %s: until = watchdog: no time is left for %s: %d ms, expected at least %d; shorten what comes before",
			n.Name, s.Method, *left, needs)
		*left = 0
	case s.TimeoutMS > *left:
		f.warn(line, "node %s: until = watchdog: %s gets %d ms instead of %d", n.Name, s.Method, *left, s.TimeoutMS)
		s.TimeoutMS, *left = *left, 0
		for i := range s.Members {
			s.Members[i].TimeoutMS = s.TimeoutMS
		}
	default:
		*left -= s.TimeoutMS
	}
}
