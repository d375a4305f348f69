// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/o2fence/o2fence/test/bench/plot"
	"github.com/o2fence/o2fence/test/bench/upcall/sample"
	"github.com/o2fence/o2fence/test/vm"
)

// What is promised.
const (
	timesHelper    = 50  // p50 of usermodehelper over p50 of the bridge, at least
	timesPacemaker = 300 // and p50 of Pacemaker's fencer
	timesAll       = 10  // until 254 are fenced over until one is, at most
)

// A report is what upcall.json holds. All times are in microseconds.
type report struct {
	Kernel  string `json:"kernel"`
	CPUs    int    `json:"cpus"`
	Counted bool   `json:"counted"` // a ns is an instruction
	Ways    []*way `json:"ways"`
	Bars    []bar  `json:"bars"`
}

// A way is one way to fence.
type way struct {
	Name string `json:"name"`
	Note string `json:"note"`

	// One node at a time: from INITIATED to FENCED, and from when the fence was asked for.
	Fences  int          `json:"fences"`
	US      plot.Summary `json:"us"`
	AskedUS plot.Summary `json:"asked_us"`

	AtOnce []atOnce `json:"at_once"`
	faults int
}

// An atOnce is so many nodes fenced at the same time.
type atOnce struct {
	Nodes  int          `json:"nodes"`
	Rounds int          `json:"rounds"`
	US     plot.Summary `json:"us"`     // of each node, from its INITIATED to its FENCED
	AllUS  plot.Summary `json:"all_us"` // from the first INITIATED to the last FENCED
}

// A bar is what must be reached. One that is far was never reached, as the README says, and why is in
// docs/design.md.
type bar struct {
	What  string  `json:"what"`
	Limit string  `json:"limit"`
	Got   float64 `json:"got"`
	OK    bool    `json:"ok"`
	Far   bool    `json:"far,omitempty"`
}

// notes are all ways, and what each of them is.
func notes() map[string]string {
	return map[string]string{
		sample.Kernel:    "a function of a module",
		sample.Bridge:    "o2fenced, a method that does nothing",
		sample.Waiting:   "o2fenced, a method whose device takes 50 ms",
		sample.Helper:    "fork, exec and exit of a static program",
		sample.Pacemaker: "pacemaker-fenced, agent a static program",
		sample.Script:    "pacemaker-fenced, agent a shell script",
	}
}

func newReport(ctx context.Context, rounds []sample.Round, m vm.Config) *report {
	r := summarize(rounds)
	r.Kernel, r.CPUs, r.Counted = m.Kernel.Release, m.CPUs, m.Counted
	if r.complete() {
		r.bars(allocations(ctx))
	}
	return r
}

// summarize takes the rounds way by way, as they were measured.
func summarize(rounds []sample.Round) *report {
	r := &report{}
	for len(rounds) > 0 {
		name := rounds[0].Way
		end := slices.IndexFunc(rounds, func(r sample.Round) bool { return r.Way != name })
		if end < 0 {
			end = len(rounds)
		}
		r.Ways = append(r.Ways, newWay(rounds[:end]))
		rounds = rounds[end:]
	}
	return r
}

// complete tells whether all ways were measured.
func (r *report) complete() bool { return len(r.Ways) == len(notes()) }

func newWay(rounds []sample.Round) *way {
	w := &way{Name: rounds[0].Way, Note: notes()[rounds[0].Way]}
	for len(rounds) > 0 {
		n := rounds[0].Nodes
		var each, asked, all []time.Duration
		count := 0
		for ; len(rounds) > 0 && rounds[0].Nodes == n; rounds = rounds[1:] {
			for _, f := range rounds[0].Fences {
				each = append(each, time.Duration(f.Fenced-f.Initiated))
				asked = append(asked, time.Duration(f.Fenced-f.Asked))
			}
			all = append(all, rounds[0].Span())
			w.faults += rounds[0].Faults
			count++
		}
		us := plot.Summarize(each, time.Microsecond)
		if n == 1 {
			w.Fences, w.US, w.AskedUS = count, us, plot.Summarize(asked, time.Microsecond)
		}
		w.AtOnce = append(w.AtOnce, atOnce{n, count, us, plot.Summarize(all, time.Microsecond)})
	}
	return w
}

func (r *report) way(name string) *way {
	i := slices.IndexFunc(r.Ways, func(w *way) bool { return w.Name == name })
	if i < 0 {
		return nil
	}
	return r.Ways[i]
}

// bars compares with what is promised.
func (r *report) bars(allocs error) {
	bridge := r.way(sample.Bridge)
	none := func(what string, got float64) {
		r.Bars = append(r.Bars, bar{What: what, Limit: "0", Got: got, OK: got == 0})
	}
	r.faster("usermodehelper's p50 over the bridge's", timesHelper, r.way(sample.Helper).US.P50/bridge.US.P50)
	r.faster("pacemaker-fenced's p50 over the bridge's", timesPacemaker, r.way(sample.Pacemaker).US.P50/bridge.US.P50)
	r.growth(bridge, true)
	r.growth(r.way(sample.Waiting), false)
	failed := 0.0
	if allocs != nil {
		failed = 1
	}
	none("tests of the core loop's allocations that fail", failed)
	none("page faults of o2fenced in all rounds", float64(bridge.faults+r.way(sample.Waiting).faults))
}

func (r *report) faster(what string, limit, got float64) {
	r.Bars = append(r.Bars, bar{what, fmt.Sprintf("at least %g", limit), got, got >= limit, true})
}

// growth is far where nothing is waited for: one processor does that work for one node after the other.
func (r *report) growth(w *way, far bool) {
	last := w.AtOnce[len(w.AtOnce)-1]
	got := last.AllUS.P50 / w.US.P50
	r.Bars = append(r.Bars, bar{
		fmt.Sprintf("%s: until all of %d are fenced, over until one is", w.Name, last.Nodes),
		fmt.Sprintf("below %d", timesAll), got, got < timesAll, far,
	})
}

// allocations runs the tests that count the Go allocations between INITIATE and FENCED.
func allocations(ctx context.Context) error {
	_, err := output(ctx, "go", "test", "-count=1", "-run=TestNothingIsAllocated", "./bridge/dispatch", "./bridge/kernel")
	return err
}

func (r *report) figure() *plot.Figure {
	last := 0
	f := &plot.Figure{
		Title: "What it costs to call a fence method that does nothing",
		Unit:  "µs", RowsTitle: "One node, from INITIATED to FENCED",
		Growth: &plot.Growth{XName: "nodes at once"},
	}
	for _, w := range r.Ways {
		f.Rows = append(f.Rows, plot.Row{Name: w.Name, Note: w.Note, Summary: w.US})
		line := plot.Line{Name: w.Name}
		for _, a := range w.AtOnce {
			line.Points = append(line.Points, plot.Point{X: float64(a.Nodes), Y: a.AllUS.P50})
			last = max(last, a.Nodes)
		}
		f.Growth.Lines = append(f.Growth.Lines, line)
	}
	f.Growth.Title = fmt.Sprintf("Up to %d nodes at once, until the last of them is fenced (p50)", last)
	if !r.complete() {
		return f
	}
	bridge := r.way(sample.Bridge)
	ratio := func(name string) string { return plot.Number(r.way(name).US.P50 / bridge.US.P50) }
	f.Notes = []string{
		fmt.Sprintf("A fence by o2fenced takes %s µs; call_usermodehelper takes %s times as long,", plot.Number(bridge.US.P50), ratio(sample.Helper)),
		fmt.Sprintf("pacemaker-fenced %s times, or %s times with a shell script for its agent.", ratio(sample.Pacemaker), ratio(sample.Script)),
		fmt.Sprintf("One virtual machine, %d CPU, Linux %s, in %s: compare the ratios.", r.CPUs, r.Kernel, r.clock()),
	}
	return f
}

func (r *report) clock() string {
	if r.Counted {
		return "thousands of instructions"
	}
	return "the host's time under emulation"
}

func (r *report) write(dir string) error {
	return errors.Join(
		plot.WriteJSON(filepath.Join(dir, "upcall.json"), r),
		os.WriteFile(filepath.Join(dir, "upcall.svg"), r.figure().SVG(), 0o644),
	)
}

func (r *report) print(w io.Writer, dir string) {
	r.figure().Print(w)
	fmt.Fprintln(w)
	for _, b := range r.Bars {
		verdict := "ok    "
		if !b.OK {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%s  %s: %s, want %s\n", verdict, b.What, plot.Number(b.Got), b.Limit)
	}
	fmt.Fprintf(w, "\n%s\n%s\n", filepath.Join(dir, "upcall.json"), filepath.Join(dir, "upcall.svg"))
}

// errFar is for bars that were never reached, when all others are.
var errFar = errors.New("missed, as the README says")

// failure is an error that names the bars that were missed.
func (r *report) failure() error {
	if !r.complete() {
		return errors.New("not all ways were measured: no verdict")
	}
	var missed, far []string
	for _, b := range r.Bars {
		switch {
		case b.OK:
		case b.Far:
			far = append(far, b.What)
		default:
			missed = append(missed, b.What)
		}
	}
	switch {
	case missed != nil:
		return fmt.Errorf("missed: %s", strings.Join(append(missed, far...), "; "))
	case far != nil:
		return fmt.Errorf("%w: %s", errFar, strings.Join(far, "; "))
	}
	return nil
}
