// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// KernelVariable names the environment variable that chooses the kernel release to boot.
const KernelVariable = "O2FENCE_KERNEL"

// A Kernel is what machines boot: Debian's kernel, and the initramfs that mounts the root.
type Kernel struct {
	Release   string
	Image     string
	Initramfs string
}

// PrepareKernel makes an installed kernel bootable: the release that $O2FENCE_KERNEL names, or else
// the newest. What it makes goes to dir, which several processes may share. It needs the go command
// and this module's source, and no privileges.
func PrepareKernel(ctx context.Context, dir string) (*Kernel, error) {
	k := Kernel{Release: os.Getenv(KernelVariable)}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if k.Release == "" {
		if k.Release, err = newestRelease("/lib/modules"); err != nil {
			return nil, err
		}
	}
	if k.Image, err = prepareImage(ctx, k.Release, dir); err != nil {
		return nil, fmt.Errorf("kernel %s: %w", k.Release, err)
	}
	if k.Initramfs, err = prepareInitramfs(ctx, k.Release, dir); err != nil {
		return nil, fmt.Errorf("initramfs for %s: %w", k.Release, err)
	}
	return &k, nil
}

// newestRelease is the newest of the releases in dir whose image is installed too. The cloud flavour
// is passed over: it has no OCFS2.
func newestRelease(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	newest := ""
	for _, e := range entries {
		if strings.Contains(e.Name(), "cloud") {
			continue
		}
		if _, err := installedImage(e.Name()); err == nil && compareReleases(e.Name(), newest) > 0 {
			newest = e.Name()
		}
	}
	if newest == "" {
		return "", errors.New("no kernel is installed: run scripts/deps")
	}
	return newest, nil
}

// compareReleases orders releases by their numbers: 6.1.0-9 is before 6.1.0-10.
func compareReleases(a, b string) int {
	numbers := func(release string) []int {
		var n []int
		for field := range strings.FieldsFuncSeq(release, func(r rune) bool { return !unicode.IsDigit(r) }) {
			i, _ := strconv.Atoi(field) // digits only, and no release overflows an int
			n = append(n, i)
		}
		return n
	}
	return slices.Compare(numbers(a), numbers(b))
}

// installedImage finds a release's image where Debian has it: in /boot, or since 7.3 with the
// modules.
func installedImage(release string) (string, error) {
	var err error
	for _, path := range []string{"/boot/vmlinuz-" + release, "/lib/modules/" + release + "/vmlinuz"} {
		if _, err = os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", err
}

// replaceFile writes a file that others may be reading, or writing, at the same time.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
