// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

// prepareImage returns what QEMU is to boot. Of a compressed image that is the vmlinux inside it,
// entered by the PVH protocol: under emulation, decompressing in the guest is most of the boot. An
// image that cannot be entered like that is booted as it is.
func prepareImage(ctx context.Context, release, dir string) (string, error) {
	installed, err := installedImage(release)
	if err != nil {
		return "", err
	}
	unpacked := filepath.Join(dir, "vmlinux-"+release)
	if newer(unpacked, installed) {
		return unpacked, nil
	}
	image, err := os.ReadFile(installed)
	if err != nil {
		return "", err
	}
	vmlinux, err := decompress(ctx, image)
	if err != nil {
		return "", err
	}
	if !hasPVHEntry(vmlinux) {
		return installed, nil
	}
	return unpacked, replaceFile(unpacked, vmlinux)
}

// newer reports whether file a is there and newer than b.
func newer(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && infoA.ModTime().After(infoB.ModTime())
}

// decompress returns the payload of a bzImage, or nil when its compression is not known here. See
// Documentation/x86/boot.rst for the offsets.
func decompress(ctx context.Context, image []byte) ([]byte, error) {
	if len(image) < 0x250 || string(image[0x202:0x206]) != "HdrS" {
		return nil, nil
	}
	setup := (int(image[0x1f1]) + 1) * 512
	start := setup + int(binary.LittleEndian.Uint32(image[0x248:]))
	length := int(binary.LittleEndian.Uint32(image[0x24c:]))
	if start+length > len(image) {
		return nil, errors.New("the image is cut off")
	}
	payload := image[start : start+length]
	var cmd *exec.Cmd
	switch {
	case bytes.HasPrefix(payload, []byte("\xfd7zXZ\x00")):
		// The size of the vmlinux stands behind the stream.
		cmd = exec.CommandContext(ctx, "xz", "-dc", "--single-stream")
	case bytes.HasPrefix(payload, []byte("\x28\xb5\x2f\xfd")):
		cmd = exec.CommandContext(ctx, "zstd", "-dc")
		payload = payload[:length-4]
	default:
		return nil, nil
	}
	cmd.Stdin = bytes.NewReader(payload)
	return cmd.Output()
}

// hasPVHEntry looks for the note XEN_ELFNOTE_PHYS32_ENTRY.
func hasPVHEntry(vmlinux []byte) bool {
	f, err := elf.NewFile(bytes.NewReader(vmlinux))
	if err != nil {
		return false
	}
	const phys32Entry = 18
	header := binary.LittleEndian.AppendUint32(nil, phys32Entry)
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes := make([]byte, p.Filesz)
		if _, err := p.ReadAt(notes, 0); err == nil && bytes.Contains(notes, append(header, "Xen\x00"...)) {
			return true
		}
	}
	return false
}
