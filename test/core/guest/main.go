// SPDX-License-Identifier: GPL-2.0-only

// Command guest tests the core of o2fence in the machine that it runs in, and prints KTAP. Its
// arguments are the directories of o2fence's modules and of the tests' own.
//
// As "guest bridge", "guest heir" and "guest stranger" it is another process that some of the tests
// need.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/test/ktap"
)

type test struct {
	name string
	run  func(s *suite) error
}

func main() {
	var err error
	code := 0
	switch {
	case len(os.Args) > 1 && os.Args[1] == "bridge":
		err = serve(os.Args[2:])
	case len(os.Args) == 2 && os.Args[1] == "heir":
		err = unix.Pause()
	case len(os.Args) == 2 && os.Args[1] == "stranger":
		err = trespass()
	case len(os.Args) == 3:
		code, err = runAll(os.Args[1], os.Args[2])
	default:
		err = fmt.Errorf("usage: %s O2FENCE_MODULES TEST_MODULES", os.Args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runAll(modules, own string) (code int, err error) {
	s := &suite{files: map[string]string{
		"o2fence":         modules + "/o2fence.ko",
		"o2fence_methods": modules + "/o2fence_methods.ko",
		"core_methods":    own + "/core_methods.ko",
	}}
	var tests []test
	for _, part := range [][]test{membershipTests, attemptTests, answerTests, bridgeTests, inputTests, unloadTests} {
		tests = append(tests, part...)
	}
	if err := s.open(); err != nil {
		return 0, err
	}
	defer s.close()
	p := ktap.NewPrinter(os.Stdout, len(tests))
	for _, t := range tests {
		p.Result(t.name, t.run(s))
		s.clean()
	}
	return p.ExitCode(), nil
}
