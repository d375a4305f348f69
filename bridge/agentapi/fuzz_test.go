// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func FuzzOptions(f *testing.F) {
	for _, s := range []string{
		"action=off\nplug=web1\n", "node=3\nfail_time=1700000000\n", "# comment\n\nnodename=web1\naction=REBOOT",
		"action=metadata", "port=web1\npower_timeout=20s\ndelay=5\n", "no equals sign", "=\n", "passwd=hunter2\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, stdin string) {
		a := &Agent{Stdin: strings.NewReader(stdin), Stdout: io.Discard, Stderr: io.Discard}
		o, err := a.options()
		if err != nil {
			return
		}
		if !slices.Contains(append(actions(), actionHelp, actionVersion), o.action) {
			t.Errorf("%q is the action %q", stdin, o.action)
		}
		if o.timeout < 0 || o.delay < 0 {
			t.Errorf("%q waits %v and %v", stdin, o.timeout, o.delay)
		}
	})
}

func FuzzNodelist(f *testing.F) {
	for _, s := range []string{
		"nodelist {\n node {\n  nodeid: 1\n  name: web1\n }\n}\n", "nodelist {\n node {\n", "}\n}\nnodelist {",
		"# nodelist {\nnode {\n nodeid: 2\n}\n", "nodelist{\nnode{\nring0_addr:10.0.0.1\n}}", ":",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, node := range nodelist(text) {
			for key, value := range node {
				if !strings.Contains(text, key) || !strings.Contains(text, value) {
					t.Errorf("%q has %q: %q", text, key, value)
				}
			}
		}
	})
}
