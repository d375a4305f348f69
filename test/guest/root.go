// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/test/guest/wire"
)

type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

// Where the parts of the root file system lie in the initramfs.
const (
	lower   = "/lower"
	changes = "/changes"
	root    = "/root"
)

// rootMounts make the root. The host's files are cached without asking again (cache=loose): a file
// that changes on the host while a guest runs may look old to it.
var rootMounts = []mount{
	{wire.RootTag, lower, "9p", unix.MS_RDONLY, "trans=virtio,version=9p2000.L,msize=512000,cache=loose"},
	{"tmpfs", changes, "tmpfs", 0, "mode=755"},
	{"overlay", root, "overlay", 0, "lowerdir=" + lower + ",upperdir=" + changes + "/upper,workdir=" + changes + "/work"},
}

// kernelMounts are the file systems every program expects. The host's /tmp stays visible: test
// binaries are built there.
var kernelMounts = []mount{
	{"proc", "/proc", "proc", 0, ""},
	{"sysfs", "/sys", "sysfs", 0, ""},
	{"devtmpfs", "/dev", "devtmpfs", 0, ""},
	{"devpts", "/dev/pts", "devpts", 0, "ptmxmode=666"},
	{"tmpfs", "/dev/shm", "tmpfs", 0, ""},
	{"tmpfs", "/run", "tmpfs", 0, "mode=755"},
	{"debugfs", "/sys/kernel/debug", "debugfs", 0, ""},
	{"tracefs", "/sys/kernel/tracing", "tracefs", 0, ""},
	{"configfs", "/sys/kernel/config", "configfs", 0, ""},
}

// loadModules loads what the initramfs has, in the order of the names.
func loadModules() error {
	files, err := filepath.Glob(wire.ModuleDir + "/*") // sorted
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := loadModule(file); err != nil {
			return fmt.Errorf("module %s: %w", file, err)
		}
	}
	return nil
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	// The initramfs is memory; the module now lies in memory a second time.
	return os.Remove(file)
}

// enterRoot mounts the root and everything in it and makes it the root of this process, and so of
// the kernel's threads too, which share it: modprobe and other helpers run in the new root.
func enterRoot() error {
	for _, m := range rootMounts {
		if err := m.mount(); err != nil {
			return err
		}
		if m.target != changes {
			continue
		}
		for _, dir := range []string{"/upper", "/work"} {
			if err := os.Mkdir(changes+dir, 0o755); err != nil {
				return err
			}
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	for _, m := range kernelMounts {
		if err := m.mount(); err != nil {
			return err
		}
	}
	return nil
}

func (m mount) mount() error {
	// What cannot be made, in /sys, the kernel provides.
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mounting %s: %w", m.target, err)
	}
	return nil
}
