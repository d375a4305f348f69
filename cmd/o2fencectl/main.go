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
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
)

// The exit codes.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotLoaded  = 3
	exitPermission = 4
)

const exitCodes = `
Exit codes:
  0  well
  1  it failed, or the answer is bad: a mount is not protected, a check failed,
     the node could not be fenced
  2  the command line or the configuration is wrong
  3  the module o2fence is not loaded
  4  no permission
`

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newRoot(&tool{out: os.Stdout, errs: os.Stderr}).ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errSaid) {
		fmt.Fprintln(os.Stderr, "o2fencectl:", err)
	}
	return exitCode(err)
}

// errSaid is the failure of a command whose output says it all.
var errSaid = errors.New("said already")

// A usageError is a wrong command line or configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func exitCode(err error) int {
	var usage usageError
	var status statusError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return status.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, kernel.ErrNotLoaded):
		return exitNotLoaded
	case errors.Is(err, kernel.ErrPermission), errors.Is(err, fs.ErrPermission):
		return exitPermission
	}
	return exitFailed
}

// A tool is what all commands share.
type tool struct {
	clusterFile, fenceFile string
	cluster                string
	json                   bool
	out, errs              io.Writer
}

func newRoot(t *tool) *cobra.Command {
	root := &cobra.Command{
		Use:           "o2fencectl",
		Short:         "Fencing for OCFS2 clusters",
		SilenceErrors: true, SilenceUsage: true,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetHelpTemplate(root.HelpTemplate() + "{{if not .HasParent}}" + exitCodes + "{{end}}")
	root.SetFlagErrorFunc(wrongFlag)
	flags := root.PersistentFlags()
	flags.StringVar(&t.clusterFile, "cluster-conf", config.ClusterFile, "ocfs2-tools' cluster.conf")
	flags.StringVar(&t.fenceFile, "fence-conf", config.FenceFile, "how each node is fenced")
	root.AddCommand(
		t.ofCluster(t.joinCommand()), t.ofCluster(t.watchCommand()), t.ofCluster(t.leaveCommand()),
		t.reading(t.statusCommand()), t.reading(t.methodsCommand()), t.ofCluster(t.reading(t.checkCommand())),
		t.ofCluster(t.reading(t.planCommand())),
		t.ofCluster(t.unfenceCommand()), t.ofCluster(t.fenceCommand()), t.ofCluster(t.confirmCommand()),
		t.reading(t.questionsCommand()), t.declineCommand(), t.reading(t.listenCommand()),
		t.reading(t.historyCommand()), t.reading(t.eventsCommand()),
		t.reading(t.grantsCommand()), t.runCommand(),
	)
	strictCompletion(root)
	return root
}

// reading gives a command the flag that all reading commands have.
func (t *tool) reading(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&t.json, "json", false, "print JSON")
	return cmd
}

// ofCluster gives a command the flag of those that are about one cluster.
func (t *tool) ofCluster(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&t.cluster, "cluster", "c", "", "the cluster, when there are several")
	return cmd
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

// review is load, and says what is doubtful in the configuration.
func (t *tool) review() (*config.Cluster, error) {
	c, warnings, err := t.load()
	for _, w := range warnings {
		t.warn("%v", w)
	}
	return c, err
}

func (t *tool) warn(format string, args ...any) {
	fmt.Fprintf(t.errs, "o2fencectl: "+format+"\n", args...)
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
