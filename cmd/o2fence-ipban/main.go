// SPDX-License-Identifier: GPL-2.0-only

// O2fence-ipban runs on a storage server, or on the router or switch before it, and drops the addresses of
// nodes that are fenced by the method "ipban". Package gate has what it proves before it says so.
//
// Exit codes: 0 well, or it was told to end; 1 it failed, or the answer is bad; 2 the command line or the
// configuration is wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/fencemethods/ipban/filter"
	"github.com/o2fence/o2fence/fencemethods/ipban/gate"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(exitCode(command().ExecuteContext(ctx)))
}

// A failed is a command that ran and could not do its work.
type failed struct{ error }

// Unwrap returns the error itself.
func (f failed) Unwrap() error { return f.error }

// errBad is for an answer that says itself what is bad.
var errBad = errors.New("")

func exitCode(err error) int {
	_, isFailed := errors.AsType[failed](err)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errBad):
		return 1
	}
	fmt.Fprintln(os.Stderr, "o2fence-ipban:", err)
	if isFailed {
		return 1
	}
	return 2
}

// options are those of all commands.
type options struct{ config, state string }

func command() *cobra.Command {
	var o options
	asJSON := false
	root := &cobra.Command{
		Use:           "o2fence-ipban",
		Short:         "bans fenced nodes on a storage server",
		Long:          "O2fence-ipban runs on a storage server, or on the router or switch before it,\nand drops the addresses of nodes that are fenced by the method ipban.",
		SilenceErrors: true, SilenceUsage: true,
	}
	root.PersistentFlags().StringVar(&o.config, "config", config.IPBanFile, "who may be banned, by which addresses")
	root.PersistentFlags().StringVar(&o.state, "state", gate.StateFile, "where bans are kept over a restart")
	status := &cobra.Command{
		Use: "status", Short: "show which nodes are banned; exits with 1 when that is not certain of one", Args: cobra.NoArgs,
		RunE: o.with(func(ctx context.Context, g *opened, _ []string) error { return g.status(ctx, os.Stdout, asJSON) }),
	}
	status.Flags().BoolVar(&asJSON, "json", false, "for programs")
	root.AddCommand(
		&cobra.Command{Use: "serve", Short: "take orders until told to end", Args: cobra.NoArgs, RunE: o.with(serve)},
		&cobra.Command{
			Use: "restore", Short: "ban whom was banned before, at the start of the machine", Args: cobra.NoArgs,
			RunE: o.with(restore),
		},
		&cobra.Command{
			Use: "check", Short: "see whether nodes could be banned; bans nobody", Args: cobra.NoArgs,
			RunE: o.with(func(ctx context.Context, g *opened, _ []string) error { return g.check(ctx, os.Stdout) }),
		},
		status,
		&cobra.Command{
			Use: "release [CLUSTER/]NODE", Short: "let a node in again, by your word that it has restarted", Args: cobra.ExactArgs(1),
			RunE: o.with(release),
		},
	)
	return root
}

// An opened is what every command works with.
type opened struct {
	*gate.Gate
	config *config.IPBan
	filter *filter.Filter
}

// with reads the configuration and opens the gate.
func (o *options) with(run func(context.Context, *opened, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		cfg, err := config.LoadIPBan(o.config)
		if err != nil {
			return err
		}
		if err := refuseOwn(cfg); err != nil {
			return err
		}
		family := filter.INet
		if cfg.Bridge {
			family = filter.Bridge
		}
		f, err := filter.Open(family)
		if err != nil {
			return failed{err}
		}
		defer f.Close()
		g, err := gate.Open(cfg, f, o.state)
		if err != nil {
			return failed{err}
		}
		if err := run(c.Context(), &opened{g, cfg, f}, args); err != nil {
			return failed{err}
		}
		return nil
	}
}

// refuseOwn refuses a node that has an address of this machine's: to ban it would cut off everybody.
func refuseOwn(cfg *config.IPBan) error {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return failed{err}
	}
	for _, n := range cfg.Nodes {
		for _, a := range own {
			prefix, err := netip.ParsePrefix(a.String())
			if err == nil && slices.Contains(n.Addresses, prefix.Addr().Unmap()) {
				return fmt.Errorf("node %s: %v is an address of this machine", n.Name, prefix.Addr())
			}
		}
	}
	return nil
}

func restore(_ context.Context, g *opened, _ []string) error {
	_, err := g.Restore()
	return err
}

func release(_ context.Context, g *opened, args []string) error {
	cluster, name, ok := strings.Cut(args[0], "/")
	if !ok {
		cluster, name = "", args[0]
	}
	return g.Release(cluster, name)
}
