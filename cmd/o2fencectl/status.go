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
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/bridge/uapi"
)

// A Status is what "status --json" prints.
type Status struct {
	Clusters []ClusterStatus `json:"clusters"`
	Nodes    []NodeStatus    `json:"nodes"`
	Regions  []kernel.Region `json:"regions"`
	Mounts   []MountStatus   `json:"mounts"`
}

// A ClusterStatus is a cluster that is joined.
type ClusterStatus struct {
	Name    string `json:"name"`
	Fencing int    `json:"fencing"` // fences under way (R10)
}

// A NodeStatus is a node of a joined cluster, another than this one.
type NodeStatus struct {
	Name string `json:"name"`
	kernel.Node
	Uncarried []string `json:"uncarried,omitempty"` // its methods that no bridge carries now
}

// noBridge is for a method that a node needs and that nobody carries.
const noBridge = "NO BRIDGE"

// A MountStatus is a mounted OCFS2 file system.
type MountStatus struct {
	Point     string   `json:"mount"`
	Source    string   `json:"source"`
	Regions   []string `json:"regions"`
	Protected bool     `json:"protected"` // the kernel watches all its regions
}

func (t *tool) statusCommand() *cobra.Command {
	return &cobra.Command{
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
	}
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
	nodes, err := client.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	regions, err := client.Regions(ctx)
	if err != nil {
		return nil, err
	}
	methods, err := client.Methods(ctx)
	if err != nil {
		return nil, err
	}
	mounts, err := mountStatus(regions)
	if err != nil {
		return nil, err
	}
	s := &Status{Clusters: joined(nodes, regions), Nodes: []NodeStatus{}, Regions: regions, Mounts: mounts}
	name := t.names()
	for _, n := range nodes {
		s.Nodes = append(s.Nodes, NodeStatus{name(n.Cluster, n.Number), n, uncarried(n.Steps, methods)})
	}
	return s, nil
}

func uncarried(steps []kernel.Step, methods []kernel.Method) []string {
	var names []string
	for _, s := range steps {
		if !kernel.Carries(methods, s.Method) {
			names = append(names, s.Method)
		}
	}
	return names
}

// joined are the clusters that the kernel knows: by their nodes, and one of a single node by what it
// has mounted.
func joined(nodes []kernel.Node, regions []kernel.Region) []ClusterStatus {
	all := []ClusterStatus{}
	find := func(name string) *ClusterStatus {
		i := slices.IndexFunc(all, func(c ClusterStatus) bool { return c.Name == name })
		if i < 0 {
			i = len(all)
			all = append(all, ClusterStatus{Name: name})
		}
		return &all[i]
	}
	for _, n := range nodes {
		c := find(n.Cluster)
		if n.Last != nil && n.Last.ID != 0 && !setup.Ended(n.Last) {
			c.Fencing++
		}
	}
	for _, r := range regions {
		find(r.Cluster)
	}
	return all
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
		fmt.Fprintf(t.out, "cluster %s: fences under way: %d\n", c.Name, c.Fencing)
	}
	for _, r := range s.Regions {
		fmt.Fprintf(t.out, "region %s: fenced after %d missed heartbeats of %d ms\n", r.UUID, r.Missed, r.PeriodMS)
	}
	fmt.Fprintln(t.out)
	t.printNodes(s)
	t.printMounts(s.Mounts)
}

func (t *tool) printNodes(s *Status) {
	if len(s.Nodes) == 0 {
		return
	}
	var rows []table.Row
	for _, n := range s.Nodes {
		rows = append(rows, table.Row{n.Number, n.Name, life(n.Node, s), steps(n), last(n.Last)})
	}
	t.printTable(table.Row{"NODE", "NAME", "HEARTBEAT", "METHODS", "LAST FENCE"}, rows)
	fmt.Fprintln(t.out)
}

func (t *tool) printMounts(mounts []MountStatus) {
	if len(mounts) == 0 {
		fmt.Fprintln(t.out, "no OCFS2 file system is mounted")
		return
	}
	var rows []table.Row
	for _, m := range mounts {
		protected := "yes"
		if !m.Protected {
			protected = "NO"
		}
		rows = append(rows, table.Row{m.Point, m.Source, protected})
	}
	t.printTable(table.Row{"MOUNT", "SOURCE", "PROTECTED"}, rows)
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

func steps(n NodeStatus) string {
	var names []string
	for _, s := range n.Steps {
		name := s.Method
		if slices.Contains(n.Uncarried, name) {
			name += " (" + noBridge + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// last is a node's last request. Before there is one, the kernel keeps since when the node is silent.
func last(r *kernel.Request) string {
	switch {
	case r == nil:
		return "-"
	case r.ID == 0:
		return "none; silent since " + clock(r.At[uapi.EventSilent])
	case !setup.Ended(r):
		return fmt.Sprintf("UNDER WAY (%d): %s by %s, attempt %d", r.ID, r.State, r.Method, r.Attempt)
	}
	return fmt.Sprintf("%s %s", outcome(r.State), clock(r.At[r.State]))
}
