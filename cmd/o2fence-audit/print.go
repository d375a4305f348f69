// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/o2fence/o2fence/bpf/verdict"
)

func (t *tool) print(r *verdict.Report) error {
	if t.json {
		e := json.NewEncoder(t.out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Fprintf(t.out, "%s: %s\n", strings.ToUpper(r.Verdict.String()), strings.Join(r.Reasons, "; "))
	fmt.Fprintln(t.out, watched(r))
	for _, g := range groupsOf(r) {
		fmt.Fprintf(t.out, "\n%s: %s\n", heading[g.class], g.why)
		t.printTable(g.rows)
	}
	if t.stacks {
		t.printStacks(r)
	}
	return nil
}

var heading = map[verdict.Class]string{
	verdict.Forbidden: "Forbidden",
	verdict.Bounded:   "Bounded",
	verdict.Aside:     "Not judged",
}

func watched(r *verdict.Report) string {
	windows := "1 window"
	if r.Windows != 1 {
		windows = fmt.Sprintf("%d windows", r.Windows)
	}
	return fmt.Sprintf("%s (%d), what it started, and o2fence/*: %s, %v; %d KiB of %d KiB from the reserve; %d events lost",
		r.Program, r.PID, windows, r.Watched.Round(10*time.Microsecond), r.TakenKiB, r.ClaimKiB, r.Lost)
}

// A group is what is judged in the same way for the same reason.
type group struct {
	class verdict.Class
	why   string
	rows  []*row
}

// A row is all sites of a group that read the same.
type row struct {
	kind, blame, thread string
	count, bytes        uint64
	longest             time.Duration
}

// groupsOf keeps the order of the report: the worst first.
func groupsOf(r *verdict.Report) []*group {
	var all []*group
	groups := make(map[string]*group)
	rows := make(map[*group]map[row]*row)
	for _, s := range r.Sites {
		key := s.Class.String() + s.Why
		g := groups[key]
		if g == nil {
			g = &group{class: s.Class, why: s.Why}
			groups[key], rows[g] = g, make(map[row]*row)
			all = append(all, g)
		}
		same := row{kind: what(s), blame: s.Blame, thread: s.Comm}
		sum := rows[g][same]
		if sum == nil {
			sum = new(same)
			rows[g][same] = sum
			g.rows = append(g.rows, sum)
		}
		sum.count += s.Count
		sum.bytes += s.Bytes
		sum.longest = max(sum.longest, s.Longest)
	}
	slices.SortStableFunc(all, func(a, b *group) int { return cmp.Compare(b.class, a.class) })
	return all
}

// what is the kind of a site, and which file or program it is about.
func what(s *verdict.Site) string {
	detail := s.Text
	if detail == "" && s.Kind == "file access" {
		detail = s.Syscall
	}
	if detail == "" {
		return s.Kind
	}
	return fmt.Sprintf("%s (%s)", s.Kind, detail)
}

// mostRows is what a table shows of a group; JSON has all.
const mostRows = 12

func (t *tool) printTable(rows []*row) {
	w := table.NewWriter()
	w.SetOutputMirror(t.out)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft = ""
	style.Box.PaddingRight = "  "
	w.SetStyle(style)
	w.SuppressTrailingSpaces()
	w.AppendHeader(table.Row{"COUNT", "SIZE", "WHAT", "THREAD", "WHO"})
	for _, r := range rows[:min(len(rows), mostRows)] {
		w.AppendRow(table.Row{r.count, r.size(), r.kind, r.thread, r.blame})
	}
	w.Render()
	if more := len(rows) - mostRows; more > 0 {
		fmt.Fprintf(t.out, "... and %d more; --json has all\n", more)
	}
}

// size is what counts of a row: bytes, or how long.
func (r *row) size() string {
	switch {
	case r.longest > 0:
		return r.longest.Round(time.Millisecond).String()
	case r.bytes >= 10<<10:
		return fmt.Sprintf("%d KiB", r.bytes>>10)
	case r.bytes > 0:
		return fmt.Sprintf("%d B", r.bytes)
	}
	return "-"
}

func (t *tool) printStacks(r *verdict.Report) {
	for _, s := range r.Sites {
		fmt.Fprintf(t.out, "\n%s %s, %d times, by %s (%d)", s.Class, s.Kind, s.Count, s.Comm, s.PID)
		if s.GFP != "" {
			fmt.Fprintf(t.out, ", %s", s.GFP)
		}
		if s.Flagged {
			fmt.Fprint(t.out, ", PF_MEMALLOC")
		}
		fmt.Fprintln(t.out)
		for _, f := range s.Stack {
			fmt.Fprintf(t.out, "    %s\n", f)
		}
	}
}
