// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods/ask/desk"
)

// atDesk gives a command the flag of those that speak with this machine's listener.
func atDesk(cmd *cobra.Command, socket *string) *cobra.Command {
	cmd.Flags().StringVar(socket, "desk", desk.SocketFile, "socket of \"o2fencectl listen\" on this machine")
	return cmd
}

func (t *tool) questionsCommand() *cobra.Command {
	var socket string
	return atDesk(&cobra.Command{
		Use:   "questions",
		Short: "Show what the method \"ask\" asks the administrators of this machine",
		Long: "Shows the questions that clusters ask on this machine, and the last ones that are over. It needs\n" +
			"\"o2fencectl listen\" here, and neither the modules nor a cluster.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := desk.Questions(cmd.Context(), socket)
			if err != nil {
				return noDesk(err)
			}
			if t.json {
				return t.printJSON(all)
			}
			t.printQuestions(all, time.Now())
			return nil
		},
	}, &socket)
}

// noDesk says what to do when nobody listens here.
func noDesk(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("nobody listens for questions on this machine (%w): start o2fence-listen.service", err)
	}
	return err
}

func (t *tool) printQuestions(all []desk.Record, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintln(t.out, "nobody asks, and nobody has asked since the listener was started")
		return
	}
	var rows []table.Row
	for _, r := range all {
		left := "-"
		if r.State != desk.Over {
			left = roughly(r.Until.Sub(now))
		}
		rows = append(rows, table.Row{r.Request, r.Node, r.Cluster, r.AskedBy, silence(r, now), left, r.State, story(r)})
	}
	t.printTable(table.Row{"REQUEST", "NODE", "CLUSTER", "ASKED BY", "SILENT", "LEFT", "STATE", "WHAT IS KNOWN"}, rows)
}

// story is all that there is to say of a question, a line for each thing.
func story(r desk.Record) string {
	text := r.Reason
	if r.Incarnation != "" {
		text += "\nincarnation " + r.Incarnation
	}
	if r.Who != "" {
		text += fmt.Sprintf("\n%s by %s: %s", verdict(r), r.Who, r.Why)
	}
	if r.End != "" {
		text += "\n" + r.End
	}
	return text
}

// verdict is the answer that was given here. A question that is over has it no longer in its state.
func verdict(r desk.Record) string {
	switch {
	case r.State != desk.Over:
		return string(r.State)
	case r.Taken:
		return "answered"
	}
	return "answered too late"
}

func silence(r desk.Record, now time.Time) string {
	switch {
	case r.SilentSince.IsZero():
		return "-"
	case r.State == desk.Over:
		return roughly(r.EndedAt.Sub(r.SilentSince))
	}
	return roughly(now.Sub(r.SilentSince))
}

func roughly(d time.Duration) string { return max(d, 0).Round(time.Second).String() }

func (t *tool) declineCommand() *cobra.Command {
	var a answer
	cmd := &cobra.Command{
		Use:   "decline NODE --reason WHY [--request REQUEST]",
		Short: "Tell the method \"ask\" that nobody can vouch for a node",
		Long: "Answers a question of the method \"ask\" with no: the attempt fails at once, and the node's next\n" +
			"method has its turn. Who and why are kept. Without --request it is the only question about that node\n" +
			"that this machine was asked.",
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.reason == "" {
				return usageError{errors.New("say why: --reason")}
			}
			a.node = args[0]
			if a.request == "" {
				return t.answerOnly(cmd.Context(), a, usageError{errNoRequest})
			}
			return t.answer(cmd.Context(), a)
		},
	}
	cmd.Flags().StringVarP(&a.reason, "reason", "r", "", "why; required")
	cmd.Flags().StringVar(&a.request, "request", "", "the question that is answered, from o2fencectl questions")
	return atDesk(cmd, &a.socket)
}

var errNoRequest = errors.New("say which question is answered: --request, from o2fencectl questions")

// An answer is one to a question of the method ask.
type answer struct {
	socket, request, node, reason string
	yes                           bool
}

// answerOnly answers the only question about the node that this machine's listener knows. Where another one
// was asked earlier, somebody may have gone to look for that, while the node came back and fell silent once
// more: then he has to say which. Where there is none, the error is otherwise.
func (t *tool) answerOnly(ctx context.Context, a answer, otherwise error) error {
	all, err := desk.Questions(ctx, a.socket)
	if err != nil {
		return otherwise
	}
	all = slices.DeleteFunc(all, func(r desk.Record) bool { return r.Node != a.node })
	isOpen := func(r desk.Record) bool { return r.State != desk.Over }
	switch {
	case !slices.ContainsFunc(all, isOpen):
		return otherwise
	case len(all) > 1:
		t.printQuestions(all, time.Now())
		return usageError{fmt.Errorf("more than one question was asked about node %s: %w", a.node, errNoRequest)}
	}
	a.request = all[0].Request
	fmt.Fprintf(t.out, "%s: asked by %s, silent for %s\n", a.request, all[0].AskedBy, silence(all[0], time.Now()))
	return t.answer(ctx, a)
}

// answer gives an answer to this machine's listener, and says what the cluster makes of it.
func (t *tool) answer(ctx context.Context, a answer) error {
	r, err := desk.Tell(ctx, a.socket, a.request, a.node, a.yes, who(), a.reason)
	switch {
	case errors.Is(err, desk.ErrText), errors.Is(err, desk.ErrUnknown):
		return usageError{err}
	case err != nil:
		return noDesk(err)
	case r.Taken:
		fmt.Fprintf(t.out, "node %s of cluster %s: the answer counts\n", r.Node, r.Cluster)
		return nil
	case r.State == desk.Over:
		return fmt.Errorf("the answer came too late, and does not count: %s", r.End)
	}
	return fmt.Errorf("the answer is not taken yet: %s does not hear it; it is told again for %s, see o2fencectl questions",
		r.AskedBy, roughly(time.Until(r.Until)))
}
