// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/o2fence/o2fence/test/guest/wire"
)

// bootModules reach the root file system and the host. configfs is among them because the guest
// mounts it before it knows that its root has any modules.
var bootModules = []string{
	"virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "9p", "9pnet_virtio", "overlay", "configfs",
}

// guestPackage is the program in the initramfs.
const guestPackage = "github.com/o2fence/o2fence/test/guest"

// prepareInitramfs packs the guest program and the modules it needs to reach its root.
func prepareInitramfs(ctx context.Context, release, dir string) (string, error) {
	guest, err := buildGuest(ctx, dir)
	if err != nil {
		return "", err
	}
	modules, err := readModuleTree("/lib/modules/" + release)
	if err != nil {
		return "", err
	}
	order, err := modules.loadOrder(bootModules...)
	if err != nil {
		return "", err
	}
	var archive bytes.Buffer
	c := cpioWriter{w: &archive}
	c.add("init", cpioFile, guest)
	c.add(wire.ModuleDir[1:], cpioDir, nil)
	for i, path := range order {
		module, err := modules.read(ctx, path)
		if err != nil {
			return "", err
		}
		c.add(fmt.Sprintf("%s/%02d-%s", wire.ModuleDir[1:], i, moduleName(path)), cpioFile, module)
	}
	if err := c.close(); err != nil {
		return "", err
	}
	file := filepath.Join(dir, "initramfs-"+release)
	return file, replaceFile(file, archive.Bytes())
}

// buildGuest builds the guest program anew; what did not change comes from the build cache.
func buildGuest(ctx context.Context, dir string) ([]byte, error) {
	out, err := os.MkdirTemp(dir, "guest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(out)
	program := filepath.Join(out, "guest")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", program, guestPackage)
	// Static: in the initramfs there is no loader.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, text)
	}
	return os.ReadFile(program)
}
