// SPDX-License-Identifier: GPL-2.0-only

package o2cb_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/o2cb"
)

const (
	uuidA = "77D95EF51C0149D2823674FCC162CF8B"
	uuidB = "DCDA2845177F4D59A0F2DCD8DE507CC3"
)

// A tree stands for what the kernel shows, in a directory of the test's own.
type tree struct {
	*testing.T
	root string
}

// newTree makes two block devices. As in sysfs, their numbers are never half written.
func newTree(t *testing.T) tree {
	tree := tree{t, t.TempDir()}
	tree.write("sys/class/block/vda/dev", "254:0\n")
	tree.write("sys/class/block/dm-1/dev", "253:1\n")
	return tree
}

func (t tree) fs() o2cb.FS { return o2cb.FS{Root: t.root} }

func (t tree) mkdir(name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(t.root, name), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (t tree) remove(name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(t.root, name)); err != nil {
		t.Fatal(err)
	}
}

func (t tree) write(name, text string) {
	t.Helper()
	t.mkdir(filepath.Dir(name))
	if err := os.WriteFile(filepath.Join(t.root, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const cluster = "sys/kernel/config/cluster"

func region(uuid string) string { return cluster + "/eco/heartbeat/" + uuid }

// online makes what "o2cb register-cluster eco" makes on node 1.
func (t tree) online(mode string) {
	t.write(cluster+"/eco/heartbeat/mode", mode+"\n")
	t.write(cluster+"/eco/heartbeat/dead_threshold", "31\n")
	t.write(cluster+"/eco/node/web0/num", "0\n")
	t.write(cluster+"/eco/node/web0/local", "0\n")
	t.write(cluster+"/eco/node/web1/num", "1\n")
	t.write(cluster+"/eco/node/web1/local", "1\n")
}

// prepare makes a region that has no device yet, as the first steps of mount.ocfs2 do.
func (t tree) prepare(uuid string) {
	t.write(region(uuid)+"/block_bytes", "512\n")
	t.write(region(uuid)+"/start_block", "2184\n")
	t.write(region(uuid)+"/blocks", "255\n")
	t.write(region(uuid)+"/dev", "")
}

// use gives a region its device, which starts its heartbeat.
func (t tree) use(uuid, device string) {
	t.prepare(uuid)
	t.write(region(uuid)+"/dev", device+"\n")
}

func regionOn(uuid, device, number string) o2cb.Region {
	return o2cb.Region{UUID: uuid, Device: device, DevNumber: number, StartBlock: 2184, BlockBytes: 512, Blocks: 255}
}

func TestClusterAndThisNodeAreRead(t *testing.T) {
	tree := newTree(t)
	tree.online("global")
	c, err := tree.fs().Cluster()
	if err != nil {
		t.Fatal(err)
	}
	want := &o2cb.Cluster{Name: "eco", GlobalHeartbeat: true, Nodes: []o2cb.Node{
		{Name: "web0", Number: 0},
		{Name: "web1", Number: 1, Local: true},
	}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if local, err := c.Local(); err != nil || local.Number != 1 {
		t.Errorf("this node is %+v, %v", local, err)
	}
}

func TestMachineThatIsNoNodeIsTold(t *testing.T) {
	tree := newTree(t)
	tree.online("local")
	tree.write(cluster+"/eco/node/web1/local", "0\n")
	c, err := tree.fs().Cluster()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.Local(); err == nil {
		t.Errorf("this node is %+v", n)
	}
}

func TestOfflineIsNotAnotherError(t *testing.T) {
	tree := newTree(t)
	_, errModule := tree.fs().Cluster()
	tree.mkdir(cluster)
	_, errCluster := tree.fs().Cluster()
	_, errRegions := tree.fs().Regions("eco")
	for _, err := range []error{errModule, errCluster, errRegions} {
		if !errors.Is(err, o2cb.ErrOffline) {
			t.Errorf("got %v", err)
		}
	}
}

func TestRegionsInUseAreRead(t *testing.T) {
	tree := newTree(t)
	tree.online("local")
	tree.use(uuidA, "vda")
	tree.use(uuidB, "dm-1")
	tree.prepare("0123456789ABCDEF0123456789ABCDEF") // has no device yet
	got, err := tree.fs().Regions("eco")
	if err != nil {
		t.Fatal(err)
	}
	want := []o2cb.Region{regionOn(uuidA, "vda", "254:0"), regionOn(uuidB, "dm-1", "253:1")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDeviceWithASlashInItsName(t *testing.T) {
	tree := newTree(t)
	tree.online("local")
	tree.write("sys/class/block/cciss!c0d0/dev", "104:0\n")
	tree.use(uuidA, "cciss/c0d0")
	got, err := tree.fs().Regions("eco")
	if err != nil || len(got) != 1 || got[0].DevNumber != "104:0" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestNonsenseInARegionIsTold(t *testing.T) {
	tree := newTree(t)
	tree.online("local")
	tree.use(uuidA, "vda")
	tree.write(region(uuidA)+"/blocks", "many\n")
	if got, err := tree.fs().Regions("eco"); err == nil {
		t.Errorf("got %+v", got)
	}
}

func TestMountsAndTheirRegions(t *testing.T) {
	tree := newTree(t)
	tree.write("proc/self/mountinfo", `22 1 254:9 / / rw,relatime shared:1 - ext4 /dev/vdb rw
30 22 254:0 / /srv/with\040space\134 rw,relatime shared:5 master:2 - ocfs2 /dev/vda rw,_netdev,heartbeat=local,nointr,data=ordered
31 22 253:7 / /mnt rw - ocfs2 /dev/mapper/x rw,_netdev,heartbeat=global
32 22 254:0 / /alone ro - ocfs2 /dev/vda ro,heartbeat=none
33 22 0:5 / /odd rw - ocfs2_dlmfs none rw
broken
`)
	got, err := tree.fs().Mounts()
	if err != nil {
		t.Fatal(err)
	}
	want := []o2cb.Mount{
		{Point: `/srv/with space\`, Source: "/dev/vda", DevNumber: "254:0", Heartbeat: "local"},
		{Point: "/mnt", Source: "/dev/mapper/x", DevNumber: "253:7", Heartbeat: "global"},
		{Point: "/alone", Source: "/dev/vda", DevNumber: "254:0", Heartbeat: "none"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	a, b := regionOn(uuidA, "vda", "254:0"), regionOn(uuidB, "dm-1", "253:1")
	for i, want := range [][]o2cb.Region{{a}, {a, b}, nil} {
		if diff := cmp.Diff(want, got[i].Regions([]o2cb.Region{a, b})); diff != "" {
			t.Errorf("%s: -want +got:\n%s", got[i].Point, diff)
		}
	}
}

// TestOnlyTheRightDeviceIsOpened uses a block device of the machine: only its number is looked at.
func TestOnlyTheRightDeviceIsOpened(t *testing.T) {
	name, number := blockDevice(t)
	tree := newTree(t)
	tree.mkdir("dev")
	if err := os.Symlink(name, filepath.Join(tree.root, "dev/vda")); err != nil {
		t.Fatal(err)
	}
	file, err := tree.fs().OpenDevice(o2cb.Region{Device: "vda", DevNumber: number})
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	if _, err = tree.fs().OpenDevice(o2cb.Region{Device: "vda", DevNumber: "254:77"}); !errors.Is(err, unix.ENXIO) {
		t.Errorf("another device gives %v", err)
	}
}

// blockDevice skips the test where none can be opened, as without root.
func blockDevice(t *testing.T) (name, number string) {
	t.Helper()
	numbers, err := filepath.Glob("/sys/class/block/*/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		text, _ := os.ReadFile(n)
		name := "/dev/" + filepath.Base(filepath.Dir(n))
		if f, err := os.OpenFile(name, os.O_RDWR, 0); err == nil && len(text) > 0 {
			f.Close()
			return name, string(text[:len(text)-1])
		}
	}
	t.Skip("no block device can be opened here")
	return "", ""
}

func TestPlainFileIsNoDevice(t *testing.T) {
	tree := newTree(t)
	tree.write("dev/vda", "")
	_, err := tree.fs().OpenDevice(o2cb.Region{Device: "vda", DevNumber: "254:0"})
	if !errors.Is(err, unix.ENOTBLK) {
		t.Errorf("a plain file gives %v", err)
	}
	_, err = tree.fs().OpenDevice(o2cb.Region{Device: "vdb", DevNumber: "254:1"})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing device gives %v", err)
	}
}
