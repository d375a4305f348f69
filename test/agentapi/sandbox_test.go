// SPDX-License-Identifier: GPL-2.0-only

// Package agentapi tests what o2fence has to do with fence agents: those that it runs in its sandbox,
// and the one that it is to Pacemaker.
package agentapi

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/vm"
)

// testTime is more than any of the tests takes; one that hangs has to end too.
const testTime = 10 * time.Minute

// The sandbox needs root and a cgroup v2 that has all controllers; a build machine may have neither.
// So the tests of these packages run once more in a virtual machine, where none may be skipped.
func TestTheSandboxConfines(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	m := vm.TestCluster(t, vm.ClusterConfig{Nodes: 1}).Nodes[0]
	check(t, m.PowerOn(ctx)) // it boots meanwhile
	packages := []string{"fencemethods/agent/sandbox", "fencemethods/agent"}
	for _, name := range packages {
		compile(ctx, t, name)
	}
	_, err := m.Run(ctx, "mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")
	check(t, err)
	for _, name := range packages {
		t.Run(filepath.Base(name), func(t *testing.T) { runIn(ctx, t, m, name) })
		// One of the tests runs out of the memory of its group, which the kernel tells with a trace.
		m.ClearKernelFaults()
	}
}

// compile builds the tests of a package into build/.
func compile(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary(t, name), "./"+name)
	cmd.Dir, cmd.Env = root(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// result is a line of "go test -v" that ends a test.
var result = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\w+) \(([0-9.]+)s\)$`)

// runIn runs the tests of a package in a machine, and reports each as one of its own.
func runIn(ctx context.Context, t *testing.T, m *vm.VM, name string) {
	var out bytes.Buffer
	p, err := m.Start(ctx, vm.Command{
		// The conformance suite is run outside: it would take an hour here.
		Args: []string{binary(t, name), "-test.v", "-test.timeout=8m", "-test.skip=^TestOffIsProven"}, Dir: filepath.Join(root(t), name),
		Stdout: &out, Stderr: &out,
	})
	check(t, err)
	err = p.Wait(ctx)
	tests := result.FindAllStringSubmatch(out.String(), -1)
	for _, line := range tests {
		t.Run(line[2], func(t *testing.T) {
			t.Logf("%s in %s s", line[1], line[3])
			if line[1] != "PASS" {
				t.Error(line[1])
			}
		})
	}
	if err != nil || len(tests) == 0 || t.Failed() {
		t.Errorf("%s: %d tests, %v\n%s", name, len(tests), err, out.String())
	}
}

func binary(t *testing.T, name string) string {
	return filepath.Join(root(t), "build", "agentapi", filepath.Base(name)+".test")
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	check(t, err)
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
