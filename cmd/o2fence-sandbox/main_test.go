// SPDX-License-Identifier: GPL-2.0-only

package main_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestWithoutCGroupV2ItEnds(t *testing.T) {
	program := filepath.Join(t.TempDir(), "o2fence-sandbox")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"-socket", filepath.Join(t.TempDir(), "socket"), "-cgroup", filepath.Join(t.TempDir(), "cgroup")}, 1, "no cgroup v2"},
		{[]string{"start"}, 2, "Usage"},
	} {
		out, err := exec.Command(program, c.args...).CombinedOutput()
		exit, ok := errors.AsType[*exec.ExitError](err)
		// Somebody who is not root may be stopped earlier, by the limit of locked memory.
		if !ok || exit.ExitCode() != c.code || !strings.Contains(string(out), c.text) && !strings.Contains(string(out), "mlockall") {
			t.Errorf("%q: %v\n%s", c.args, err, out)
		}
	}
}
