// SPDX-License-Identifier: GPL-2.0-only

// Command guest is what runs in the machines of the pressure tests: the processes that make memory
// short, those that fence, and the one that measures, which itself keeps the memory rules.
package main

import (
	"errors"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("no command"))
	}
	commands := map[string]func([]string) error{
		"files": files, "look": look, "write": write, "hog": hog, "eat": eat,
		"measure": measure, "plain": plain, "agents": agents,
	}
	run, ok := commands[os.Args[1]]
	if !ok {
		fail(fmt.Errorf("unknown command %q", os.Args[1]))
	}
	if err := run(os.Args[2:]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "guest:", err)
	os.Exit(1)
}
