// SPDX-License-Identifier: GPL-2.0-only

// Package audit tests o2fence-audit on planted offenders, in one virtual machine: methods of a real
// bridge that break a rule each, and one that breaks none. And it audits o2fenced as it is installed,
// fencing by one method after another. The tests themselves are the program guest,
// which runs there; devices answer on the host, across a network card.
package audit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/ktap"
	"github.com/o2fence/o2fence/test/vm"
)

// testTime is more than the whole suite takes; one that hangs has to end too.
const testTime = 8 * time.Minute

// password is every device's.
const password = "correct-horse"

func TestAudit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	root, err := filepath.Abs("../..")
	check(t, err)
	config := filepath.Join(root, "build", "audit", "config")
	check(t, os.RemoveAll(config))
	check(t, os.MkdirAll(config, 0o755))
	disk := filepath.Join(config, "sbd.disk")
	check(t, os.WriteFile(disk, make([]byte, 4<<20), 0o600))
	c := vm.TestCluster(t, vm.ClusterConfig{Nodes: 1, Machine: func(_ int, c *vm.Config) {
		c.Disks = append(c.Disks, disk)
		c.Devices = []string{"-netdev", "user,id=" + second + ",ipv6=off,net=10.0.3.0/24", "-device", "virtio-net-pci,romfile=,netdev=" + second}
		c.Memory = 768 // audits keep all that they see
	}})
	m := c.Nodes[0]
	check(t, m.PowerOn(ctx)) // it boots meanwhile

	dir := filepath.Join(root, "build", "audit")
	check(t, os.MkdirAll(dir, 0o755))
	build := exec.CommandContext(ctx, "go", "build", "-o", dir, "./guest",
		"../../cmd/o2fence-audit", "../../cmd/o2fenced", "../../cmd/o2fencectl", "../../cmd/o2fence-ipban")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	release, err := m.Run(ctx, "uname", "-r")
	check(t, err)
	modules := filepath.Join(root, "build", "ko", strings.TrimSpace(release))
	(&site{T: t, ctx: ctx, vm: m, dir: config, bin: dir}).configure()

	out, in := io.Pipe()
	var stderr bytes.Buffer
	p, err := m.Start(ctx, vm.Command{
		Args:   []string{filepath.Join(dir, "guest"), modules, dir, config},
		Stdout: in, Stderr: &stderr,
	})
	check(t, err)
	ended := make(chan error, 1)
	go func() {
		ended <- p.Wait(ctx)
		in.Close()
	}()
	ktap.Run(t, out)
	// Failures were reported above; here it is about the program itself.
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, stderr.String())
	}
	picture, err := m.Run(ctx, "cat", "/tmp/offenders.svg")
	check(t, errors.Join(err, os.WriteFile(filepath.Join(dir, "offenders.svg"), []byte(picture), 0o644)))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
