// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/config"
)

// A Plan is what "plan --json" prints of one method of one node. Times count from the order to fence.
type Plan struct {
	Node   string `json:"node"`
	Level  int    `json:"level"` // counts from 1; several methods may be in one
	Rule   string `json:"rule"`  // of a level of several: all or any
	Method string `json:"method"`

	FromMS  uint64 `json:"from_ms"` // when it begins at the latest
	ByMS    uint64 `json:"by_ms"`   // when it has ended at the latest
	Retries uint32 `json:"retries"`
	// BackoffMS is the pause before the first of them.
	BackoffMS     uint32 `json:"backoff_ms"`
	DelayMS       uint32 `json:"delay_ms"` // before the first method of the node
	DelayRandomMS uint32 `json:"delay_random_ms"`
}

func (t *tool) planCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "plan [NODE]",
		Short: "Show how a node would be fenced: methods, levels, and how long it takes at worst",
		Long: "Shows how a node would be fenced, or all of them: what is tried in what order, what at the same time,\n" +
			"and in how many seconds after the order it begins and has ended, if every device uses up its time. No\n" +
			"device is asked; \"o2fencectl check\" does that.",
		Args:              arguments(cobra.MaximumNArgs(1)),
		ValidArgsFunction: t.nodeNames,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := t.review()
			if err != nil {
				return err
			}
			nodes := c.Nodes
			if len(args) == 1 {
				n, err := c.Node(args[0])
				if err != nil {
					return usageError{err}
				}
				nodes = []config.Node{*n}
			}
			plans := []Plan{}
			for _, n := range nodes {
				plans = append(plans, planOf(c, n)...)
			}
			if t.json {
				return t.printJSON(plans)
			}
			t.printPlans(plans)
			return nil
		},
	}
}

func planOf(c *config.Cluster, n config.Node) []Plan {
	var plans []Plan
	from := uint64(0)
	ends := c.EndsMS(n)
	for i, s := range n.Steps {
		for _, d := range s.Devices() {
			plans = append(plans, Plan{
				Node: n.Name, Level: i + 1, Rule: string(s.Level), Method: d.Method,
				FromMS: from + uint64(s.DelayMS+s.DelayRandomMS+d.AfterMS), ByMS: ends[i],
				Retries: d.Retries, BackoffMS: d.BackoffMS, DelayMS: s.DelayMS, DelayRandomMS: s.DelayRandomMS,
			})
		}
		from = ends[i]
	}
	return plans
}

func (t *tool) printPlans(plans []Plan) {
	var rows []table.Row
	for _, p := range plans {
		rows = append(rows, table.Row{p.Node, p.Level, p.Method, seconds(p.FromMS), seconds(p.ByMS), p.remarks()})
	}
	t.printTable(table.Row{"NODE", "LEVEL", "METHOD", "FROM", "BY", "REMARKS"}, rows)
	fmt.Fprintln(t.out, "\nFROM and BY: seconds after the order to fence, at the latest")
}

func seconds(ms uint64) string { return fmt.Sprintf("%.1f", float64(ms)/1000) }

// remarks are what the columns do not say.
func (p Plan) remarks() string {
	var all []string
	switch {
	case p.Rule == string(config.All):
		all = append(all, "all of this level")
	case p.Rule == string(config.Any):
		all = append(all, "any of this level")
	case p.Method == config.Watchdog:
		all = append(all, "as soon as the node must have reset itself")
	case p.Method == config.Manual:
		all = append(all, "asks an administrator")
	}
	if p.DelayRandomMS > 0 {
		all = append(all, fmt.Sprintf("delayed by %s to %s s", seconds(uint64(p.DelayMS)), seconds(uint64(p.DelayMS+p.DelayRandomMS))))
	} else if p.DelayMS > 0 {
		all = append(all, fmt.Sprintf("delayed by %s s", seconds(uint64(p.DelayMS))))
	}
	if p.Retries > 0 {
		all = append(all, fmt.Sprintf("up to %d retries, the first after %s s", p.Retries, seconds(uint64(p.BackoffMS))))
	}
	return dash(strings.Join(all, ", "))
}
