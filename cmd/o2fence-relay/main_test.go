// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/o2fence/o2fence/bridge/o2cb"
	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
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

// runProgram runs the real program, with these files, and returns its exit code and what it says.
func runProgram(t *testing.T, fenceConf string, args ...string) (int, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"cluster.conf": clusterConf, "fence.conf": fenceConf} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-o", dir, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(filepath.Join(dir, "o2fence-relay"), append([]string{"-cluster-conf=cluster.conf", "-fence-conf=fence.conf"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), string(out)
	}
	t.Fatalf("%v\n%s", err, out)
	return 0, ""
}

func TestWhatIsWrongOnTheCommandLineIsSaid(t *testing.T) {
	for _, c := range []struct {
		args []string
		text string
	}{
		{nil, "expected -listen and -key-file"},
		{[]string{"-listen", "192.0.2.5"}, "expected -listen and -key-file"},
		{[]string{"-listen", "relay1", "-key-file", "/key"}, "expected an IP address"},
		{[]string{"-listen", "0.0.0.0", "-key-file", "/key"}, "one address of this machine"},
		{[]string{"-listen", "192.0.2.5", "-key-file", "hunter2"}, "absolute path"},
		{[]string{"-listen", "192.0.2.5", "-key-file", "/key", "start"}, "no arguments"},
	} {
		code, out := runProgram(t, "", c.args...)
		if code != 2 || !strings.Contains(out, c.text) {
			t.Errorf("%q: exit code %d, want 2 and %q\n%s", c.args, code, c.text, out)
		}
	}
}

func TestWhatIsWrongInTheConfigurationIsSaid(t *testing.T) {
	code, out := runProgram(t, "fence:\n\tnode = wbe1\n\tmethod = watchdog\n", "-listen", "127.0.0.1", "-key-file", "/key")
	if code != 2 || !strings.Contains(out, `fence.conf:2: cluster web has no node "wbe1"`) {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.5": "192.0.2.5:7411", "192.0.2.5:99": "192.0.2.5:99", "2001:db8::5": "[2001:db8::5]:7411", "[2001:db8::5]:99": "[2001:db8::5]:99",
	} {
		var o options
		if err := o.parseListen(text); err != nil || o.listen != netip.MustParseAddrPort(want) {
			t.Errorf("%s is %v, %v; want %s", text, o.listen, err, want)
		}
	}
}

func TestEachNodeHasTheKeysOfItsCluster(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("0123456789abcdef"+name), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	nodes := func() []server.Node {
		return []server.Node{
			{Target: fencemethods.Target{Cluster: "web", Name: "web1"}}, {Target: fencemethods.Target{Cluster: "mail", Name: "mail1"}},
		}
	}
	for _, c := range []struct {
		keys      []string
		web, mail int
		text      string
	}{
		{[]string{file("a")}, 1, 1, ""},
		{[]string{file("a"), "web=" + file("b")}, 2, 1, ""},
		{[]string{"web=" + file("a"), "mail=" + file("b")}, 1, 1, ""},
		{[]string{"web=" + file("a")}, 0, 0, "node mail1 of cluster mail: no -key-file"},
		{[]string{file("a"), "wbe=" + file("b")}, 0, 0, `cluster "wbe"`},
		{[]string{filepath.Join(dir, "none")}, 0, 0, "no such file"},
	} {
		var o options
		for _, k := range c.keys {
			if err := o.parseKey(k); err != nil {
				t.Fatal(err)
			}
		}
		got := nodes()
		err := o.giveKeys(got)
		if c.text != "" {
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%q: %v, want %q", c.keys, err, c.text)
			}
			continue
		}
		if err != nil || len(got[0].Keys) != c.web || len(got[1].Keys) != c.mail {
			t.Errorf("%q: %d and %d keys, %v", c.keys, len(got[0].Keys), len(got[1].Keys), err)
		}
	}
}

// What memory waits for must not be the node that is to be fenced.
func TestWithoutTheModuleAMountedFileSystemIsRefused(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "proc/self"), 0o755); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]error{
		"30 1 254:0 / / rw - ext4 /dev/vda rw\n":                        nil,
		"31 1 254:16 / /ocfs2 rw - ocfs2 /dev/vdb rw,heartbeat=local\n": errMounted,
	} {
		if err := os.WriteFile(filepath.Join(root, "proc/self/mountinfo"), []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := refuseMounts(o2cb.FS{Root: root}); !errors.Is(err, want) {
			t.Errorf("%s%v, want %v", line, err, want)
		}
	}
}
