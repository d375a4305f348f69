// SPDX-License-Identifier: GPL-2.0-only

package ktap

import (
	"io"
	"testing"
)

// Run reads KTAP from r to its end and reports each result as a subtest of t: "not ok" fails,
// SKIP skips with its reason. Every problem of the stream fails t itself.
func Run(t *testing.T, r io.Reader) {
	t.Helper()
	report := Parse(r)
	for _, problem := range report.Problems {
		t.Error(problem)
	}
	runAll(t, report.Results)
}

func runAll(t *testing.T, results []Result) {
	t.Helper()
	for _, r := range results {
		t.Run(r.Name, func(t *testing.T) {
			for _, line := range r.Diagnostics {
				t.Log(line)
			}
			runAll(t, r.Subtests)
			switch {
			case !r.OK:
				t.Errorf("not ok %s", r.Reason)
			case r.Skip:
				t.Skip(r.Reason)
			}
		})
	}
}
