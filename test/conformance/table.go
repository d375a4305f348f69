// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/o2fence/o2fence/fencemethods/catalog"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// untried are methods that need not pass the suite, with the reason.
func untried() map[string]string {
	return map[string]string{
		"test": "fences nothing: it answers what it is told to",
	}
}

const intro = `<!-- Made by "make conformance"; do not edit. -->
# Conformance: what every method was tried on

A fence that reports success while the node lives destroys data. So every method has to pass one
suite, ` + "`fencemethods/fencetest`" + `: it is used on a real device's server, which switches a machine, and both
the server and the wire to it are made to fail in all the ways devices do. In each case the suite
compares what the method says with what the machine did. Besides, a method's errors must tell the
cause and what to do, and come by the deadline, give or take a tenth.

With a hundred nodes at once the bridge's own dispatcher is given a hundred orders, and no fence begins
before all have been taken. Each machine goes off at a moment of its own; one after the other they would
take longer than each is given, which is 40 s, or 10 minutes for programs. Three more machines, of which
the devices know, are not to be fenced: they have to run on.

- *yes*: the method did what is due in that case: it fenced, or failed for the right reason.
- *–* with a note: the device cannot be in that case, or the case is shown by other tests.
- *no*: it did not fence though it could have, or failed in another way.
- **FALSE SUCCESS**: it said that the machine is off, and it never was.

A case that fails is tried up to three times, for the machine may be busy; a false success is not.
` + "`level`" + ` is several devices of a node at once.

Made with: %s.

`

const theirIntro = `
## Other people's programs, in the same cases

The same suite, servers and wires, with Debian's fence agents and sbd instead: run as the cluster
managers run them, with parameters on standard input. Exit code 0 is success. An agent has one exit
code for all failures, so that nothing is asked of its errors; and it is killed when its time is over,
as Pacemaker does, so that it always keeps its deadline.

`

// document is the whole page.
func (r Results) document() string {
	var b strings.Builder
	fmt.Fprintf(&b, intro, strings.Join(r.Made, ", "))
	b.WriteString("## o2fence's methods\n\n")
	r.table(&b, false)
	for _, name := range sorted(untried()) {
		fmt.Fprintf(&b, "\nThe method `%s` is not in the table: it %s.\n", name, untried()[name])
	}
	b.WriteString(theirIntro)
	r.table(&b, true)
	return b.String()
}

// A column is one method, in all its suites.
type column struct {
	method string
	suites []Suite
}

// columns has the methods in the catalog's order, other people's programs by name.
func (r Results) columns(theirs bool) []column {
	var columns []column
	for _, s := range r.Suites {
		if s.Theirs != theirs {
			continue
		}
		i := slices.IndexFunc(columns, func(c column) bool { return c.method == s.Method })
		if i < 0 {
			i = len(columns)
			columns = append(columns, column{method: s.Method})
		}
		columns[i].suites = append(columns[i].suites, s)
	}
	var order []string
	for _, m := range catalog.Methods() {
		order = append(order, m.Name)
	}
	place := func(c column) int {
		if i := slices.Index(order, c.method); i >= 0 {
			return i
		}
		return len(order) // a level is none of its own
	}
	slices.SortStableFunc(columns, func(a, b column) int { return place(a) - place(b) })
	return columns
}

func (r Results) table(b *strings.Builder, theirs bool) {
	columns, notes := r.columns(theirs), []string(nil)
	b.WriteString("| case |")
	for _, c := range columns {
		fmt.Fprintf(b, " %s |", c.method)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, name := range fencetest.Cases() {
		fmt.Fprintf(b, "| %s |", name)
		for _, c := range columns {
			fmt.Fprintf(b, " %s |", c.result(name).cell(&notes))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for i, note := range notes {
		fmt.Fprintf(b, "%d. %s\n", i+1, note)
	}
	b.WriteString("\nTried against:")
	for i, c := range columns {
		var peers []string
		for _, s := range c.suites {
			if s.Peer != "" && !slices.Contains(peers, s.Peer) {
				peers = append(peers, s.Peer)
			}
		}
		fmt.Fprintf(b, "%s `%s`: %s", []string{"", ";"}[min(i, 1)], c.method, strings.Join(peers, " / "))
	}
	b.WriteString(".\n")
}

// result is the worst of a method's suites. What only some of them can show counts as shown, and what
// each has shown is told.
func (c column) result(name string) Result {
	rank := []Outcome{Skipped, Passed, Failed, Lied}
	worst := Result{Outcome: Skipped, Text: "was not tried"}
	for i, s := range c.suites {
		r, ok := s.Cases[name]
		if !ok {
			r = Result{Skipped, "was not tried"}
		}
		switch {
		case i == 0 || slices.Index(rank, r.Outcome) > slices.Index(rank, worst.Outcome):
			worst = r
		case r.Outcome == Passed && worst.Outcome == Passed && !strings.Contains(worst.Text, r.Text):
			worst.Text += "; " + r.Text
		}
	}
	return worst
}

// cell is a table's, with the number of its note.
func (r Result) cell(notes *[]string) string {
	text := map[Outcome]string{Passed: "yes", Skipped: "–", Failed: "no", Lied: "**FALSE SUCCESS**"}[r.Outcome]
	if r.Text == "" {
		return text
	}
	note := strings.ReplaceAll(r.Text, "|", `\|`)
	i := slices.Index(*notes, note)
	if i < 0 {
		i = len(*notes)
		*notes = append(*notes, note)
	}
	return fmt.Sprintf("%s<sup>%d</sup>", text, i+1)
}
