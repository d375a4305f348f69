// SPDX-License-Identifier: GPL-2.0-only

package plot

import (
	"fmt"
	"io"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Print prints the figure as tables.
func (f *Figure) Print(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n", f.Title)
	for _, note := range f.Notes {
		fmt.Fprintln(w, note)
	}
	if len(f.Rows) > 0 {
		fmt.Fprintf(w, "\n%s, in %s\n", f.RowsTitle, f.Unit)
		printTable(w, table.Row{"", "", "p50", "p99", "max"}, 2, f.rows())
	}
	if f.Growth != nil {
		fmt.Fprintf(w, "\n%s, in %s\n", f.Growth.Title, f.Unit)
		printTable(w, f.Growth.head(), 1, f.Growth.rows())
	}
}

func (f *Figure) rows() []table.Row {
	var rows []table.Row
	for i, r := range f.Rows {
		name := r.Name
		if i > 0 && f.Rows[i-1].Name == name {
			name = ""
		}
		rows = append(rows, table.Row{name, r.Note, Number(r.P50), Number(r.P99), Number(r.Max)})
	}
	return rows
}

// places are all that a line has a point at.
func (g *Growth) places() []float64 {
	var xs []float64
	for _, l := range g.Lines {
		for _, p := range l.Points {
			xs = append(xs, p.X)
		}
	}
	slices.Sort(xs)
	return slices.Compact(xs)
}

func (g *Growth) head() table.Row {
	head := table.Row{g.XName}
	for _, x := range g.places() {
		head = append(head, count(x))
	}
	return head
}

func (g *Growth) rows() []table.Row {
	var rows []table.Row
	for _, l := range g.Lines {
		row := table.Row{l.Name}
		for _, x := range g.places() {
			cell := ""
			if i := slices.IndexFunc(l.Points, func(p Point) bool { return p.X == x }); i >= 0 {
				cell = Number(l.Points[i].Y)
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	return rows
}

// printTable aligns all columns but the first ones, which are words, to the right.
func printTable(w io.Writer, head table.Row, words int, rows []table.Row) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	style := table.StyleLight
	style.Format.Header = text.FormatDefault
	t.SetStyle(style)
	var columns []table.ColumnConfig
	for i := words; i < len(head); i++ {
		columns = append(columns, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(columns)
	t.AppendHeader(head)
	t.AppendRows(rows)
	t.Render()
}
