// SPDX-License-Identifier: GPL-2.0-only

package boot

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/vm"
)

// A machine is a cluster of one node that boots with Debian's own init.
type machine struct {
	*vm.VM
	t   *testing.T
	ctx context.Context
}

// testTime is more than any of the tests takes; one that hangs has to end too.
const testTime = 5 * time.Minute

// What an administrator writes. The test method stands for a power switch: unlike the watchdog it
// needs o2fenced to carry it.
const (
	o2cbConf  = "O2CB_ENABLED=true\nO2CB_BOOTCLUSTER=" + vm.ClusterName + "\n"
	fstab     = vm.DiskDevice + " " + vm.MountPoint + " ocfs2 _netdev 0 0\n"
	fenceConf = "cluster:\n\tname = " + vm.ClusterName + "\n\n" +
		"fence:\n\tnode = node0\n\tmethod = test\n\ti_know_this_fences_nothing = yes\n\tmethod = watchdog\n"
)

// prologue begins process 1. The host's root is the machine's; "unpack" puts what is installed into
// it, which on the host would take root.
const prologue = `#!/bin/sh
set -e
cd /
unpack() {
	tar -C "${0%/*}/stage" -c . | tar -x --no-same-owner --no-overwrite-dir --keep-directory-symlink
}
`

// boot boots a machine in which script, as process 1, unpacks o2fence and Debian packages, chooses
// what is to be started, and executes an init. Words are for the kernel's command line.
func boot(t *testing.T, packages []string, script, words string) *machine {
	t.Helper()
	var dir, release string
	c := vm.TestCluster(t, vm.ClusterConfig{Nodes: 1, Machine: func(_ int, c *vm.Config) {
		dir, release = c.Dir, c.Kernel.Release
		c.Init, c.Append = filepath.Join(dir, "init"), words
	}})
	stage := filepath.Join(dir, "stage")
	for _, name := range packages {
		command(t, ".", "dpkg-deb", "--extract", download(t, name), stage)
	}
	install(t, stage, release)
	write(t, filepath.Join(stage, "etc/ocfs2/cluster.conf"), clusterConf(c), 0o644)
	write(t, filepath.Join(stage, "etc/ocfs2/fence.conf"), fenceConf, 0o644)
	write(t, filepath.Join(stage, "etc/default/o2cb"), o2cbConf, 0o644)
	write(t, filepath.Join(stage, "etc/fstab"), fstab, 0o644)
	check(t, os.MkdirAll(filepath.Join(stage, vm.MountPoint), 0o755))
	write(t, filepath.Join(dir, "init"), prologue+script, 0o755)

	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	check(t, c.Boot(ctx))
	return &machine{VM: c.Nodes[0], t: t, ctx: ctx}
}

// clusterConf has one node more than there are machines: one that is alone has nobody to join.
func clusterConf(c *vm.Cluster) string {
	conf := vm.ClusterConf(vm.ClusterName, c.Nodes)
	return strings.Replace(conf, "node_count = 1", "node_count = 2", 1) +
		"node:\n\tcluster = " + vm.ClusterName + "\n\tnumber = 1\n\tip_port = 7777\n\tip_address = 192.0.2.1\n\tname = absent\n\n"
}

// install installs what was built for the kernel release below stage. Depmod, which make install
// leaves out there, would take a minute in the machine.
func install(t *testing.T, stage, release string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	check(t, err)
	// "-o all": what is tested is what was built, as in all other tests.
	command(t, root, "make", "--no-print-directory", "-o", "all", "install", "DESTDIR="+stage, "RELEASE="+release)
	modules, base := filepath.Join("lib/modules", release), t.TempDir()
	command(t, base, "sh", "-ec", `
		mkdir -p "$1"
		ln -s "/$1/kernel" "/$1/modules.order" "/$1"/modules.builtin* "$2/$1/updates" "$1"
		/sbin/depmod --basedir "$PWD" "${1##*/}"
		cp "$1"/modules.* "$2/$1"`, "sh", modules, stage)
}

// download returns a Debian package, which is kept for the next time.
func download(t *testing.T, name string) string {
	t.Helper()
	dir, err := filepath.Abs("../../build/debs")
	check(t, err)
	check(t, os.MkdirAll(dir, 0o755))
	found := func() []string {
		files, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
		check(t, err)
		return files
	}
	if found() == nil {
		command(t, dir, "apt-get", "--quiet=2", "download", name)
	}
	return found()[0]
}

// A status is what o2fencectl status tells.
type status struct {
	Clusters []struct{}
	Mounts   []struct {
		Point     string `json:"mount"`
		Protected bool
	}
}

func (s *status) protected() bool {
	return len(s.Clusters) == 1 && len(s.Mounts) == 1 && s.Mounts[0].Point == vm.MountPoint && s.Mounts[0].Protected
}

// awaitProtection waits until the start-up has got as far as a protected mount.
func (m *machine) awaitProtection() {
	m.t.Helper()
	for {
		// Not before there is a mount: the question alone makes the kernel load o2fence.
		if out, err := m.try("mountpoint -q " + vm.MountPoint + " && o2fencectl status --json"); err == nil {
			if s := m.parse(out); s.protected() {
				return
			}
		}
		select {
		case <-m.ctx.Done():
			m.t.Fatal("nothing is mounted and protected")
		case <-time.After(time.Second):
		}
	}
}

func (m *machine) status() *status {
	m.t.Helper()
	return m.parse(m.run("o2fencectl status --json"))
}

func (m *machine) parse(text string) *status {
	m.t.Helper()
	var s status
	check(m.t, json.Unmarshal([]byte(text), &s))
	return &s
}

// bridge returns the port of the o2fenced that carries the test method.
func (m *machine) bridge() uint32 {
	m.t.Helper()
	var methods []struct {
		PortID  uint32 `json:"port_id"`
		Carried bool
	}
	check(m.t, json.Unmarshal([]byte(m.run("o2fencectl methods test --json")), &methods))
	if len(methods) != 1 || !methods[0].Carried || methods[0].PortID == 0 {
		m.t.Fatalf("nobody carries the method: %+v", methods)
	}
	return methods[0].PortID
}

// explain shows what a command prints when the test has failed. To be deferred: in a cleanup the
// machine is off.
func (m *machine) explain(command ...string) {
	if m.t.Failed() {
		out, err := m.Run(m.t.Context(), command...)
		m.t.Logf("%v: %v\n%s", command, err, out)
	}
}

func (m *machine) try(command string) (string, error) {
	return m.Run(m.ctx, "sh", "-c", command)
}

func (m *machine) run(command string) string {
	m.t.Helper()
	out, err := m.try(command)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

func command(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(file), 0o755))
	check(t, os.WriteFile(file, []byte(text), mode))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
