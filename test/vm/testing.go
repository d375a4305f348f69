// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tailLines is how much of each serial log a failed test shows.
const tailLines = 60

// testDir returns an empty directory for a test's logs, build/vm/NAME in the module's root, and the
// directory that all tests share. Both outlive the test.
func testDir(t testing.TB) (own, shared string) {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	shared = filepath.Join(root, "build", "vm")
	own = filepath.Join(shared, strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))
	if err := errors.Join(os.RemoveAll(own), os.MkdirAll(own, 0o755)); err != nil {
		t.Fatal(err)
	}
	return own, shared
}

// TestCluster makes a cluster for the duration of a test, with cfg's Kernel and Dir filled in where
// they are missing. The test fails when a kernel has complained by its end, and when it fails, shows
// the end of every serial log. In short mode it is skipped.
func TestCluster(t testing.TB, cfg ClusterConfig) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("virtual machines take their time")
	}
	own, shared := testDir(t)
	var err error
	if cfg.Dir == "" {
		cfg.Dir = own
	}
	if cfg.Kernel == nil {
		if cfg.Kernel, err = PrepareKernel(t.Context(), shared); err != nil {
			t.Fatal(err)
		}
	}
	c, err := NewCluster(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		for _, m := range c.Nodes {
			report(t, m)
		}
	})
	return c
}

// Sh runs a script in a machine for a test, and returns what it prints. The test ends when a command of the
// script fails.
func Sh(ctx context.Context, t testing.TB, m *VM, script string) string {
	t.Helper()
	out, err := m.Run(ctx, "sh", "-euc", script)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(out)
}

// report fails t when m's kernel has complained, and when t has failed, logs the end of m's console.
func report(t testing.TB, m *VM) {
	t.Helper()
	for _, fault := range m.KernelFaults() {
		t.Errorf("%s: kernel fault: %s", m.Name(), fault)
	}
	if t.Failed() {
		t.Logf("the end of %s:\n%s", m.LogPath(), m.Console().tail(tailLines))
	}
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fs.ErrNotExist
		}
	}
}
