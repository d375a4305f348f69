// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/fencemethods"
)

// A Check is what "check --json" prints of one method of one node.
type Check struct {
	Node   string `json:"node"`
	Method string `json:"method"`
	OK     bool   `json:"ok"`
	State  string `json:"state"` // as the device reads: on, off or unknown
	Error  string `json:"error"`
	MS     int64  `json:"ms"` // how long it took

}

func (t *tool) checkCommand() *cobra.Command {
	return t.reading(&cobra.Command{
		Use:   "check",
		Short: "Check the configuration, and every method of every node from here",
		Long: "Reads the configuration and asks every device whether it would obey. Nothing is switched. Exits\n" +
			"with 1 when a device would not, with 2 when the configuration is wrong.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, warnings, err := t.load()
			if err != nil {
				return err
			}
			for _, w := range warnings {
				cmd.PrintErrln("o2fencectl:", w)
			}
			checks := checkAll(cmd.Context(), c)
			if t.json {
				err = t.printJSON(checks)
			} else {
				t.printChecks(checks)
			}
			for _, check := range checks {
				if err == nil && !check.OK {
					return errSaid
				}
			}
			return err
		},
	})
}

// checkAll asks all devices at once.
func checkAll(ctx context.Context, c *config.Cluster) []Check {
	checks := []Check{}
	var running sync.WaitGroup
	for _, n := range c.Nodes {
		for _, s := range n.Steps {
			checks = append(checks, Check{Node: n.Name, Method: s.Method})
		}
	}
	i := 0
	for _, n := range c.Nodes {
		for _, s := range n.Steps {
			check := &checks[i]
			running.Go(func() { check.run(ctx, c, n, s) })
			i++
		}
	}
	running.Wait()
	return checks
}

// run asks one device. A kernel method has none; whether the kernel has it, the join checks.
func (c *Check) run(ctx context.Context, cluster *config.Cluster, n config.Node, s config.Step) {
	c.State = fencemethods.Unknown.String()
	if setup.IsKernel(s.Method) {
		c.OK = true
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.TimeoutMS)*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := c.ask(ctx, cluster, n, s)
	c.MS = time.Since(began).Milliseconds()
	c.OK = err == nil
	if err != nil {
		c.Error = err.Error()
	}
}

func (c *Check) ask(ctx context.Context, cluster *config.Cluster, n config.Node, s config.Step) error {
	device, err := setup.Open(cluster, n, s)
	if err != nil {
		return err
	}
	defer device.Close()
	if err := device.Check(ctx); err != nil {
		return err
	}
	state, err := device.Status(ctx)
	c.State = state.String()
	return err
}

func (t *tool) printChecks(checks []Check) {
	var rows []table.Row
	for _, c := range checks {
		result := "ok"
		if !c.OK {
			result = "FAILED: " + c.Error
		}
		rows = append(rows, table.Row{c.Node, c.Method, c.State, c.MS, result})
	}
	t.printTable(table.Row{"NODE", "METHOD", "STATE", "MS", "RESULT"}, rows)
}
