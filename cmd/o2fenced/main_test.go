// SPDX-License-Identifier: GPL-2.0-only

package main_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
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

// A fixture is the real program and its configuration, where everybody can read them.
type fixture struct {
	t   *testing.T
	dir string
}

func build(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t, t.TempDir()}
	if err := os.Chmod(filepath.Dir(f.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", f.dir, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f.write("cluster.conf", clusterConf)
	f.write("fence.conf", "fence:\n\tnode = web1\n\tmethod = watchdog\n")
	return f
}

func (f *fixture) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// fails runs the program, as somebody else when uid is not 0, and wants its exit code and messages.
func (f *fixture) fails(code int, uid uint32, wants ...string) {
	f.t.Helper()
	cmd := exec.Command(filepath.Join(f.dir, "o2fenced"), "-cluster-conf=cluster.conf", "-fence-conf=fence.conf")
	cmd.Dir = f.dir
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != code {
		f.t.Errorf("%v, want exit code %d", err, code)
	}
	if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); len(lines) != len(wants) {
		f.t.Fatalf("%d lines, want %d:\n%s", len(lines), len(wants), out)
	}
	for _, want := range wants {
		if !strings.Contains(string(out), want) {
			f.t.Errorf("%s\nwant %q", out, want)
		}
	}
}

func TestWhatIsWrongInTheConfigurationIsSaidFirst(t *testing.T) {
	f := build(t)
	f.write("fence.conf", "cluster:\n\tname = web\n\tmissed = 1\n\nfence:\n\tnode = wbe1\n\tmethod = watchdog\n")
	f.fails(2, 0, "fence.conf:3: missed = 1", `fence.conf:6: cluster web has no node "wbe1"`)
}

func TestAPasswordInTheWrongPlaceIsNotShown(t *testing.T) {
	f := build(t)
	f.write("fence.conf", "fence:\n\tnode = web1\n\tmethod = ipmi\n\taddr = 192.0.2.1\n\tuser = fence\n\tpassword_file = hunter2\n")
	f.fails(2, 0, "fence.conf:6: password_file: expected the absolute path")
}

func TestTheModuleIsMissing(t *testing.T) {
	if _, err := os.Stat("/sys/module/o2fence"); err == nil {
		t.Skip("it is not")
	}
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 0, 0, 0, 0); err != nil {
		t.Skip("no CAP_SYS_RESOURCE here: ", err)
	}
	build(t).fails(1, 0, "module o2fence is not loaded: load the module")
}

func TestPrivilegesAreMissing(t *testing.T) {
	nobody := uint32(65534)
	if os.Getuid() != 0 {
		nobody = 0 // it is somebody else already
	}
	build(t).fails(1, nobody, "permission denied: run it as root")
}

func TestArgumentsAreRefused(t *testing.T) {
	f := build(t)
	out, err := exec.Command(filepath.Join(f.dir, "o2fenced"), "start").CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 2 || !strings.Contains(string(out), "-fence-conf") {
		t.Errorf("%v\n%s", err, out)
	}
}
