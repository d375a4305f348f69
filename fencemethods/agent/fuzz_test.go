// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/agent/sandbox"
)

func FuzzSplitOptions(f *testing.F) {
	for _, s := range []string{`ip=10.0.0.1 lanplus=1`, `a="b c" d=`, `a="`, `=`, `a=1 a=2`, `passwd=hunter2`, "a=1\nb=2", `"a b"=c`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		options, err := splitOptions(text)
		if err != nil {
			return
		}
		for _, o := range options {
			// A line of its own in what the agent reads: nothing else can be put in there.
			if o.key == "" || strings.ContainsAny(o.key+o.value, "\n\x00") || reserved()[o.key] != "" {
				t.Errorf("%q has %q = %q", text, o.key, o.value)
			}
		}
	})
}

// FuzzAnswer looks for something that an agent says of a node and that counts as off without the
// words and the exit code of off.
func FuzzAnswer(f *testing.F) {
	f.Add("Status: OFF\n", 2, "1,web1\n7,web7\n")
	f.Add("Status: ON\n", 0, "7\n")
	f.Add("status: off status: on", 2, "")
	f.Add("python3: can't open file", 2, ",7")
	f.Fuzz(func(t *testing.T, said string, code int, list string) {
		d, _ := acting(func(action string) sandbox.Result {
			if action == "list" {
				return exit(0, list, "")
			}
			return exit(code, said, "")
		}, "7")
		state, err := d.Status(within(t, time.Minute))
		if state == fencemethods.Off && err == nil {
			lists := slices.ContainsFunc(strings.Split(list, "\n"), func(line string) bool {
				return strings.HasPrefix(strings.TrimSpace(line), "7")
			})
			if code != 2 || !strings.Contains(strings.ToUpper(said), "STATUS: OFF") || !lists {
				t.Errorf("%q, exit code %d, list %q: taken for off", said, code, list)
			}
		}
	})
}
