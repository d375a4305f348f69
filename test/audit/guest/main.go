// SPDX-License-Identifier: GPL-2.0-only

// Command guest tests o2fence-audit in the machine that it runs in, and prints KTAP. Its arguments are
// the directory of o2fence's modules, that of its programs, and that of its configuration. As "guest bridge"
// it is the process that is audited, and as "guest idle" one that asks for nothing.
package main

import (
	"fmt"
	"os"

	"github.com/o2fence/o2fence/test/ktap"
)

func main() {
	var err error
	code := 0
	switch {
	case len(os.Args) == 2 && os.Args[1] == "bridge":
		err = serve()
	case len(os.Args) == 2 && os.Args[1] == "idle":
		idle()
	case len(os.Args) == 4:
		code, err = runAll(&suite{modules: os.Args[1], programs: os.Args[2], config: os.Args[3]})
	default:
		err = fmt.Errorf("usage: %s O2FENCE_MODULES O2FENCE_PROGRAMS CONFIGURATION", os.Args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runAll(s *suite) (code int, err error) {
	p := ktap.NewPrinter(os.Stdout, len(tests))
	for _, t := range tests {
		s.note = ""
		err := t.run(s)
		if s.note != "" {
			p.Diagnose("%s", s.note)
		}
		p.Result(t.name, err)
	}
	s.close()
	return p.ExitCode(), nil
}
