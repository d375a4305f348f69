// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// A testDisk is a file behind a loop device, prepared by Debian's sbd. What is written to the file
// is on the disk at once, and the other way round.
type testDisk struct {
	t      testing.TB
	loop   string
	file   *os.File
	sector int
}

const msgwaitTest = 3 * time.Second // the shortest there is, with an io of 1

// newDisk makes a disk with these slots.
func newDisk(t testing.TB, slots ...string) *testDisk {
	t.Helper()
	return formatted(t, 512, []string{"-1", "1", "-4", "3"}, slots...)
}

// formatted makes a disk with timeouts by sbd's options.
func formatted(t testing.TB, sector int, timeouts []string, slots ...string) *testDisk {
	t.Helper()
	k := blank(t, sector)
	k.sbd(append(timeouts, "-2", "0", "create")...)
	for _, name := range slots {
		k.sbd("allocate", name)
	}
	return k
}

func blank(t testing.TB, sector int) *testDisk {
	t.Helper()
	if testing.Short() {
		t.Skip("loop devices are the machine's own")
	}
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.Truncate(int64(sector) * (2*255 + 1)); err != nil {
		t.Fatal(err)
	}
	k := &testDisk{t: t, file: file, sector: sector}
	k.loop = k.run("losetup", "--find", "--show", "--sector-size", strconv.Itoa(sector), file.Name())
	t.Cleanup(func() { k.run("losetup", "--detach", k.loop) })
	return k
}

// fullDisk makes a disk that can be read, and not be written where the mailbox of node2 is: its file
// has no page there, and the file system beneath has none left. As with a logical unit that is
// write-protected, the difference shows to nobody who does not read back.
func fullDisk(t testing.TB) *testDisk {
	t.Helper()
	whole := newDisk(t, "node1", "other1", "other2", "node2")
	dir := t.TempDir()
	whole.run("mount", "-t", "tmpfs", "-o", "size=64k", "none", dir)
	t.Cleanup(func() { whole.run("umount", dir) })
	file, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	k := &testDisk{t: t, file: file, sector: 512}
	const page = 8 // sectors; the mailbox of slot 3 is the first of the second page
	for n := range page {
		k.write(n, whole.read(n))
	}
	if err := file.Truncate(512 * (2*255 + 1)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rest"), make([]byte, 64<<10), 0o600); err == nil {
		t.Fatal("the file system has room left")
	}
	k.loop = k.run("losetup", "--find", "--show", file.Name())
	t.Cleanup(func() { k.run("losetup", "--detach", k.loop) })
	return k
}

// sbd runs Debian's sbd, in the name of node1.
func (k *testDisk) sbd(args ...string) string {
	k.t.Helper()
	return k.run("sbd", append([]string{"-d", k.loop, "-n", "node1"}, args...)...)
}

func (k *testDisk) run(name string, args ...string) string {
	k.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		k.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// read reads a sector, and write writes over the beginning of one.
func (k *testDisk) read(sector int) []byte {
	p := make([]byte, k.sector)
	if _, err := k.file.ReadAt(p, int64(sector*k.sector)); err != nil {
		k.t.Error(err)
	}
	return p
}

func (k *testDisk) write(sector int, p []byte) {
	if _, err := k.file.WriteAt(p, int64(sector*k.sector)); err != nil {
		k.t.Error(err)
	}
}

// mail is what lies in a slot's mailbox.
func (k *testDisk) mail(slot int) mail {
	m, _ := decodeMail(k.read(slotSector(slot) + 1))
	return m
}

func (k *testDisk) clear(slot int) { k.write(slotSector(slot)+1, make([]byte, k.sector)) }

func params(slot string, disks ...*testDisk) map[string]string {
	var loops []string
	for _, k := range disks {
		loops = append(loops, k.loop)
	}
	return map[string]string{"disks": strings.Join(loops, ","), "slot": slot, "io": "1"}
}

// openDevice makes the device of node2, with more parameters.
func openDevice(t testing.TB, more map[string]string, disks ...*testDisk) *device {
	t.Helper()
	p := params("node2", disks...)
	maps.Copy(p, more)
	v, err := Method().Parse(p)
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(fencemethods.Target{Name: "node2"}, v)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d.(*device)
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
