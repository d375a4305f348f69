// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// periodMS is fence.conf's default, and OCFS2's own.
const periodMS = 2000

// A report is what report.json holds. Times are seconds from the freeze.
type report struct {
	Stock struct {
		Stall float64 `json:"stall_s"`
	} `json:"stock"`
	O2fence struct {
		Detected  float64 `json:"detected_s"`
		Initiated float64 `json:"initiated_s"`
		PowerOff  float64 `json:"power_off_s"`
		Fenced    float64 `json:"fenced_s"`
		Notice    float64 `json:"notice_s"`
		Evicted   float64 `json:"evicted_s"`
		Recovered float64 `json:"recovered_s"`
		Stall     float64 `json:"stall_s"`
	} `json:"o2fence"`
	Ratio    float64 `json:"ratio"`
	Kernel   string  `json:"kernel"`
	Missed   int     `json:"missed"`
	PeriodMS int     `json:"period_ms"`
}

func newReport(stock, fenced *play, kernel string, missed int) (*report, error) {
	r := &report{Kernel: kernel, Missed: missed, PeriodMS: periodMS}
	o := &r.O2fence
	for _, f := range []struct {
		from *play
		name string
		to   *float64
	}{
		{stock, "stall", &r.Stock.Stall},
		{fenced, "silent", &o.Detected},
		{fenced, "initiated", &o.Initiated},
		{fenced, "power_off", &o.PowerOff},
		{fenced, "fenced", &o.Fenced},
		{fenced, "notice", &o.Notice},
		{fenced, "evicted", &o.Evicted},
		{fenced, "recovered", &o.Recovered},
		{fenced, "stall", &o.Stall},
	} {
		s, ok := f.from.since(f.name)
		if !ok {
			return nil, fmt.Errorf("%s: %s was not seen", f.from.name, meaning(f.name))
		}
		*f.to = s
	}
	r.Ratio = r.Stock.Stall / o.Stall
	return r, nil
}

// check is the order that makes a fence one: nothing is told before the power is off, and nothing is
// recovered before it is told.
func (r *report) check() error {
	o := r.O2fence
	switch {
	case o.PowerOff >= o.Notice:
		return errors.New("the notice was given before the power was off")
	case o.Notice >= o.Recovered:
		return errors.New("the locks were recovered before the notice was given")
	}
	return nil
}

func (r *report) write(dir string, stock, fenced *play) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "report.json"), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "timeline.svg"), timeline(r, stock, fenced), 0o644),
	)
}

func (r *report) print(w io.Writer, dir string) {
	o := r.O2fence
	fmt.Fprintf(w, "\nseconds from the freeze                stock   o2fence\n")
	for _, row := range []struct {
		what string
		at   float64
	}{
		{meaning("silent"), o.Detected},
		{meaning("initiated"), o.Initiated},
		{meaning("power_off"), o.PowerOff},
		{meaning("fenced"), o.Fenced},
		{meaning("notice"), o.Notice},
		{meaning("evicted"), o.Evicted},
		{meaning("recovered"), o.Recovered},
	} {
		fmt.Fprintf(w, "%-37s           %7.2f\n", row.what, row.at)
	}
	fmt.Fprintf(w, "%-37s %7.2f   %7.2f\n", meaning("stall"), r.Stock.Stall, o.Stall)
	fmt.Fprintf(w, "\n%.1f times less, with %d heartbeats missed, on Linux %s\n", r.Ratio, r.Missed, r.Kernel)
	fmt.Fprintf(w, "%s\n%s\n", filepath.Join(dir, "report.json"), filepath.Join(dir, "timeline.svg"))
}

// meaning is a step in words.
func meaning(step string) string {
	return map[string]string{
		"silent":    "the survivors miss its heartbeats",
		"initiated": "its fencing is initiated",
		"power_off": "its power is off",
		"fenced":    "read back as off: FENCED",
		"notice":    "the notice is on the disk",
		"evicted":   "OCFS2 evicts it",
		"recovered": "its locks are recovered",
		"stall":     "the writer goes on",
	}[step]
}

// ordered are the steps by time.
func (p *play) ordered() []step {
	return slices.SortedFunc(slices.Values(p.steps), func(a, b step) int { return a.at.Compare(b.at) })
}
