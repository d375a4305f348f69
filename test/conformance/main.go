// SPDX-License-Identifier: GPL-2.0-only

// Conformance runs the conformance suite (fencemethods/fencetest) on all methods, and on other
// people's programs for the same devices, and makes docs/conformance.md of what came out.
//
//	conformance [package ...]
//
// It runs every test below fencemethods that calls fencetest.Run, or those of the packages alone, such
// as snmp; what is known of the others is kept, in test/conformance/results.json. It has to be run in
// the root of the source tree, as root where loop devices are wanted, and takes minutes: fence agents
// are slow. It exits with 1 when a method of o2fence's own fails a case, or a test cannot be run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

const (
	resultsFile = "test/conformance/results.json"
	tableFile   = "docs/conformance.md"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("conformance: ")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, packages []string) error {
	suites, err := find("fencemethods")
	if err != nil {
		return err
	}
	for _, name := range packages {
		if suites[name] == nil {
			return fmt.Errorf("package fencemethods/%s does not run the suite", name)
		}
	}
	var ran []Suite
	for _, name := range sorted(suites) {
		if len(packages) > 0 && !slices.Contains(packages, name) {
			continue
		}
		log.Print(name)
		more, err := runTests(ctx, name, suites[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		ran = append(ran, more...)
	}
	results, err := load(resultsFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	results.Made = describe(ctx)
	results.replace(suites, ran)
	if err := results.save(resultsFile); err != nil {
		return err
	}
	if err := os.WriteFile(tableFile, []byte(results.document()), 0o644); err != nil {
		return err
	}
	return results.ownFailures()
}
