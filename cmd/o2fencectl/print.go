// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

func (t *tool) printJSON(v any) error {
	e := json.NewEncoder(t.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// lineWidth is that of a terminal in which a table is still easy to read. Only the last column, the
// one with the words, is folded.
const lineWidth = 100

// printTable prints a table with a head, in the plain form that is easy to read and to cut.
func (t *tool) printTable(head table.Row, rows []table.Row) {
	w := table.NewWriter()
	w.SetOutputMirror(t.out)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft = ""
	style.Box.PaddingRight = "  "
	w.SetStyle(style)
	w.SuppressTrailingSpaces()
	room := lineWidth
	for column := range len(head) - 1 {
		room -= widest(column, head, rows) + len(style.Box.PaddingRight)
	}
	w.SetColumnConfigs([]table.ColumnConfig{{
		Number: len(head), WidthMax: max(room, lineWidth/4), WidthMaxEnforcer: fold,
	}})
	w.AppendHeader(head)
	w.AppendRows(rows)
	w.Render()
}

// fold keeps the line ends that there are.
func fold(s string, width int) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(text.WrapSoft(lines[i], width), " ")
	}
	return strings.Join(lines, "\n")
}

func widest(column int, head table.Row, rows []table.Row) int {
	width := text.StringWidth(fmt.Sprint(head[column]))
	for _, row := range rows {
		width = max(width, text.StringWidth(fmt.Sprint(row[column])))
	}
	return width
}

// clock is a time as people compare it with their logs.
func clock(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.Local().Format("2006-01-02 15:04:05.000")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// printJSONLine prints one value on one line, as a stream of them is read.
func (t *tool) printJSONLine(v any) error { return json.NewEncoder(t.out).Encode(v) }
