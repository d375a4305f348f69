// SPDX-License-Identifier: GPL-2.0-only

package main_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const clusterConf = `cluster:
	name = web
	node_count = 1

node:
	cluster = web
	name = web1
	number = 1
	ip_address = 192.0.2.1
	ip_port = 7777
`

// run runs the real program and returns its exit code and all that it said.
func run(t *testing.T, program, stdin string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = filepath.Dir(program)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, string(out)
}

// Where there is no module o2fence, or no right to speak to it, nobody is fenced, and it says so.
func TestWithoutTheKernelItFails(t *testing.T) {
	program := filepath.Join(t.TempDir(), "fence_o2fence")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, text := range map[string]string{"cluster.conf": clusterConf, "fence.conf": "fence:\n\tnode = web1\n\tmethod = watchdog\n"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(program), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat("/sys/module/o2fence"); err == nil {
		t.Skip("the module is loaded here")
	}
	const files = "cluster_conf=cluster.conf\nfence_conf=fence.conf\n"
	for stdin, want := range map[string]int{
		"action=metadata\n":                      0,
		files + "action=validate-all\n":          0,
		files + "action=off\nplug=web1\n":        1,
		files + "plug=web1\nfail_time=1\n":       1,
		files + "action=on\nplug=web1\n":         1,
		files + "action=status\nplug=web1\n":     1,
		files + "action=monitor\n":               1,
		files + "action=list\n":                  1,
		"cluster_conf=none\naction=validate-all": 1,
	} {
		if code, out := run(t, program, stdin); code != want || code != 0 && !strings.Contains(out, "fence_o2fence: ") {
			t.Errorf("%q: exit code %d, want %d\n%s", stdin, code, want, out)
		}
	}
	if code, out := run(t, program, "", "--drbd", "--cluster-conf=cluster.conf", "--fence-conf=fence.conf"); code != 1 {
		t.Errorf("--drbd: exit code %d\n%s", code, out)
	}
}
