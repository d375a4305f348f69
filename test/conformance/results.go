// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
)

// Results are what is known of all methods.
type Results struct {
	Made   []string `json:"made"` // where and with what, for people
	Suites []Suite  `json:"suites"`
}

// A Suite is one run of the suite: a method against a device's server.
type Suite struct {
	Package string            `json:"package"` // below fencemethods
	Test    string            `json:"test"`
	Method  string            `json:"method"`
	Peer    string            `json:"peer"`
	Theirs  bool              `json:"theirs,omitempty"` // it is no method of ours but another's program
	Cases   map[string]Result `json:"cases"`
}

// A Result is that of a case.
type Result struct {
	Outcome Outcome `json:"outcome"`
	Text    string  `json:"text,omitempty"` // why it was skipped, what went wrong, or what else there is to say
}

// An Outcome is how a case ends.
type Outcome string

// Lied is a failure, and the worst: the program said that a machine is off which was not.
const (
	Passed  Outcome = "pass"
	Skipped Outcome = "skip"
	Failed  Outcome = "fail"
	Lied    Outcome = "lie"
)

func load(file string) (Results, error) {
	var r Results
	text, err := os.ReadFile(file)
	if err != nil {
		return r, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return r, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

func (r Results) save(file string) error {
	slices.SortFunc(r.Suites, func(a, b Suite) int {
		return cmp.Or(strings.Compare(a.Package, b.Package), strings.Compare(a.Test, b.Test))
	})
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// replace puts in what was run now, and drops what is no test any more.
func (r *Results) replace(suites map[string][]string, ran []Suite) {
	r.Suites = slices.DeleteFunc(r.Suites, func(s Suite) bool {
		return !slices.Contains(suites[s.Package], s.Test) ||
			slices.ContainsFunc(ran, func(n Suite) bool { return n.Package == s.Package && n.Test == s.Test })
	})
	r.Suites = append(r.Suites, ran...)
}

// ownFailures is an error that names all cases that methods of o2fence's own have failed.
func (r Results) ownFailures() error {
	var errs []error
	for _, s := range r.Suites {
		for _, name := range sorted(s.Cases) {
			if c := s.Cases[name]; !s.Theirs && c.Outcome != Passed && c.Outcome != Skipped {
				errs = append(errs, fmt.Errorf("%s, %s: %s: %s", s.Method, s.Test, name, c.Text))
			}
		}
	}
	return errors.Join(errs...)
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// describe tells the machine, and the versions of what the methods are tried against.
func describe(ctx context.Context) []string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	version, _, _ := strings.Cut(string(release), "-")
	debian, _ := os.ReadFile("/etc/debian_version")
	made := []string{
		fmt.Sprintf("Debian %s, Linux %s, %d processors", strings.TrimSpace(string(debian)), strings.TrimSpace(version), runtime.NumCPU()),
		strings.Replace(runtime.Version(), "go", "Go ", 1),
	}
	for _, name := range []string{"fence-agents", "sbd", "openipmi", "ipmitool", "python3-pyghmi", "snmpd", "qemu-system-x86"} {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f=${Version}", name).Output()
		if err == nil {
			made = append(made, name+" "+string(out))
		}
	}
	return made
}
