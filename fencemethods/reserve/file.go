// SPDX-License-Identifier: GPL-2.0-only

package reserve

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Paths are the names of the block devices below root that say of themselves that they are wwid, in
// a file of theirs in /sys/block: pattern is the name and that file, such as "sd*/device/wwid". One that
// has just gone is none.
func Paths(root, pattern, wwid string) ([]string, error) {
	block := filepath.Join(root, "sys/block")
	files, err := filepath.Glob(filepath.Join(block, pattern))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(text)) == wwid {
			name, _, _ := strings.Cut(strings.TrimPrefix(file, block+"/"), "/")
			names = append(names, name)
		}
	}
	return names, nil
}

// A File is the device file of a path, and the memory for the data of its commands. It is opened for
// reading only, which suffices for commands with CAP_SYS_RAWIO or CAP_SYS_ADMIN: when one that was opened
// for writing is closed, udev looks at the disk anew.
type File struct {
	FD   int
	Data []byte // mapped: a buffer that is not aligned the kernel would copy, into new pages

	name string
}

// OpenFile opens the device file of a block device below root, with memory of that length.
func OpenFile(root, name string, length int) (*File, error) {
	number, err := os.ReadFile(filepath.Join(root, "sys/block", name, "dev"))
	if err != nil {
		return nil, err
	}
	f := &File{name: name}
	if f.FD, err = unix.Open(filepath.Join(root, "dev", name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var stat unix.Stat_t
	if err = unix.Fstat(f.FD, &stat); err == nil && fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev)) != strings.TrimSpace(string(number)) {
		err = fmt.Errorf("/dev/%s is another device than /sys/block/%s", name, name)
	}
	if err == nil {
		f.Data, err = unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	}
	if err != nil {
		unix.Close(f.FD)
		return nil, err
	}
	return f, nil
}

// Name is the block device's.
func (f *File) Name() string { return f.name }

// Close closes the file and gives its memory back.
func (f *File) Close() error {
	err := unix.Close(f.FD)
	if e := unix.Munmap(f.Data); err == nil {
		err = e
	}
	return err
}
