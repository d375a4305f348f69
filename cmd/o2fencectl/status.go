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

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/o2cb"
	"github.com/o2fence/o2fence/fencemethods/catalog"
)

// A Status is what "status --json" prints.
type Status struct {
	Clusters []kernel.Cluster `json:"clusters"`
	Nodes    []NodeStatus     `json:"nodes"`
	Regions  []kernel.Region  `json:"regions"`
	Mounts   []MountStatus    `json:"mounts"`
}

// A NodeStatus is a node of a joined cluster.
type NodeStatus struct {
	Name string `json:"name"`
	kernel.Node
}

// A MountStatus is a mounted OCFS2 file system.
type MountStatus struct {
	Point     string   `json:"mount"`
	Source    string   `json:"source"`
	Regions   []string `json:"regions"`
	Protected bool     `json:"protected"` // the kernel watches all its regions
}

func (t *tool) statusCommand() *cobra.Command {
	return t.reading(&cobra.Command{
		Use:   "status",
		Short: "Show clusters, nodes, and which mounts are protected",
		Long:  "Shows clusters, nodes, and which mounts are protected. Exits with 1 when one is not.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			if t.json {
				err = t.printJSON(s)
			} else {
				t.printStatus(s)
			}
			if err == nil && !s.protected() {
				return errSaid
			}
			return err
		},
	})
}

func (s *Status) protected() bool {
	return !slices.ContainsFunc(s.Mounts, func(m MountStatus) bool { return !m.Protected })
}

func (t *tool) status(ctx context.Context) (*Status, error) {
	client, err := kernel.Dial()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	clusters, err1 := client.Clusters(ctx)
	nodes, err2 := client.Nodes(ctx)
	regions, err3 := client.Regions(ctx)
	mounts, err4 := mountStatus(regions)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	s := &Status{Clusters: clusters, Nodes: []NodeStatus{}, Regions: regions, Mounts: mounts}
	name := t.names()
	for _, n := range nodes {
		s.Nodes = append(s.Nodes, NodeStatus{name(n.Cluster, n.Number), n})
	}
	return s, nil
}

// mountStatus compares what is mounted with what the kernel watches.
func mountStatus(watched []kernel.Region) ([]MountStatus, error) {
	fs := o2cb.FS{}
	mounts, err := fs.Mounts()
	if err != nil {
		return nil, err
	}
	var used []o2cb.Region
	cluster, err := fs.Cluster()
	if err == nil {
		used, err = fs.Regions(cluster.Name)
	}
	if err != nil && !errors.Is(err, o2cb.ErrOffline) {
		return nil, err
	}
	all := []MountStatus{}
	for _, m := range mounts {
		s := MountStatus{Point: m.Point, Source: m.Source, Regions: []string{}}
		for _, r := range m.Regions(used) {
			s.Regions = append(s.Regions, r.UUID)
		}
		s.Protected = len(s.Regions) > 0 && !slices.ContainsFunc(s.Regions, func(uuid string) bool {
			return !slices.ContainsFunc(watched, func(r kernel.Region) bool { return r.UUID == uuid })
		})
		all = append(all, s)
	}
	return all, nil
}

func (t *tool) printStatus(s *Status) {
	if len(s.Clusters) == 0 {
		fmt.Fprintln(t.out, "no cluster is joined")
	}
	for _, c := range s.Clusters {
		fmt.Fprintf(t.out, "cluster %s: this is node %d, a node that misses %d heartbeats of %d ms is fenced, %d fences under way\n\n",
			c.Name, c.ThisNode, c.Missed, c.PeriodMS, c.Fencing)
	}
	var rows []table.Row
	for _, n := range s.Nodes {
		rows = append(rows, table.Row{n.Number, n.Name, life(n.Node, s), steps(n.Steps), last(n.Last)})
	}
	if len(rows) > 0 {
		t.printTable(table.Row{"NODE", "NAME", "HEARTBEAT", "METHODS", "LAST FENCE"}, rows)
		fmt.Fprintln(t.out)
	}
	rows = nil
	for _, m := range s.Mounts {
		protected := "yes"
		if !m.Protected {
			protected = "NO"
		}
		rows = append(rows, table.Row{m.Point, m.Source, protected})
	}
	if len(rows) > 0 {
		t.printTable(table.Row{"MOUNT", "SOURCE", "PROTECTED"}, rows)
	}
}

// life is a node's heartbeat over all regions.
func life(n kernel.Node, s *Status) string {
	live, silent := false, false
	for _, r := range s.Regions {
		if r.Cluster == n.Cluster {
			live = live || slices.Contains(r.Live, n.Number)
			silent = silent || slices.Contains(r.Silent, n.Number)
		}
	}
	switch {
	case silent && live:
		return "silent in a region"
	case silent:
		return "SILENT"
	case live:
		return "live"
	}
	return "-"
}

func steps(all []kernel.Step) string {
	var names []string
	for _, s := range all {
		names = append(names, s.Method)
	}
	return strings.Join(names, ", ")
}

func last(r *kernel.Request) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%s %s", r.State, clock(r.At[r.State]))
}

// A MethodStatus is what "methods --json" prints of a method.
type MethodStatus struct {
	Name    string        `json:"method"`
	Summary string        `json:"summary"`
	Module  string        `json:"module"`  // empty when the kernel does not have it
	PortID  uint32        `json:"port_id"` // of the bridge that carries it
	Carried bool          `json:"carried"` // it can be used now
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
	return t.reading(&cobra.Command{
		Use:               "methods [METHOD]",
		Short:             "Show the methods there are, and the parameters of one",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: methodNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			all := methods(cmd.Context())
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
			t.printMethods(all, len(args) == 1)
			return nil
		},
	})
}

func methodNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return namesOf(methods(cmd.Context())), cobra.ShellCompDirectiveNoFileComp
}

func namesOf(all []MethodStatus) []string {
	var names []string
	for _, m := range all {
		names = append(names, m.Name)
	}
	return names
}

// methods are those of the catalog and those that the kernel knows; without the module, which is
// only needed to tell what is carried, those of the catalog.
func methods(ctx context.Context) []MethodStatus {
	var all []MethodStatus
	for _, m := range catalog.Methods() {
		s := MethodStatus{Name: m.Name, Summary: m.Summary, Params: []ParamStatus{}}
		for _, p := range m.Params {
			s.Params = append(s.Params, ParamStatus{p.Name, p.Help, p.Required, p.Default})
		}
		all = append(all, s)
	}
	client, err := kernel.Dial()
	if err != nil {
		return all
	}
	defer client.Close()
	registered, err := client.Methods(ctx)
	if err != nil {
		return all
	}
	for _, m := range registered {
		i := slices.IndexFunc(all, func(s MethodStatus) bool { return s.Name == m.Name })
		if i < 0 {
			all = append(all, MethodStatus{Name: m.Name, Summary: "a kernel method", Params: []ParamStatus{}})
			i = len(all) - 1
		}
		all[i].Module, all[i].PortID = m.Module, m.PortID
		all[i].Carried = m.PortID != 0 || m.Module != "o2fence"
	}
	return all
}

func (t *tool) printMethods(all []MethodStatus, params bool) {
	var rows []table.Row
	for _, m := range all {
		by := "nobody here"
		switch {
		case m.PortID != 0:
			by = "the bridge"
		case m.Carried:
			by = "module " + m.Module
		}
		rows = append(rows, table.Row{m.Name, by, m.Summary})
	}
	t.printTable(table.Row{"METHOD", "CARRIED BY", "WHAT IT DOES"}, rows)
	if !params {
		return
	}
	rows = nil
	for _, p := range all[0].Params {
		value := dash(p.Default)
		if p.Required {
			value = "required"
		}
		rows = append(rows, table.Row{p.Name, value, p.Help})
	}
	fmt.Fprintln(t.out)
	t.printTable(table.Row{"PARAMETER", "DEFAULT", "MEANING"}, rows)
}
