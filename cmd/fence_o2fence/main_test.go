// SPDX-License-Identifier: GPL-2.0-only

package main_test

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
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

func build(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "fence_o2fence")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

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

// The exit code of Go's runtime for what it did not expect, 2, is that of a node that is off.
func TestAProgramThatCrashesSaysNothingOfANode(t *testing.T) {
	program := build(t)
	cmd := exec.Command(program)
	stdin, err := cmd.StdinPipe() // it waits for the action
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, "unheard=of\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stderr).ReadString('\n'); err != nil { // which it passes over
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGQUIT); err != nil { // as an error of the runtime's
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, stderr)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code == 0 || code == 2 {
		t.Errorf("exit code %d", code)
	}
}

// Where there is no module o2fence, or no right to speak to it, nobody is fenced, and it says so.
func TestWithoutTheKernelItFails(t *testing.T) {
	program := build(t)
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
