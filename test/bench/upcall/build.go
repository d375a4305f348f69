// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// source is this directory, from the root of the module, where the benchmark is started.
const source = "test/bench/upcall"

// build makes everything that runs in the machine, but for what `make` makes, and returns where it
// is.
func build(ctx context.Context, dir, release string) (string, error) {
	own, err := filepath.Abs(filepath.Join(dir, "upcall"))
	if err != nil {
		return "", err
	}
	for _, part := range []string{"kmod", "peers"} {
		to := filepath.Join(own, part)
		if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(filepath.Join(source, part)))); err != nil {
			return "", err
		}
	}
	libraries, err := output(ctx, "pkg-config", "--cflags", "--libs", "pacemaker-fencing")
	if err != nil {
		return "", fmt.Errorf("%w\nDebian's package pacemaker-dev is missing: scripts/deps bench", err)
	}
	modules, err := filepath.Abs(filepath.Join("build", "modules", release))
	if err != nil {
		return "", err
	}
	peer := func(name string) string { return filepath.Join(own, "peers", name+".c") }
	for _, args := range [][]string{
		{"env", "CGO_ENABLED=0", "go", "build", "-o", filepath.Join(own, "guest"), "./" + source + "/guest"},
		{
			"make", "-C", filepath.Join("/lib/modules", release, "build"), "M=" + filepath.Join(own, "kmod"),
			"O2FENCE=" + filepath.Join(modules, "kmod"),
			"KBUILD_EXTRA_SYMBOLS=" + filepath.Join(modules, "Module.symvers"), "modules",
		},
		{"cc", "-O2", "-static", "-o", filepath.Join(own, "helper"), peer("helper")},
		{"cc", "-O2", "-static", "-o", filepath.Join(own, "fence_bench"), peer("fence_bench")},
		append([]string{"cc", "-O2", "-o", filepath.Join(own, "pacemaker_client"), peer("pacemaker_client")}, strings.Fields(libraries)...),
	} {
		if _, err := output(ctx, args...); err != nil {
			return "", err
		}
	}
	return own, nil
}

func output(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
