// SPDX-License-Identifier: GPL-2.0-only

// Methods measures how long it takes to switch a node off and to read that it is off: with o2fence's
// methods, and with Debian's fence agent for the same device, in turns and on the same simulator.
// Who reports success though the node is on ends it.
//
//	methods [-runs n] [-json file] [name ...]
//
// It exits with 1 when one of the methods is not as many times faster as it shall be, or takes longer
// than it may.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	log.SetFlags(0)
	runs := flag.Int("runs", 20, "how often each is measured")
	file := flag.String("json", "", "write the figures there too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	figures, err := measure(ctx, *runs, flag.Args())
	if err == nil {
		err = report(os.Stdout, figures)
	}
	if err == nil && *file != "" {
		err = save(*file, figures)
	}
	if err != nil {
		log.Fatal("methods: ", err)
	}
	for name, f := range figures {
		if f.Ratio < f.Bar {
			log.Fatalf("methods: %s: %.1f times as fast as %s, expected %.0f", name, f.Ratio, f.Theirs.Name, f.Bar)
		}
		if f.Limit > 0 && f.Ours.Max > f.Limit {
			log.Fatalf("methods: %s: up to %.1f ms, expected no more than %.0f", name, f.Ours.Max, f.Limit)
		}
	}
}

// Figures are what was measured of one method.
type Figures struct {
	Device string  `json:"device"`
	Ours   Times   `json:"ours"`
	Theirs Times   `json:"theirs"`
	Ratio  float64 `json:"ratio"`              // of the medians
	Bar    float64 `json:"bar"`                // that the ratio shall reach
	Limit  float64 `json:"limit_ms,omitempty"` // that ours.max_ms shall not be above
}

// Times are in milliseconds.
type Times struct {
	Name string  `json:"name"`
	Runs int     `json:"runs"`
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	Max  float64 `json:"max_ms"`
}

// measure measures the rows of these names, or all.
func measure(ctx context.Context, runs int, names []string) (map[string]Figures, error) {
	figures := make(map[string]Figures)
	for _, r := range rows() {
		if len(names) > 0 && !slices.Contains(names, r.name) {
			continue
		}
		f, err := r.measure(ctx, runs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		figures[r.name] = f
	}
	if len(figures) == 0 {
		return nil, errors.New("no such method")
	}
	return figures, nil
}

func (r row) measure(ctx context.Context, runs int) (Figures, error) {
	dir, err := os.MkdirTemp("", "o2fence-bench-")
	if err != nil {
		return Figures{}, err
	}
	defer os.RemoveAll(dir)
	m := new(machine)
	p, err := r.start(ctx, dir, m)
	if err != nil {
		return Figures{}, err
	}
	defer p.close()
	if r.runs > 0 {
		runs = min(runs, r.runs)
	}
	var ours, theirs []time.Duration
	for n := range runs + 1 {
		a, err := m.fenced(ctx, p.ours.Off)
		if err != nil {
			return Figures{}, err
		}
		b, err := m.fenced(ctx, p.theirs.off)
		if err != nil {
			return Figures{}, fmt.Errorf("%s: %w", p.theirs.program, err)
		}
		if n > 0 { // the first is for the caches
			ours, theirs = append(ours, a), append(theirs, b)
		}
	}
	f := Figures{
		Device: r.device, Bar: r.bar, Limit: r.limit,
		Ours: times(r.name, ours), Theirs: times(p.theirs.program, theirs),
	}
	f.Ratio = f.Theirs.P50 / f.Ours.P50
	return f, nil
}

// patience is more than any fence should take.
const patience = 30 * time.Second

// fenced switches the machine on, has it fenced, and looks whether it really is off.
func (m *machine) fenced(ctx context.Context, off func(context.Context) error) (time.Duration, error) {
	if m.before != nil {
		if err := m.before(); err != nil {
			return 0, err
		}
	}
	if err := m.SetOn(true); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start := time.Now()
	err := off(ctx)
	took := time.Since(start)
	if on, _ := m.On(); err == nil && on {
		err = errors.New("FALSE SUCCESS: the machine is on")
	}
	return took, err
}

func times(name string, all []time.Duration) Times {
	slices.Sort(all)
	at := func(percent int) float64 {
		d := all[min(len(all)*percent/100, len(all)-1)]
		return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
	}
	return Times{Name: name, Runs: len(all), P50: at(50), P99: at(99), Max: at(100)}
}

func report(out io.Writer, figures map[string]Figures) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "method\tp50 ms\tp99 ms\tmax ms\tagent\tp50 ms\tp99 ms\tmax ms\tratio\t")
	for _, r := range rows() {
		if f, ok := figures[r.name]; ok {
			fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%s\t%.1f\t%.1f\t%.1f\t%.1f\t\n", r.name,
				f.Ours.P50, f.Ours.P99, f.Ours.Max, f.Theirs.Name, f.Theirs.P50, f.Theirs.P99, f.Theirs.Max, f.Ratio)
		}
	}
	return w.Flush()
}

func save(file string, figures map[string]Figures) error {
	text, err := json.MarshalIndent(figures, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
