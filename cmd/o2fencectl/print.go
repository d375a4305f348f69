// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
)

// reading gives a command the flag that all reading commands have.
func (t *tool) reading(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&t.json, "json", false, "print JSON")
	return cmd
}

func (t *tool) printJSON(v any) error {
	e := json.NewEncoder(t.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printTable prints a table with a head, in the plain form that is easy to read and to cut.
func (t *tool) printTable(head table.Row, rows []table.Row) {
	w := table.NewWriter()
	w.SetOutputMirror(t.out)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft = ""
	style.Box.PaddingRight = "  "
	w.SetStyle(style)
	w.AppendHeader(head)
	w.AppendRows(rows)
	w.Render()
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
