// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
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
	Level  int    `json:"level"` // counts from 1; several methods may be in one
	Method string `json:"method"`
	OK     bool   `json:"ok"`
	State  string `json:"state"` // as the device reads: on, off or unknown
	Error  string `json:"error"`
	MS     int64  `json:"ms"` // how long it took
}

func (t *tool) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, and every method of every node from here",
		Long: "Reads the configuration and asks every device whether it would obey. Nothing is switched. Exits\n" +
			"with 1 when a device would not, with 2 when the configuration is wrong. \"o2fencectl plan\" shows in\n" +
			"what order and for how long they would be tried.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := t.review()
			if err != nil {
				return err
			}
			if host, err := os.Hostname(); err == nil {
				if _, err := c.NodeOfHost(host); err != nil {
					t.warn("this machine cannot join: %v", err)
				}
			}
			checks := checkAll(cmd.Context(), c)
			if err := t.printChecks(checks); err != nil {
				return err
			}
			if slices.ContainsFunc(checks, func(c Check) bool { return !c.OK }) {
				return errSaid
			}
			return nil
		},
	}
}

// checkAll asks all devices at once.
func checkAll(ctx context.Context, c *config.Cluster) []Check {
	var running sync.WaitGroup
	all, opener := make([][]Check, len(c.Nodes)), setup.NewOpener()
	for i, n := range c.Nodes {
		all[i] = make([]Check, len(n.Devices()))
		checks := all[i]
		for j, s := range n.Steps {
			for _, s := range s.Devices() {
				check := &checks[0]
				check.Level, checks = j+1, checks[1:]
				running.Go(func() { check.run(ctx, opener, c, n, s) })
			}
		}
	}
	running.Wait()
	return slices.Concat(all...)
}

// run asks one device. A kernel method has none; whether the kernel has it, the join checks.
func (c *Check) run(ctx context.Context, o *setup.Opener, cluster *config.Cluster, n config.Node, s config.Step) {
	c.Node, c.Method, c.State = n.Name, s.Method, fencemethods.Unknown.String()
	if setup.IsKernel(s.Method) {
		c.OK = true
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.TimeoutMS)*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := c.ask(ctx, o, cluster, n, s)
	c.MS = time.Since(began).Milliseconds()
	c.OK = err == nil
	if err != nil {
		c.Error = err.Error()
	}
}

func (c *Check) ask(ctx context.Context, o *setup.Opener, cluster *config.Cluster, n config.Node, s config.Step) error {
	device, err := o.Open(cluster, n, s)
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

func (t *tool) printChecks(checks []Check) error {
	if t.json {
		return t.printJSON(checks)
	}
	var rows []table.Row
	for _, c := range checks {
		state, took, result := c.State, fmt.Sprint(c.MS), "ok"
		switch {
		case !c.OK:
			result = "FAILED: " + c.Error
		case setup.IsKernel(c.Method):
			state, took, result = "-", "-", "a kernel method: nothing to ask"
		}
		rows = append(rows, table.Row{c.Node, c.Level, c.Method, state, took, result})
	}
	t.printTable(table.Row{"NODE", "LEVEL", "METHOD", "STATE", "MS", "RESULT"}, rows)
	return nil
}
