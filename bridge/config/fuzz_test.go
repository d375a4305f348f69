// SPDX-License-Identifier: GPL-2.0-only

package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/o2fence/o2fence/bridge/config"
)

// FuzzParse checks what the kernel relies on: whatever is accepted fits the wire, names of nodes
// are safe in paths, and every list ends in the kernel.
func FuzzParse(f *testing.F) {
	cluster, err := os.ReadFile("testdata/cluster.conf")
	if err != nil {
		f.Fatal(err)
	}
	names, err := filepath.Glob("testdata/refused/*.conf")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(cluster), string(text))
		f.Add(string(text), config.Minimal)
	}
	f.Fuzz(func(t *testing.T, cluster, fence string) {
		c, err := config.Parse(config.File{Name: "c", Text: cluster}, config.File{Name: "f", Text: fence}, methods())
		if err != nil {
			return
		}
		for _, cluster := range c.Clusters {
			for _, n := range cluster.Nodes {
				checkNode(t, n)
			}
		}
	})
}

func checkNode(t *testing.T, n config.Node) {
	if n.Name == "" || len(n.Name) > 64 || strings.Contains(n.Name, "/") || n.Number > 254 {
		t.Errorf("node %q, %d", n.Name, n.Number)
	}
	if len(n.Steps) == 0 || len(n.Steps) > 8 {
		t.Fatalf("node %s has %d steps", n.Name, len(n.Steps))
	}
	if last := n.Steps[len(n.Steps)-1].Method; last != config.Watchdog && last != config.Manual {
		t.Errorf("node %s ends in %s", n.Name, last)
	}
	for _, s := range n.Steps {
		if s.TimeoutMS == 0 || s.TimeoutMS > 86400000 || len(s.Params) > 1024 || strings.Contains(string(s.Params), "\x00") {
			t.Errorf("node %s: step %+v", n.Name, s)
		}
	}
}
