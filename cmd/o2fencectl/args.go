// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/o2fence/o2fence/fencemethods/nearest"
)

// unknown is the error for a word that is none of those known.
func unknown(what, word string, known []string) error {
	if near := nearest.Nearest(word, known); near != "" {
		return fmt.Errorf("unknown %s %q, did you mean %q?", what, word, near)
	}
	return fmt.Errorf("unknown %s %q, expected one of %s", what, word, strings.Join(known, ", "))
}

// noCommand is for the root: whatever is left there is no command.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return usageError{unknown("command", args[0], names)}
}

// wrongFlag makes what is wrong with a flag a usage error.
func wrongFlag(cmd *cobra.Command, err error) error {
	absent, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok || len(absent.GetSpecifiedName()) < 2 {
		return usageError{fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())}
	}
	var flags []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
	return usageError{unknown("flag", "--"+absent.GetSpecifiedName(), flags)}
}

// arguments makes a wrong number of arguments a usage error.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())}
		}
		return nil
	}
}

// noArgs has an error of its own: cobra's would say that the argument is an unknown command.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument, found %q; see: %[1]s --help", cmd.CommandPath(), args[0])}
	}
	return nil
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

// strictCompletion has cobra's own command refuse shells that it does not know.
func strictCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	completion, _, err := root.Find([]string{"completion"})
	if err != nil {
		return
	}
	completion.Args, completion.RunE = noCommand, root.RunE
	for _, shell := range completion.Commands() {
		shell.Args = noArgs
	}
}
