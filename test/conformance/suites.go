// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// find returns, by package below root, the tests that run the suite: those that call fencetest.Run, or
// a function of their package that does.
func find(root string) (map[string][]string, error) {
	suites := map[string][]string{}
	dirs, err := filepath.Glob(filepath.Join(root, "*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		calls, err := callsIn(dir)
		if err != nil {
			return nil, err
		}
		for _, f := range sorted(calls) {
			if strings.HasPrefix(f, "Test") && runsSuite(calls, f, nil) {
				suites[filepath.Base(dir)] = append(suites[filepath.Base(dir)], f)
			}
		}
	}
	return suites, nil
}

// callsIn returns, by each function of a package's tests, what it calls.
func callsIn(dir string) (map[string][]string, error) {
	calls := map[string][]string{}
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				ast.Inspect(f, func(n ast.Node) bool {
					if c, ok := n.(*ast.CallExpr); ok {
						calls[f.Name.Name] = append(calls[f.Name.Name], types.ExprString(c.Fun))
					}
					return true
				})
			}
		}
	}
	return calls, nil
}

func runsSuite(calls map[string][]string, f string, seen []string) bool {
	return !slices.Contains(seen, f) && slices.ContainsFunc(calls[f], func(callee string) bool {
		return callee == "fencetest.Run" || runsSuite(calls, callee, append(seen, f))
	})
}

// An event is one of go test -json (go doc test2json).
type event struct {
	Action, Test, Output, Key, Value string
}

// A test is what was heard of one.
type test struct {
	action string            // pass, skip or fail
	attrs  map[string]string // that fencetest has set
	output []string
}

// tries is how often a case is tried that fails: on a machine that is busy with other things a device's
// server may come too late. A lie is never tried again.
const tries = 3

// runTests runs the tests of a package. Failed ones are no error: they are results.
func runTests(ctx context.Context, name string, tests []string) ([]Suite, error) {
	suites, err := runOnce(ctx, name, tests, "^("+strings.Join(tests, "|")+")$")
	for _, s := range suites {
		for c, r := range s.Cases {
			for try := 1; try < tries && r.Outcome == Failed; try++ {
				again, err := runCase(ctx, name, s.Test, c)
				if err != nil {
					return nil, err
				}
				r = again
				s.Cases[c] = r
			}
		}
	}
	return suites, err
}

// runCase runs one case alone.
func runCase(ctx context.Context, name, test, c string) (Result, error) {
	suites, err := runOnce(ctx, name, []string{test}, "^"+test+"$/^"+regexp.QuoteMeta(strings.ReplaceAll(c, " ", "_"))+"$")
	if err != nil {
		return Result{}, err
	}
	return suites[0].Cases[c], nil
}

func runOnce(ctx context.Context, name string, tests []string, pattern string) ([]Suite, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout=30m", "-run="+pattern, "./fencemethods/"+name)
	cmd.Env = append(os.Environ(), fencetest.TheirsVar+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return nil, err
	}
	all, err := hear(out)
	if err != nil {
		return nil, err
	}
	var suites []Suite
	for _, t := range tests {
		s, err := suite(all, t)
		if err != nil {
			return nil, err
		}
		s.Package = name
		suites = append(suites, s)
	}
	return suites, nil
}

// hear collects what go test has said, by the tests' names.
func hear(out []byte) (map[string]*test, error) {
	all := map[string]*test{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, err
		}
		t := all[e.Test]
		if t == nil {
			t = &test{attrs: map[string]string{}}
			all[e.Test] = t
		}
		switch e.Action {
		case "pass", "fail", "skip":
			t.action = e.Action
		case "attr":
			t.attrs[e.Key] = e.Value
		case "output":
			t.output = append(t.output, e.Output)
		}
	}
	return all, lines.Err()
}

// suite makes that of a test, which has to have run.
func suite(all map[string]*test, name string) (Suite, error) {
	top := all[name]
	if top == nil || top.attrs["method"] == "" {
		var said []string
		for _, t := range all {
			said = append(said, t.output...)
		}
		return Suite{}, fmt.Errorf("%s did not run the suite:\n%s", name, strings.Join(said, ""))
	}
	s := Suite{
		Test: name, Method: top.attrs["method"], Peer: top.attrs["peer"], Theirs: top.attrs["theirs"] != "",
		Cases: map[string]Result{},
	}
	for at, t := range all {
		if strings.HasPrefix(at, name+"/") && t.attrs["case"] != "" {
			s.Cases[t.attrs["case"]] = t.result()
		}
	}
	return s, nil
}

func (t *test) result() Result {
	switch {
	case t.attrs["lie"] != "":
		return Result{Lied, ""}
	case t.action == "pass":
		return Result{Passed, t.attrs["note"]}
	case t.action == "skip" && t.attrs["reason"] != "":
		return Result{Skipped, t.attrs["reason"]}
	case t.action == "skip":
		return Result{Skipped, t.said()}
	}
	return Result{Failed, t.said()}
}

// said is the last that the test has said itself, without where it stands and without what differs
// from run to run.
func (t *test) said() string {
	var last string
	for _, line := range t.output {
		if m := said.FindStringSubmatch(line); m != nil {
			last = stamp.ReplaceAllString(strings.TrimSpace(m[1]), "")
		}
	}
	return last
}

var (
	said  = regexp.MustCompile(`^ +\w+\.go:\d+: (.*)`)
	stamp = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ERROR: |:\d{4,5}\b`)
)
