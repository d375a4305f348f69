// SPDX-License-Identifier: GPL-2.0-only

// Package core tests o2fence.ko and o2fence_methods.ko without OCFS2, in one virtual machine. The
// tests themselves are the program guest, which runs there.
package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/ktap"
	"github.com/o2fence/o2fence/test/vm"
)

// testTime is more than the whole suite takes; one that hangs has to end too.
const testTime = 5 * time.Minute

func TestCore(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	root, err := filepath.Abs("../..")
	check(t, err)
	c := vm.TestCluster(t, vm.ClusterConfig{Nodes: 1})
	m := c.Nodes[0]
	check(t, m.PowerOn(ctx)) // it boots meanwhile

	dir := filepath.Join(root, "build", "core")
	check(t, os.MkdirAll(dir, 0o755))
	guest := filepath.Join(dir, "guest")
	build := exec.CommandContext(ctx, "go", "build", "-o", guest, "./guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	run(t, build)
	release, err := m.Run(ctx, "uname", "-r")
	check(t, err)
	release = string(bytes.TrimSpace([]byte(release)))
	check(t, makeMethods(t, root, dir, release))

	out, in := io.Pipe()
	var stderr bytes.Buffer
	p, err := m.Start(ctx, vm.Command{
		Args:   []string{guest, filepath.Join(root, "build", "ko", release), filepath.Join(dir, "kmod")},
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
}

// makeMethods builds the module of the tests' own methods against the o2fence that was built.
func makeMethods(t *testing.T, root, dir, release string) error {
	own := filepath.Join(dir, "kmod")
	if err := errors.Join(os.RemoveAll(own), os.CopyFS(own, os.DirFS("kmod"))); err != nil {
		return err
	}
	built := filepath.Join(root, "build", "modules", release)
	run(t, exec.CommandContext(t.Context(), "make", "-C", filepath.Join("/lib/modules", release, "build"),
		"M="+own, "O2FENCE="+filepath.Join(built, "kmod"),
		"KBUILD_EXTRA_SYMBOLS="+filepath.Join(built, "Module.symvers"), "modules"))
	return nil
}

func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("%v: %w\n%s", cmd.Args, err, out))
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
