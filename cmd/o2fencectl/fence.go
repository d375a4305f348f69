// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods/ask"
)

func (t *tool) fenceCommand() *cobra.Command {
	reason := "no reason given"
	cmd := &cobra.Command{
		Use:   "fence NODE",
		Short: "Fence a node now, from here, and wait for the end",
		Long: "Fences a node by its configured methods, whether it is silent or not, and says how it ended:\n" +
			"0 when it is proven off or cut off, 1 when no method could prove it.",
		Args:              arguments(cobra.ExactArgs(1)),
		ValidArgsFunction: t.nodeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := t.node(args[0])
			if err != nil {
				return err
			}
			if host, err := os.Hostname(); err == nil {
				if us, err := c.NodeOfHost(host); err == nil && us.Number == n.Number {
					return usageError{errors.New("a node does not fence itself: order it on another one")}
				}
			}
			return t.fence(cmd.Context(), c.Name, n, fmt.Sprintf("ordered by %s: %s", who(), reason))
		},
	}
	cmd.Flags().StringVarP(&reason, "reason", "r", reason, "for the history")
	return cmd
}

// who is the administrator, as the history names him.
func who() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return name + "@" + host
}

// fence listens before it asks, so that no step is missed.
func (t *tool) fence(ctx context.Context, cluster string, n *config.Node, reason string) error {
	listener, err := kernel.Listen()
	if err != nil {
		return err
	}
	defer listener.Close()
	client, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Fence(ctx, cluster, n.Number, 0, reason); err != nil {
		return err
	}
	for e, err := range listener.Events(ctx) {
		switch {
		case ctx.Err() != nil:
			return errors.New("interrupted; the fence goes on: see o2fencectl status")
		case err != nil:
			return err
		case e.Lost:
			return errors.New("events were lost: see o2fencectl history for the end")
		case e.Request.Cluster != cluster || e.Request.Node != n.Number || e.Request.ID == 0:
			continue
		}
		fmt.Fprintln(t.out, line(e, n.Name))
		switch e.Event {
		case uapi.EventNotice:
			return nil
		case uapi.EventFailed, uapi.EventObsolete:
			return errSaid
		}
	}
	return errors.New("the events have ended")
}

func (t *tool) confirmCommand() *cobra.Command {
	a := answer{yes: true}
	cmd := &cobra.Command{
		Use:   "confirm NODE --reason WHY [--request REQUEST]",
		Short: "Vouch that a node is off, for the methods \"manual\" and \"ask\"",
		Long: "Says that you have made sure that the node is off or cut off from the disks. Its locks are recovered\n" +
			"at once: if it is alive, the file system will be destroyed. Who and why are kept.\n\n" +
			"For \"manual\", on the node that fences. For \"ask\", on any machine that is asked. With --request nobody\n" +
			"vouches for another fence than the one he was looking at: for \"ask\" it is what o2fencectl questions\n" +
			"shows, for \"manual\" the number that o2fencectl status shows. Without it the fence that is under way when\n" +
			"the command is run is confirmed, or the only question about that node that this machine was asked; where\n" +
			"it was asked more than one, they are listed.",
		Args:              arguments(cobra.ExactArgs(1)),
		ValidArgsFunction: t.nodeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.reason == "" {
				return usageError{errors.New("say how you know that it is off: --reason")}
			}
			a.node = args[0]
			number, err := strconv.ParseUint(a.request, 10, 64)
			switch {
			case a.request == "":
			case err != nil:
				return t.answer(cmd.Context(), a)
			case number == 0: // which would be taken for none
				return usageError{errors.New("no fence has the number 0: see o2fencectl status")}
			}
			err = t.confirm(cmd.Context(), a, number)
			if number != 0 || !isAskedElsewhere(err) {
				return err
			}
			return t.answerOnly(cmd.Context(), a, err)
		},
	}
	cmd.Flags().StringVarP(&a.reason, "reason", "r", "", "how you know; required")
	cmd.Flags().StringVar(&a.request, "request", "", "what is answered: a question of \"ask\", from o2fencectl questions, or the number of a fence, from o2fencectl status")
	return atDesk(cmd, &a.socket)
}

// isAskedElsewhere tells whether it may be the method ask that wants to know: the kernel of this machine has
// nothing that it asks an administrator itself.
func isAskedElsewhere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || // of cluster.conf: it is an admin machine
		errors.Is(err, kernel.ErrNotLoaded) || errors.Is(err, errNotHere) || errors.Is(err, errNoRequest)
}

func (t *tool) confirm(ctx context.Context, a answer, number uint64) error {
	c, n, err := t.node(a.node)
	if errors.Is(err, fs.ErrNotExist) {
		return usageError{fmt.Errorf("%w; for the method %q %w", err, ask.Name, errNoRequest)}
	}
	if err != nil {
		return err
	}
	return confirm(ctx, c.Name, n, number, who()+": "+a.reason)
}

// confirm vouches for a node whose attempt asks for an administrator. Number is that of the request which
// is meant, 0 for the one under way.
func confirm(ctx context.Context, cluster string, n *config.Node, number uint64, voucher string) error {
	client, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	nodes, err := client.Nodes(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(nodes, func(have kernel.Node) bool {
		return have.Cluster == cluster && have.Number == n.Number
	})
	if i < 0 {
		return fmt.Errorf("cluster %s is not joined", cluster)
	}
	r := nodes[i].Last
	if err := vouchable(r, n.Name, number); err != nil {
		return err
	}
	err = client.Confirm(ctx, *r, voucher)
	if errors.Is(err, kernel.ErrStale) || r.Method != config.Manual && errors.Is(err, kernel.ErrPermission) {
		return fmt.Errorf("node %s is being fenced by %s, which asks nobody: %v", n.Name, r.Method, err)
	}
	return err
}

var errNotHere = errors.New("is not being fenced from here")

// vouchable tells why a node's last request is none that is to be vouched for.
func vouchable(r *kernel.Request, name string, number uint64) error {
	switch {
	case r == nil || r.ID == 0 || setup.Ended(r):
		return fmt.Errorf("node %s %w", name, errNotHere)
	case number != 0 && r.ID != number:
		return fmt.Errorf("node %s is being fenced by request %d, and not by %d any more: look at it anew", name, r.ID, number)
	case isAsk(r.Method) && r.State == uapi.EventInitiated:
		return usageError{errNoRequest}
	}
	return nil
}

// isAsk tells whether a method is ask, or a level that it is in.
func isAsk(method string) bool {
	return slices.Contains(strings.FieldsFunc(method, func(r rune) bool { return r == '+' || r == '|' }), ask.Name)
}
