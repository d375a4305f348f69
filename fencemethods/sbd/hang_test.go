// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// hangingDisk makes a disk that other writers have brought to a halt: its queue is full of what they have
// written, and nothing of that ends before the test does. It is a file of a file system that is frozen.
func hangingDisk(t testing.TB, slots ...string) *testDisk {
	t.Helper()
	k := newDisk(t, slots...)
	dir, beneath := t.TempDir(), filepath.Join(t.TempDir(), "fs")
	k.run("truncate", "--size=16M", beneath)
	k.run("mkfs.ext4", "-q", beneath)
	k.run("mount", "-o", "loop", beneath, dir)
	t.Cleanup(func() {
		// The loop device lets its file go a little later.
		await(t, "umount", func() bool { return exec.Command("umount", dir).Run() == nil })
	})
	name := filepath.Join(dir, "disk")
	k.run("cp", "--sparse=never", k.file.Name(), name)
	h := &testDisk{t: t, sector: k.sector, loop: k.run("losetup", "--find", "--show", name)}
	sys := filepath.Join("/sys/block", filepath.Base(h.loop))
	t.Cleanup(func() { h.run("losetup", "--detach", h.loop) })
	const room = "4"
	if err := os.WriteFile(filepath.Join(sys, "queue/nr_requests"), []byte(room), 0); err != nil {
		t.Fatal(err)
	}
	k.run("fsfreeze", "--freeze", dir)
	var writers sync.WaitGroup
	t.Cleanup(func() {
		k.run("fsfreeze", "--unfreeze", dir)
		writers.Wait()
	})
	for range 64 {
		writers.Go(func() { writeOnce(t, h.loop) })
	}
	await(t, "the queue is full", func() bool {
		reads, err := os.ReadFile(filepath.Join(sys, "inflight"))
		return err == nil && strings.HasSuffix(strings.TrimSpace(string(reads)), " "+room)
	})
	return h
}

func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

func writeOnce(t testing.TB, name string) {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Munmap(b)
	_, _ = unix.Pwrite(fd, b, 128<<10)
}

func TestADiskWhoseQueueIsFullKeepsTheDeadline(t *testing.T) {
	k := hangingDisk(t, "node2")
	d := openDevice(t, nil, newDisk(t, "node2"), k, newDisk(t, "node2"))
	if err := d.Off(within(t, time.Minute)); err != nil {
		t.Errorf("with two others: %v", err)
	}
	alone := openDevice(t, nil, k)
	const limit = 2 * time.Second
	fencetest.InTime(t, limit, func() {
		wantError(t, alone.Off(within(t, limit)), fencemethods.ErrUnreachable, "no answer")
	})
}
