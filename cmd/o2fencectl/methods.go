// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/fencemethods/catalog"
)

// A MethodStatus is what "methods --json" prints of a method.
type MethodStatus struct {
	Name    string        `json:"method"`
	Summary string        `json:"summary"`
	Module  string        `json:"module"`  // empty when the kernel does not have it
	PortID  uint32        `json:"port_id"` // of the bridge that carries it
	Carried bool          `json:"carried"` // it can be used now
	Used    bool          `json:"used"`    // a node of a joined cluster has it
	Left    bool          `json:"left"`    // by a bridge with another configuration, of use to nobody
	Params  []ParamStatus `json:"parameters"`
}

// A ParamStatus is a parameter that fence.conf may set.
type ParamStatus struct {
	Name     string `json:"name"`
	Help     string `json:"help"`
	Required bool   `json:"required"`
	Default  string `json:"default"`
}

func (t *tool) methodsCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "methods [METHOD]",
		Short:             "Show the methods there are, and the parameters of one",
		Args:              arguments(cobra.MaximumNArgs(1)),
		ValidArgsFunction: methodNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := methods(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				i := slices.IndexFunc(all, func(m MethodStatus) bool { return m.Name == args[0] })
				if i < 0 {
					return usageError{unknown("method", args[0], namesOf(all))}
				}
				all = all[i : i+1]
			}
			if t.json {
				return t.printJSON(all)
			}
			t.printMethods(all)
			if len(args) == 1 {
				t.printParams(all[0].Params)
			}
			return nil
		},
	}
}

func methodNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return namesOf(known()), cobra.ShellCompDirectiveNoFileComp
}

func namesOf(all []MethodStatus) []string {
	var names []string
	for _, m := range all {
		names = append(names, m.Name)
	}
	return names
}

// known are the methods of the catalog and those of the module o2fence_methods.
func known() []MethodStatus {
	all := []MethodStatus{{
		Name: config.Watchdog, Summary: "waits until the node must have reset itself",
		Params: []ParamStatus{
			{Name: "wait", Help: "ms to wait, instead of what the node's slot on the disk says"},
		},
	}, {
		Name: config.Manual, Summary: "waits for o2fencectl confirm", Params: []ParamStatus{},
	}}
	for _, m := range catalog.Methods() {
		s := MethodStatus{Name: m.Name, Summary: m.Summary, Params: []ParamStatus{}}
		for _, p := range m.Params {
			s.Params = append(s.Params, ParamStatus{p.Name, p.Help, p.Required, p.Default})
		}
		all = append(all, s)
	}
	return all
}

// methods are the known ones and all that the kernel knows. Without the module o2fence nothing is
// carried, and nothing else is missing.
func methods(ctx context.Context) ([]MethodStatus, error) {
	all := known()
	registered, nodes, err := registeredMethods(ctx)
	if err != nil && !errors.Is(err, kernel.ErrNotLoaded) {
		return nil, err
	}
	inCatalog := len(all)
	for _, m := range registered {
		i := slices.IndexFunc(all, func(s MethodStatus) bool { return s.Name == m.Name })
		if i < 0 {
			all = append(all, MethodStatus{Name: m.Name, Summary: strange(m.Name), Params: []ParamStatus{}})
			i = len(all) - 1
		}
		all[i].Module, all[i].PortID, all[i].Carried = m.Module, m.PortID, m.Carried()
		all[i].Used = slices.ContainsFunc(nodes, func(n kernel.Node) bool {
			return slices.ContainsFunc(n.Steps, func(s kernel.Step) bool { return s.Method == m.Name })
		})
		all[i].Left = i >= inCatalog && !all[i].Carried && !all[i].Used
	}
	return all, nil
}

// strange says what a method may be that is not in the catalog.
func strange(name string) string {
	switch {
	case strings.Contains(name, "+"):
		return "a level: all of these at once, each has to prove it"
	case strings.Contains(name, "|"):
		return "a level: these at once, the earliest proof counts"
	}
	return "of another module"
}

func registeredMethods(ctx context.Context) ([]kernel.Method, []kernel.Node, error) {
	client, err := kernel.Dial()
	if err != nil {
		return nil, nil, err
	}
	defer client.Close()
	all, err := client.Methods(ctx)
	if err != nil {
		return nil, nil, err
	}
	nodes, err := client.Nodes(ctx)
	return all, nodes, err
}

// printMethods has what bridges have left in a line of its own: the kernel keeps a name that was once
// registered until its module goes, and levels get new names with each change of fence.conf.
func (t *tool) printMethods(all []MethodStatus) {
	var rows []table.Row
	var left []string
	for _, m := range all {
		if m.Left && len(all) > 1 {
			left = append(left, m.Name)
			continue
		}
		by := "nobody here"
		switch {
		case m.Used && !m.Carried:
			by = noBridge
		case m.PortID != 0:
			by = "o2fenced"
		case m.Carried:
			by = m.Module
		}
		rows = append(rows, table.Row{m.Name, by, m.Summary})
	}
	t.printTable(table.Row{"METHOD", "CARRIED BY", "WHAT IT DOES"}, rows)
	if len(left) > 0 {
		fmt.Fprintf(t.out, "\nof earlier configurations, in use nowhere: %s\n", strings.Join(left, ", "))
	}
}

func (t *tool) printParams(params []ParamStatus) {
	if len(params) == 0 {
		return
	}
	var rows []table.Row
	for _, p := range params {
		value := dash(p.Default)
		if p.Required {
			value = "required"
		}
		rows = append(rows, table.Row{p.Name, value, p.Help})
	}
	fmt.Fprintln(t.out)
	t.printTable(table.Row{"PARAMETER", "DEFAULT", "MEANING"}, rows)
}
