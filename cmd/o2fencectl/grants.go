// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/memsafe"
)

func (t *tool) grantsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "grants",
		Short: "Show who may take how much from the memory reserve",
		Long: `Shows each claim on the reserve that vm.min_free_kbytes sets, with the processes that hold it, and each
process that is in PF_MEMALLOC mode without a claim of its own. It changes nothing.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			account, err := memsafe.SystemReserve().Account()
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(account)
			}
			t.printGrants(account)
			return nil
		},
	}
}

func (t *tool) printGrants(a memsafe.Account) {
	var rows []table.Row
	for _, g := range a.Grants {
		var pids, flagged, locked []string
		for _, p := range g.Processes {
			pids = append(pids, fmt.Sprint(p.PID))
			flagged = append(flagged, fmt.Sprintf("%d of %d", p.Flagged, p.Threads))
			locked = append(locked, fmt.Sprint(p.LockedKiB))
		}
		budget := fmt.Sprint(g.BudgetKiB)
		if g.BudgetKiB == 0 {
			budget = "NONE"
		}
		rows = append(rows, table.Row{
			g.Name, strings.Join(pids, "\n"), budget, strings.Join(flagged, "\n"), strings.Join(locked, "\n"), g.Sockets,
		})
	}
	if len(rows) > 0 {
		t.printTable(table.Row{"NAME", "PID", "BUDGET KIB", "FLAGGED THREADS", "LOCKED KIB", "SOCKETS"}, rows)
		fmt.Fprintln(t.out)
	}
	fmt.Fprintf(t.out, "reserve %d KiB: %d without claims, %d claimed; %d more can be claimed\n",
		a.ReserveKiB, a.OwnKiB, a.ClaimedKiB, a.LeftKiB)
}
