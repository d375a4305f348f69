// SPDX-License-Identifier: GPL-2.0-only

package packaging_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// built is a release that there are modules for, and the absolute path of build/.
func built(t *testing.T) (release, build string) {
	t.Helper()
	build, err := filepath.Abs("../build")
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(build, "ko", "*", "o2fence.ko"))
	_, noPrograms := os.Stat(filepath.Join(build, "bin", "o2fencectl"))
	if err != nil || len(found) == 0 || noPrograms != nil {
		t.Skip("nothing is built here")
	}
	return filepath.Base(filepath.Dir(found[0])), build
}

// tree is what is installed: the mode and the content of each file.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(name)
		files[strings.TrimPrefix(name, dir)] = fmt.Sprintf("%v %x", info.Mode(), sha256.Sum256(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func runInstall(build string, args ...string) (string, error) {
	cmd := exec.Command("../scripts/install", args...)
	cmd.Env = append(os.Environ(), "BUILD="+build)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestInstallPutsEverythingBelowDestdirAndMayBeRepeated(t *testing.T) {
	release, build := built(t)
	dir := t.TempDir()
	if out, err := runInstall(build, dir, release, "1.2"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	first := tree(t, dir)
	modules := "/lib/modules/" + release + "/updates/o2fence/"
	for name, mode := range map[string]string{
		modules + "o2fence.ko": "-rw-r--r--", modules + "o2fence_o2cb.ko": "-rw-r--r--", modules + "o2fence_methods.ko": "-rw-r--r--",
		"/usr/sbin/o2fenced": "-rwxr-xr-x", "/usr/sbin/o2fencectl": "-rwxr-xr-x",
		"/usr/sbin/o2fence-relay": "-rwxr-xr-x", "/usr/lib/systemd/system/o2fence-relay.service": "-rw-r--r--",
		"/usr/sbin/o2fence-sandbox": "-rwxr-xr-x", "/usr/sbin/fence_o2fence": "-rwxr-xr-x",
		"/usr/lib/systemd/system/o2fence-unfence.service": "-rw-r--r--",
		"/usr/lib/systemd/system/o2fence-sandbox.service": "-rw-r--r--", "/etc/init.d/o2fenced": "-rwxr-xr-x",
		"/usr/lib/systemd/system/o2fenced.service": "-rw-r--r--", "/usr/lib/systemd/system/o2fence.service": "-rw-r--r--",
		"/usr/sbin/o2fence-ipban": "-rwxr-xr-x", "/usr/lib/systemd/system/o2fence-ipban.service": "-rw-r--r--",
		"/usr/lib/systemd/system/o2fence-ipban-restore.service": "-rw-r--r--", "/usr/share/doc/o2fence/examples/ipban.conf": "-rw-r--r--",
		"/usr/lib/systemd/system/o2fence-listen.service": "-rw-r--r--",
		"/usr/lib/modules-load.d/o2fence.conf":           "-rw-r--r--", "/usr/share/doc/o2fence/configuration.md": "-rw-r--r--",
		"/usr/share/doc/o2fence/examples/fence.conf":           "-rw-r--r--",
		"/usr/share/bash-completion/completions/o2fencectl":    "-rw-r--r--",
		"/usr/share/zsh/vendor-completions/_o2fencectl":        "-rw-r--r--",
		"/usr/share/fish/vendor_completions.d/o2fencectl.fish": "-rw-r--r--",
		"/usr/src/o2fence-1.2/dkms.conf":                       "-rw-r--r--", "/usr/src/o2fence-1.2/uapi/o2fence.h": "-rw-r--r--",
	} {
		if !strings.HasPrefix(first[name], mode) {
			t.Errorf("%s is %q, want %s", name, first[name], mode)
		}
	}
	dkms, err := os.ReadFile(filepath.Join(dir, "usr/src/o2fence-1.2/dkms.conf"))
	if err != nil || strings.Contains(string(dkms), "PACKAGE_VERSION=\"@") || !strings.Contains(string(dkms), `PACKAGE_VERSION="1.2"`) {
		t.Errorf("%v\n%s", err, dkms)
	}
	if out, err := runInstall(build, dir, release, "1.2"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if diff := cmp.Diff(first, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestModulesOfAnotherKernelAreNotInstalled(t *testing.T) {
	release, build := built(t)
	other := t.TempDir()
	for link, to := range map[string]string{"bin": "bin", "ko/6.99-other": "ko/" + release} {
		name := filepath.Join(other, link)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(build, to), name); err != nil {
			t.Fatal(err)
		}
	}
	for release, want := range map[string]string{
		"6.99-other":  "is built for " + release + ", not for 6.99-other",
		"6.99-absent": "is missing: run make RELEASE=6.99-absent",
	} {
		dir := t.TempDir()
		out, err := runInstall(other, dir, release, "1.2")
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%v, %s, want %q", err, out, want)
		}
		if files := tree(t, dir); len(files) != 0 {
			t.Errorf("half of it is installed: %v", files)
		}
	}
}

// The dkms sources are all that the modules are built from.
func TestDKMSHasTheWholeSource(t *testing.T) {
	release, build := built(t)
	dir := t.TempDir()
	if out, err := runInstall(build, dir, release, "1.2"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command("git", "-C", "../kmod", "ls-files").Output()
	if err != nil {
		t.Skip("no git here: ", err)
	}
	installed := tree(t, filepath.Join(dir, "usr/src/o2fence-1.2"))
	for _, name := range strings.Fields(string(out)) {
		if _, ok := installed["/"+name]; !ok && !strings.HasPrefix(name, ".") {
			t.Errorf("kmod/%s is not installed", name)
		}
	}
}
