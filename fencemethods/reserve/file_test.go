// SPDX-License-Identifier: GPL-2.0-only

package reserve

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// machine makes a root with what /sys says of some block devices, each of which is wwid.
func machine(t *testing.T, wwid string, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		dir := filepath.Join(root, "sys/block", name)
		if err := os.MkdirAll(filepath.Join(dir, "device"), 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"device/wwid": wwid, "dev": "1:3"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Mkdir(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestPathsAreThoseThatSayTheyAreTheDisk(t *testing.T) {
	root := machine(t, "naa.1", "sda", "sdb", "sr0")
	for name, text := range map[string]string{"sda": "naa.1\n", "sdb": "naa.11\n"} {
		if err := os.WriteFile(filepath.Join(root, "sys/block", name, "device/wwid"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Paths(root, "sd*/device/wwid", "naa.1")
	if diff := cmp.Diff([]string{"sda"}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

// Between the look into /sys and the opening another disk may have got the name.
func TestADeviceFileOfAnotherDeviceIsNotOpened(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may make device files")
	}
	root := machine(t, "naa.1", "sda", "sdb")
	for name, minor := range map[string]uint32{"sda": 3, "sdb": 5} { // /dev/null, /dev/zero
		if err := unix.Mknod(filepath.Join(root, "dev", name), unix.S_IFCHR|0o600, int(unix.Mkdev(1, minor))); err != nil {
			t.Skip("device files cannot be made here: ", err)
		}
	}
	f, err := OpenFile(root, "sda", 4096)
	if err != nil {
		t.Fatal(err)
	}
	if f.Name() != "sda" || len(f.Data) != 4096 {
		t.Errorf("%s, with %d bytes", f.Name(), len(f.Data))
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := OpenFile(root, "sdb", 4096); err == nil || !strings.Contains(err.Error(), "another device") {
		t.Errorf("%v", err)
	}
}
