// SPDX-License-Identifier: GPL-2.0-only

package config_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/bridge/config"
)

// o2cb runs the o2cb of ocfs2-tools on a configuration file; the test is skipped without one.
func o2cb(t *testing.T, file string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("o2cb")
	if err != nil {
		t.Skip("no ocfs2-tools here: ", err)
	}
	out, err := exec.Command(path, append([]string{"--config-file=" + file}, args...)...).CombinedOutput()
	return string(out), err
}

// oneline writes clusters as "o2cb list-cluster --oneline" does, but sorted.
func oneline(clusters []*config.Cluster) []string {
	var lines []string
	for _, c := range clusters {
		mode := "local"
		if c.GlobalHeartbeat {
			mode = "global"
		}
		lines = append(lines, fmt.Sprintf("cluster: %d %s %s", len(c.Nodes), mode, c.Name))
		for _, n := range c.Nodes {
			lines = append(lines, fmt.Sprintf("node: %d %s %s %s", n.Number, n.Name, n.Addr, c.Name))
		}
		for _, r := range c.Regions {
			lines = append(lines, fmt.Sprintf("heartbeat: %s %s", r, c.Name))
		}
	}
	slices.Sort(lines)
	return lines
}

// compareWithO2cb fails unless o2cb and this package read the same from a file.
func compareWithO2cb(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse(config.File{Name: file, Text: string(text)}, config.File{Name: "fence.conf"}, nil)
	if err != nil {
		t.Fatalf("refused:\n%v", err)
	}
	var want []string
	for _, cluster := range c.Clusters {
		out, err := o2cb(t, file, "list-cluster", cluster.Name, "--oneline")
		if err != nil {
			t.Fatalf("o2cb refuses it: %v\n%s", err, out)
		}
		want = append(want, strings.Split(strings.TrimSpace(out), "\n")...)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, oneline(c.Clusters)); diff != "" {
		t.Errorf("-o2cb +parsed:\n%s", diff)
	}
}

func TestWhatO2cbWritesIsAccepted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cluster.conf")
	for _, args := range []string{
		"add-cluster mycluster",
		"add-node mycluster web-1.example.com --ip 10.0.0.1 --number 0",
		"add-node mycluster web_2 --ip 10.0.0.2 --number 254 --port 1",
		"add-heartbeat mycluster 77D95EF51C0149D2823674FCC162CF8B",
		"add-heartbeat mycluster dcda2845177f4d59a0f2dcd8de507cc3",
		"heartbeat-mode mycluster global",
		"add-cluster empty",
	} {
		if out, err := o2cb(t, file, strings.Fields(args)...); err != nil {
			t.Fatalf("o2cb %s: %v\n%s", args, err, out)
		}
	}
	compareWithO2cb(t, file)
}

// TestLooseFilesMeanWhatO2cbReads has the liberties that o2cb takes and hand-written files use.
func TestLooseFilesMeanWhatO2cbReads(t *testing.T) {
	node := "node:\n\tname = a\n\tcluster = e\n\tnumber = 1\n\tip_address = 10.0.0.1\n\tip_port = 7777\n"
	for name, text := range map[string]string{
		"spaces instead of a tab":        strings.ReplaceAll(node, "\t", "        ") + "cluster:\n name = e\n node_count = 1\n",
		"no blank line between stanzas":  "cluster:\n\tname = e\n\tnode_count = 1\n" + node,
		"no newline at the end":          node + "\ncluster:\n\tname = e\n\tnode_count = 1",
		"no space around the sign":       strings.ReplaceAll(node, " = ", "=") + "\ncluster:\n\tname=e\n\tnode_count=1\n",
		"white space after the colon":    strings.Replace(node, ":", ": \t", 1) + "\ncluster:\n\tname = e\n\tnode_count = 1\n",
		"leading zeros are decimal":      strings.Replace(node, "= 1\n", "= 010\n", 1) + "\ncluster:\n\tname = e\n\tnode_count = 1\n",
		"comments do not end a stanza":   "#\n" + strings.Replace(node, "\tnumber", "# x\n\tnumber", 1) + "\ncluster:\n\tname = e\n\tnode_count = 1\n",
		"blank lines with white space":   node + " \t\n\ncluster:\n\tname = e\n\tnode_count = 1\n\t\n",
		"no heartbeat_mode means local":  node + "\ncluster:\n\tnode_count = 1\n\tname = e\n",
		"the example of Debian's README": strings.ReplaceAll(node, "= e", "= ocfs2") + "\ncluster:\n        node_count = 1\n        name = ocfs2\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "cluster.conf")
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			compareWithO2cb(t, file)
		})
	}
}
