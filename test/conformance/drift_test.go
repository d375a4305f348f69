// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/o2fence/o2fence/fencemethods/catalog"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// TestMain is in the root of the source tree, as the program is.
func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		panic(err)
	}
	m.Run()
}

const again = "run make conformance"

func TestTheDocumentIsThatOfTheResults(t *testing.T) {
	r, err := load(resultsFile)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != r.document() {
		t.Errorf("%s is not what the results make: %s", tableFile, again)
	}
}

func TestEveryMethodAndEveryCaseIsInTheDocument(t *testing.T) {
	r, err := load(resultsFile)
	if err != nil {
		t.Fatal(err)
	}
	columns := r.columns(false)
	for _, m := range catalog.Methods() {
		if untried()[m.Name] == "" && !slices.ContainsFunc(columns, func(c column) bool { return c.method == m.Name }) {
			t.Errorf("the method %s has not been tried: %s", m.Name, again)
		}
	}
	for _, s := range r.Suites {
		for _, name := range fencetest.Cases() {
			if _, ok := s.Cases[name]; !ok {
				t.Errorf("%s has not been tried on %q: %s", s.Method, name, again)
			}
		}
	}
	if err := r.ownFailures(); err != nil {
		t.Error(err)
	}
}

// The suite has to find out who lies. Debian's agent for APC's power strips takes an outlet that is
// not there for one that is off.
func TestALieIsFoundOut(t *testing.T) {
	if _, err := exec.LookPath("fence_apc_snmp"); err != nil {
		t.Skip("needs Debian's fence-agents:", err)
	}
	got, err := runCase(t.Context(), "snmp", "TestDebiansAgent", "wrong outlet")
	if err != nil {
		t.Fatal(err)
	}
	if got.Outcome != Lied {
		t.Errorf("%+v, want %q", got, Lied)
	}
}

func TestWhatEachSuiteHasShownIsTold(t *testing.T) {
	of := func(texts ...string) (c column) {
		for _, text := range texts {
			c.suites = append(c.suites, Suite{Cases: map[string]Result{"a": {Passed, text}}})
		}
		return c
	}
	if got := of("three", "ten", "ten").result("a"); got != (Result{Passed, "three; ten"}) {
		t.Errorf("%+v", got)
	}
	some := of("three", "ten")
	some.suites[1].Cases["a"] = Result{Failed, "no way"}
	if got := some.result("a"); got != (Result{Failed, "no way"}) {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsHeardOfATestIsItsResult(t *testing.T) {
	all, err := hear([]byte(strings.Join([]string{
		`{"Action":"attr","Test":"TestX","Key":"method","Value":"pdu"}`,
		`{"Action":"attr","Test":"TestX/a","Key":"case","Value":"a"}`,
		`{"Action":"output","Test":"TestX/a","Output":"    cases.go:12: 2026-11-28 13:29:51,231 ERROR: no | way\n"}`,
		`{"Action":"fail","Test":"TestX/a"}`,
		`{"Action":"attr","Test":"TestX/b","Key":"case","Value":"b"}`,
		`{"Action":"attr","Test":"TestX/b","Key":"reason","Value":"cannot"}`,
		`{"Action":"skip","Test":"TestX/b"}`,
		`{"Action":"attr","Test":"TestX/c","Key":"case","Value":"c"}`,
		`{"Action":"pass","Test":"TestX/c"}`,
		`{"Action":"attr","Test":"TestX/d","Key":"case","Value":"d"}`,
		`{"Action":"attr","Test":"TestX/d","Key":"note","Value":"a hundred of them"}`,
		`{"Action":"pass","Test":"TestX/d"}`,
	}, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	s, err := suite(all, "TestX")
	if err != nil || s.Method != "pdu" {
		t.Fatalf("%+v, %v", s, err)
	}
	for name, want := range map[string]Result{"a": {Failed, "no | way"}, "b": {Skipped, "cannot"}, "c": {Passed, ""}, "d": {Passed, "a hundred of them"}} {
		if s.Cases[name] != want {
			t.Errorf("%s: %+v, want %+v", name, s.Cases[name], want)
		}
	}
	if _, err := suite(all, "TestY"); err == nil {
		t.Error("a test that did not run is no error")
	}
}
