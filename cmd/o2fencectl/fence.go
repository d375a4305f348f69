// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/bridge/uapi"
)

func (t *tool) fenceCommand() *cobra.Command {
	reason := "no reason given"
	cmd := &cobra.Command{
		Use:   "fence NODE",
		Short: "Fence a node now, from here, and wait for the end",
		Long: "Fences a node by its configured methods, whether it is silent or not, and says how it ended:\n" +
			"0 when it is proven off or cut off, 1 when no method could prove it.",
		Args:              oneArg,
		ValidArgsFunction: t.nodeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := t.node(args[0])
			if err != nil {
				return err
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
		case err != nil:
			return err
		case e.Lost:
			return errors.New("events were lost: see o2fencectl history for the end")
		case e.Request.Cluster != cluster || e.Request.Node != n.Number:
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
	var reason string
	cmd := &cobra.Command{
		Use:   "confirm NODE --reason WHY",
		Short: "Vouch that a node is off, for the method \"manual\"",
		Long: "Tells the kernel that you have made sure that the node is off or cut off from the disks. Its locks\n" +
			"are recovered at once: if it is alive, the file system will be destroyed. Who and why are kept.",
		Args:              oneArg,
		ValidArgsFunction: t.nodeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usageError{errors.New("say how you know that it is off: --reason")}
			}
			c, n, err := t.node(args[0])
			if err != nil {
				return err
			}
			client, err := kernel.Dial()
			if err != nil {
				return err
			}
			defer client.Close()
			nodes, err := client.Nodes(cmd.Context())
			if err != nil {
				return err
			}
			for _, have := range nodes {
				if have.Cluster == c.Name && have.Number == n.Number && have.Last != nil && setup.Active(have.Last) {
					return client.Confirm(cmd.Context(), *have.Last, who()+": "+reason)
				}
			}
			return fmt.Errorf("node %s is not being fenced from here", n.Name)
		},
	}
	cmd.Flags().StringVarP(&reason, "reason", "r", "", "how you know; required")
	return cmd
}

func (t *tool) historyCommand() *cobra.Command {
	return t.reading(&cobra.Command{
		Use:   "history",
		Short: "Show the last 64 fences from here, the newest first",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := kernel.Dial()
			if err != nil {
				return err
			}
			defer client.Close()
			all, err := client.Requests(cmd.Context())
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(all)
			}
			name := t.names()
			var rows []table.Row
			for _, r := range all {
				rows = append(rows, table.Row{
					clock(r.At[uapi.EventStarted]), name(r.Cluster, r.Node), outcome(r.State), r.Method,
					r.Attempt, took(r), r.Reason, dash(r.Errmsg),
				})
			}
			t.printTable(table.Row{"STARTED", "NODE", "OUTCOME", "METHOD", "ATTEMPTS", "SECONDS", "REASON", "MESSAGE"}, rows)
			return nil
		},
	})
}

// outcome is the end of a request in one word.
func outcome(state uapi.Event) string {
	if state == uapi.EventNotice {
		return "fenced"
	}
	return state.String()
}

func took(r kernel.Request) string {
	end, ok := r.At[r.State]
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.2f", end.Sub(r.At[uapi.EventStarted]).Seconds())
}

func (t *tool) eventsCommand() *cobra.Command {
	return t.reading(&cobra.Command{
		Use:   "events",
		Short: "Follow what happens, a line for each step",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			listener, err := kernel.Listen()
			if err != nil {
				return err
			}
			defer listener.Close()
			name := t.names()
			for e, err := range listener.Events(cmd.Context()) {
				switch {
				case cmd.Context().Err() != nil:
					return nil
				case err != nil:
					return err
				case t.json:
					err = t.printJSONLine(e)
				case e.Lost:
					_, err = fmt.Fprintln(t.out, "events were lost")
				default:
					_, err = fmt.Fprintln(t.out, line(e, name(e.Request.Cluster, e.Request.Node)))
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// line is an event for people.
func line(e kernel.Event, name string) string {
	r := e.Request
	text := fmt.Sprintf("%s  node %s: %s", clock(r.At[e.Event]), name, e.Event)
	switch e.Event {
	case uapi.EventStarted:
		text += ": " + r.Reason
	case uapi.EventInitiated:
		text += fmt.Sprintf(", attempt %d by %s", r.Attempt, r.Method)
	case uapi.EventAttemptFailed:
		text += fmt.Sprintf(" by %s: %s (%v)", r.Method, r.Errmsg, r.Errno)
	case uapi.EventFenced:
		text += fmt.Sprintf(" by %s after %s", r.Method, r.At[uapi.EventFenced].Sub(r.At[uapi.EventStarted]).Round(time.Millisecond))
	case uapi.EventObsolete:
		text += ": " + r.Errmsg
	}
	return text
}
