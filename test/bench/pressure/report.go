// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/o2fence/o2fence/test/bench/plot"
	"github.com/o2fence/o2fence/test/pressure"
	"github.com/o2fence/o2fence/test/pressure/wire"
)

// timesMedian is what is promised: o2fence's slowest fence under pressure takes at most so many times
// its own median without pressure.
const timesMedian = 3

// A report is what pressure.json holds.
type report struct {
	Kernel     string    `json:"kernel"`
	MemoryMiB  int       `json:"memory_mib"`
	PatienceMS int64     `json:"patience_ms"` // a fence that takes longer has failed, and counts as that long
	Fencers    []*result `json:"fencers"`
	Scenes     []scene   `json:"scenes"`

	calm, pressed, swap []wire.Fence
}

// A result is what became of one fencer's fences.
type result struct {
	Name      string `json:"name"`
	Note      string `json:"note"`
	Fences    int    `json:"fences"`    // under pressure
	Succeeded int    `json:"succeeded"` // of them
	MS        ms     `json:"ms"`
	SwapOf    int    `json:"fences_with_swap"`
	SwapOK    int    `json:"succeeded_with_swap"`
	CalmOf    int    `json:"fences_without"`
	CalmOK    int    `json:"succeeded_without"`

	// Failures are the reasons, and how often.
	Failures map[string]int `json:"failures,omitempty"`
}

// ms are times from initiate to fenced, failures included.
type ms struct {
	With     plot.Summary `json:"with_pressure"`
	WithSwap plot.Summary `json:"with_pressure_and_swap"`
	Without  plot.Summary `json:"without_pressure"`

	// Device is what the BMCs took of With and WithSwap, and DeviceOfMax of the slowest of all.
	Device      plot.Summary `json:"device_with_pressure"`
	DeviceOfMax float64      `json:"device_of_the_slowest"`
}

// A scene is one deadlock, and its end.
type scene struct {
	Name          string     `json:"name"`
	SwapMiB       int        `json:"swap_mib"`
	Pressure      conditions `json:"pressure"`
	VictimOff     bool       `json:"victim_off"`
	WritersWentOn bool       `json:"writers_went_on"`
	Seconds       float64    `json:"seconds_until_then"` // from when the victim's BMC obeyed
	Faults        []string   `json:"kernel_faults,omitempty"`
	Stack         string     `json:"stuck_at"`
}

// conditions are how short memory was while fences were measured.
type conditions struct {
	Samples  int     `json:"samples"`
	Stuck    spread  `json:"stuck"`          // tasks that reclaim memory and wait for a lock in it
	Locks    spread  `json:"wait_for_locks"` // others that wait for a lock
	FreeKiB  spread  `json:"free_kib"`
	Reserve  int     `json:"reserve_kib"`
	DirtyKiB spread  `json:"dirty_and_writeback_kib"`
	LimitKiB spread  `json:"dirty_limit_kib"`
	Stalls   int     `json:"allocstall"`
	OOMKills int     `json:"oom_kills"`
	FullMax  float64 `json:"psi_full_avg10_max"`
	Kswapd   int     `json:"samples_with_kswapd_stuck"`
}

type spread struct {
	Min    int `json:"min"`
	Median int `json:"median"`
	Max    int `json:"max"`
}

func newSpread(all []wire.Sample, of func(wire.Sample) int) spread {
	var values []int
	for _, s := range all {
		values = append(values, of(s))
	}
	slices.Sort(values)
	if len(values) == 0 {
		return spread{}
	}
	return spread{values[0], values[len(values)/2], values[len(values)-1]}
}

func newConditions(all []wire.Sample) conditions {
	c := conditions{
		Samples:  len(all),
		Stuck:    newSpread(all, func(s wire.Sample) int { return s.Stuck }),
		Locks:    newSpread(all, func(s wire.Sample) int { return s.Locks }),
		FreeKiB:  newSpread(all, func(s wire.Sample) int { return s.Free }),
		DirtyKiB: newSpread(all, func(s wire.Sample) int { return s.Dirty + s.Writeback }),
		LimitKiB: newSpread(all, func(s wire.Sample) int { return s.DirtyLimit }),
	}
	for _, s := range all {
		c.Reserve, c.Stalls, c.OOMKills = s.Reserve, s.Stalls, s.OOMKills
		c.FullMax = max(c.FullMax, s.Full)
		if s.Kswapd {
			c.Kswapd++
		}
	}
	return c
}

func notes() map[string]string {
	return map[string]string{
		wire.O2fence: "kernel, o2fenced, ipmi",
		wire.Plain:   "o2fenced's core loop and ipmi",
		wire.Shell:   "fork, exec, sh, ipmitool",
		wire.IPMILan: "fork, exec, Python, ipmitool",
	}
}

func (r *report) add(s *pressure.Scenario, run scene) {
	run.Stack = s.Stack()
	r.Scenes = append(r.Scenes, run)
	r.calm = append(r.calm, s.Fences(wire.Calm)...)
	pressed := s.Fences(wire.Pressure)
	if run.SwapMiB > 0 {
		r.swap = append(r.swap, pressed...)
	} else {
		r.pressed = append(r.pressed, pressed...)
	}
	r.Fencers = summarize(r.calm, r.pressed, r.swap)
}

func summarize(calm, pressed, swap []wire.Fence) []*result {
	var all []*result
	for _, name := range fencers() {
		own := func(all []wire.Fence) []wire.Fence {
			return slices.DeleteFunc(slices.Clone(all), func(f wire.Fence) bool { return f.Fencer != name })
		}
		calm, pressed, swap := own(calm), own(pressed), own(swap)
		r := &result{Name: name, Note: notes()[name], Failures: map[string]int{}}
		r.CalmOf, r.CalmOK, r.MS.Without = tally(calm, nil)
		r.Fences, r.Succeeded, r.MS.With = tally(pressed, r.Failures)
		r.SwapOf, r.SwapOK, r.MS.WithSwap = tally(swap, r.Failures)
		r.MS.Device, r.MS.DeviceOfMax = devices(slices.Concat(pressed, swap))
		all = append(all, r)
	}
	return all
}

func devices(fences []wire.Fence) (all plot.Summary, ofSlowest float64) {
	if len(fences) == 0 {
		return all, 0
	}
	slowest := slices.MaxFunc(fences, func(a, b wire.Fence) int { return cmp.Compare(a.Took, b.Took) })
	all = plot.Summarize(durations(fences, func(f wire.Fence) time.Duration { return f.Device }), time.Millisecond)
	return all, float64(slowest.Device) / float64(time.Millisecond)
}

func tally(fences []wire.Fence, failures map[string]int) (of, ok int, s plot.Summary) {
	for _, f := range fences {
		if f.OK {
			ok++
		} else if failures != nil {
			failures[f.Why]++
		}
	}
	return len(fences), ok, plot.Summarize(durations(fences, func(o wire.Fence) time.Duration { return o.Took }), time.Millisecond)
}

func durations(fences []wire.Fence, of func(wire.Fence) time.Duration) []time.Duration {
	var all []time.Duration
	for _, f := range fences {
		all = append(all, of(f))
	}
	return all
}

func (r *report) figure() *plot.Figure {
	f := &plot.Figure{
		Title: "Fences while memory reclaim waits for the node to be fenced", Unit: "ms",
		RowsTitle: "From initiate to fenced; one that failed counts as long as it was waited for",
	}
	if len(r.Scenes) > 0 {
		p := r.Scenes[0].Pressure
		f.Notes = []string{
			fmt.Sprintf("OCFS2 on Linux %s, a virtual machine of %d MiB under emulation: compare the ratios.", r.Kernel, r.MemoryMiB),
			fmt.Sprintf("Stuck in reclaim: %d to %d tasks; free: %s KiB of a reserve of %s; %d reclaims, %d OOM kills.",
				p.Stuck.Min, p.Stuck.Max, plot.Number(float64(p.FreeKiB.Median)), plot.Number(float64(p.Reserve)), p.Stalls, p.OOMKills),
		}
	}
	for _, w := range r.Fencers {
		for _, row := range []struct {
			what   string
			ok, of int
			times  plot.Summary
		}{
			{"calm", w.CalmOK, w.CalmOf, w.MS.Without},
			{"pressure", w.Succeeded, w.Fences, w.MS.With},
			{"and swap", w.SwapOK, w.SwapOf, w.MS.WithSwap},
		} {
			if row.of > 0 {
				f.Rows = append(f.Rows, plot.Row{Name: w.Name, Note: fmt.Sprintf("%s, %d of %d", row.what, row.ok, row.of), Summary: row.times})
			}
		}
	}
	return f
}

func (r *report) write(dir string) error {
	return errors.Join(
		plot.WriteJSON(filepath.Join(dir, "pressure.json"), r),
		os.WriteFile(filepath.Join(dir, "pressure.svg"), r.figure().SVG(), 0o644),
	)
}

func (r *report) print(w io.Writer, dir string) {
	r.figure().Print(w)
	fmt.Fprintln(w)
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.AppendHeader(table.Row{"deadlock", "swap MiB", "stuck", "reclaims", "OOM kills", "PSI full %", "victim off", "writers go on", "after s"})
	for _, s := range r.Scenes {
		t.AppendRow(table.Row{s.Name, s.SwapMiB, s.Pressure.Stuck.Max, s.Pressure.Stalls, s.Pressure.OOMKills, s.Pressure.FullMax, s.VictimOff, s.WritersWentOn, plot.Number(s.Seconds)})
	}
	t.Render()
	fmt.Fprintf(w, "\n%s\n%s\n", filepath.Join(dir, "pressure.json"), filepath.Join(dir, "pressure.svg"))
}

// failure says what was promised and is not so.
func (r *report) failure() error {
	var errs []error
	for _, f := range r.Fencers {
		if f.Name != wire.O2fence {
			continue
		}
		if ok, of := f.Succeeded+f.SwapOK, f.Fences+f.SwapOf; ok < of {
			errs = append(errs, fmt.Errorf("o2fence: %d of %d fences", ok, of))
		}
		slowest := max(f.MS.With.Max, f.MS.WithSwap.Max)
		if ratio := slowest / f.MS.Without.P50; !(ratio <= timesMedian) {
			errs = append(errs, fmt.Errorf("o2fence: the slowest fence under pressure took %.1f times the median without, at most %d are promised (%.1f ms, of which its device took %.1f)",
				ratio, timesMedian, slowest, f.MS.DeviceOfMax))
		}
	}
	if len(r.Fencers) == 0 {
		errs = append(errs, errors.New("nothing was measured"))
	}
	for _, s := range r.Scenes {
		if !s.VictimOff {
			errs = append(errs, fmt.Errorf("%s: the victim was not fenced", s.Name))
		}
		if s.Pressure.Stuck.Max == 0 {
			errs = append(errs, fmt.Errorf("%s: nothing was stuck", s.Name))
		}
		for _, fault := range s.Faults {
			errs = append(errs, fmt.Errorf("%s: the kernel complains: %s", s.Name, fault))
		}
	}
	return errors.Join(errs...)
}
