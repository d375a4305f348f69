// SPDX-License-Identifier: GPL-2.0-only

package o2cb

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// OpenDevice opens a region's device for reading and writing. It is refused unless it really is the
// block device that the kernel means: a wrong one, written to, would cost somebody's data.
func (f FS) OpenDevice(r Region) (*os.File, error) {
	name := f.path("dev", strings.ReplaceAll(r.Device, "!", "/"))
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := isDevice(file, r.DevNumber); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return file, nil
}

// isDevice looks at the open file, not at its name, which udev may give to another device.
func isDevice(file *os.File, want string) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return fmt.Errorf("expected a block device: %w", unix.ENOTBLK)
	}
	got := fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
	if got != want {
		return fmt.Errorf("expected the block device %s, found %s: %w", want, got, unix.ENXIO)
	}
	return nil
}
