// SPDX-License-Identifier: GPL-2.0-only

// O2fencectl is the administrator's tool of o2fence: it joins and leaves clusters, shows what is
// protected and what was fenced, proves that every method would work, and fences by hand.
//
// Exit codes: 0 well; 1 it failed, or the answer is bad (a mount is not protected, a check failed,
// the node could not be fenced); 2 the command line or the configuration is wrong; 3 the module
// o2fence is not loaded; 4 no permission.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/nearest"
	"github.com/o2fence/o2fence/bridge/setup"
)

// The exit codes.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotLoaded  = 3
	exitPermission = 4
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintln(os.Stderr, "o2fencectl:", err)
	}
	stop()
	os.Exit(exitCode(err)) //nolint:gocritic // stop was called
}

// errSaid is the failure of a command whose output says it all.
var errSaid = errors.New("said already")

// A usageError is a wrong command line or configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, kernel.ErrNotLoaded):
		return exitNotLoaded
	case errors.Is(err, kernel.ErrPermission):
		return exitPermission
	}
	return exitFailed
}

// A tool is what all commands share.
type tool struct {
	clusterFile, fenceFile string
	cluster                string
	json                   bool
	out                    io.Writer
}

func newRoot() *cobra.Command {
	t := &tool{out: os.Stdout}
	root := &cobra.Command{
		Use:           "o2fencectl",
		Short:         "Fencing for OCFS2 clusters",
		SilenceErrors: true, SilenceUsage: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return usageError{unknown("command", args[0], commandNames(cmd))}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())}
	})
	flags := root.PersistentFlags()
	flags.StringVar(&t.clusterFile, "cluster-conf", config.ClusterFile, "ocfs2-tools' cluster.conf")
	flags.StringVar(&t.fenceFile, "fence-conf", config.FenceFile, "how each node is fenced")
	flags.StringVarP(&t.cluster, "cluster", "c", "", "the cluster, when there are several")
	root.AddCommand(
		t.joinCommand(), t.watchCommand(), t.leaveCommand(),
		t.statusCommand(), t.methodsCommand(), t.checkCommand(),
		t.fenceCommand(), t.confirmCommand(), t.historyCommand(), t.eventsCommand(),
	)
	return root
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return names
}

// unknown is the error for a word that is none of those known.
func unknown(what, word string, known []string) error {
	if near := nearest.Nearest(word, known); near != "" {
		return fmt.Errorf("unknown %s %q, did you mean %q?", what, word, near)
	}
	return fmt.Errorf("unknown %s %q, expected one of %s", what, word, strings.Join(known, ", "))
}

// noArgs and oneArg make wrong arguments a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}

func oneArg(cmd *cobra.Command, args []string) error {
	if err := cobra.ExactArgs(1)(cmd, args); err != nil {
		return usageError{fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())}
	}
	return nil
}

// load reads the configuration and finds the cluster meant.
func (t *tool) load() (*config.Cluster, []*config.Error, error) {
	cfg, err := setup.Load(t.clusterFile, t.fenceFile)
	if err != nil {
		return nil, nil, usageError{err}
	}
	c, err := cfg.Cluster(t.cluster)
	if err != nil {
		return nil, nil, usageError{err}
	}
	return c, cfg.Warnings, nil
}

// node finds a node by its name.
func (t *tool) node(name string) (*config.Cluster, *config.Node, error) {
	c, _, err := t.load()
	if err != nil {
		return nil, nil, err
	}
	n, err := c.Node(name)
	if err != nil {
		return nil, nil, usageError{err}
	}
	return c, n, nil
}

// nodeNames completes a node's name on the command line.
func (t *tool) nodeNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, _, err := t.load()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, n := range c.Nodes {
		names = append(names, n.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// names maps a cluster's node numbers to names, as far as the configuration tells.
func (t *tool) names() func(cluster string, number uint32) string {
	cfg, err := setup.Load(t.clusterFile, t.fenceFile)
	return func(cluster string, number uint32) string {
		if err == nil {
			if c, err := cfg.Cluster(cluster); err == nil {
				for _, n := range c.Nodes {
					if n.Number == number {
						return n.Name
					}
				}
			}
		}
		return fmt.Sprint(number)
	}
}
