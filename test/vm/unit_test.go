// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReleasesAreOrderedByTheirNumbers(t *testing.T) {
	ordered := []string{"", "6.1.0-9-amd64", "6.1.0-10-amd64", "6.12.9-amd64", "6.12.117+deb12-amd64", "7.3.4+deb13-amd64"}
	for i, older := range ordered[:len(ordered)-1] {
		newer := ordered[i+1]
		if compareReleases(older, newer) >= 0 || compareReleases(newer, older) <= 0 || compareReleases(newer, newer) != 0 {
			t.Errorf("%q is not before %q", older, newer)
		}
	}
}

func TestModulesLoadAfterWhatTheyNeed(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"modules.dep": "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko\n" +
			"kernel/net/9p/9pnet.ko:\nkernel/fs/netfs/netfs.ko:\n" +
			"kernel/net/9p/9pnet-virtio.ko.xz: kernel/net/9p/9pnet.ko\n",
		"modules.builtin": "kernel/drivers/virtio/virtio_pci.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := readModuleTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tree.loadOrder("virtio_pci", "9p", "9pnet_virtio")
	want := []string{
		"kernel/net/9p/9pnet.ko", "kernel/fs/netfs/netfs.ko", "kernel/fs/9p/9p.ko", "kernel/net/9p/9pnet-virtio.ko.xz",
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if _, err := tree.loadOrder("ocfs2"); err == nil {
		t.Error("a module that does not exist is found")
	}
}

func TestConsoleLinesAreAwaitedAndLogged(t *testing.T) {
	var log bytes.Buffer
	c := newConsole(&log, time.Now())
	write := func(s string) {
		if _, err := c.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	write("first\r\nlock")
	awaited := make(chan Line)
	go func() {
		line, _, err := c.Await(t.Context(), 1, regexp.MustCompile("lock"))
		if err != nil {
			t.Error(err)
		}
		awaited <- line
	}()
	write(" held\nWARNING: CPU: 0 PID: 1 at x\nunfin")
	if line := <-awaited; line.Text != "lock held" {
		t.Errorf("awaited %q", line.Text)
	}
	c.note("off")

	var texts []string
	for _, l := range c.Lines(0) {
		texts = append(texts, l.Text)
	}
	want := []string{"first", "lock held", "WARNING: CPU: 0 PID: 1 at x", "unfin", "--- off"}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Error(diff)
	}
	if got := strings.Count(log.String(), "\n"); got != len(want) {
		t.Errorf("%d lines logged, want %d", got, len(want))
	}
	if diff := cmp.Diff([]string{want[2]}, c.kernelFaults()); diff != "" {
		t.Error(diff)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.Await(ended, 0, regexp.MustCompile("never")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
