// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
)

func (t *tool) historyCommand() *cobra.Command {
	return &cobra.Command{
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
			t.printHistory(all, t.names())
			return nil
		},
	}
}

func (t *tool) printHistory(all []kernel.Request, name func(string, uint32) string) {
	if len(all) == 0 {
		fmt.Fprintln(t.out, "nobody was fenced from here since the module was loaded")
		return
	}
	var rows []table.Row
	for _, r := range all {
		why := r.Reason
		if r.Errmsg != "" {
			why += "\n" + r.Errmsg
		}
		rows = append(rows, table.Row{
			clock(r.At[uapi.EventStarted]), name(r.Cluster, r.Node), outcome(r.State), r.Method, r.Attempt, took(r), why,
		})
	}
	t.printTable(table.Row{"STARTED", "NODE", "OUTCOME", "METHOD", "TRIES", "SECONDS", "WHY"}, rows)
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
	return &cobra.Command{
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
				if cmd.Context().Err() != nil {
					return nil
				}
				if err == nil && t.json {
					err = t.printJSONLine(e)
				} else if err == nil {
					err = t.printEvent(e, name(e.Request.Cluster, e.Request.Node))
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (t *tool) printEvent(e kernel.Event, name string) error {
	text := "events were lost"
	if !e.Lost {
		text = line(e, name)
	}
	_, err := fmt.Fprintln(t.out, text)
	return err
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
	case uapi.EventNotice:
		text += ": all nodes are told to recover"
	case uapi.EventGateExpired:
		text += ": recovery goes on WITHOUT proof that the node is off"
	case uapi.EventFailed, uapi.EventObsolete:
		text += ": " + r.Errmsg
	}
	return text
}
