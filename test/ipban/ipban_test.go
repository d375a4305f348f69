// SPDX-License-Identifier: GPL-2.0-only

// Package ipban tests the method ipban where it counts: a machine serves a disk by iSCSI, two others write
// to it, and one of these is fenced through the kernel, the bridge and the packet filter of the first.
package ipban

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/vm"
)

// testTime is more than all of it takes; one that hangs has to end too.
const testTime = 8 * time.Minute

const (
	storage  = "10.77.0.10"
	key      = "0123456789abcdef0123456789abcdef"
	writers  = 4        // on each node
	diskSize = 64 << 20 // of the disk that keeps the bans, in bytes
)

const clusterConf = `cluster:
	name = web
	node_count = 2

node:
	cluster = web
	name = node1
	number = 1
	ip_address = 10.77.0.11
	ip_port = 7777

node:
	cluster = web
	name = node2
	number = 2
	ip_address = 10.77.0.12
	ip_port = 7777
`

const fenceConf = `cluster:
	name = web
	then = off

fence:
	node = node1
	method = ipban
	addrs = 10.77.0.10
	key_file = /etc/ocfs2/storage.password

fence:
	node = node2
	method = ipban
	addrs = 10.77.0.10
	key_file = /etc/ocfs2/storage.password
`

const banConf = `server:
	listen = 10.77.0.10
	key_file = /etc/o2fence/ipban.key
	target = tgt

node:
	cluster = web
	name = node1
	number = 1
	addresses = 10.77.0.11
	initiators = iqn.2026-01.test:node1

node:
	cluster = web
	name = node2
	number = 2
	addresses = 10.77.0.12
	initiators = iqn.2026-01.test:node2
`

// library is for the scripts below.
const library = `
	# await COMMAND...: until it succeeds
	await() { n=0; until "$@"; do n=$((n+1)); [ $n -lt 600 ] || { echo "never: $*" >&2; return 1; }; sleep 0.1; done; }
`

// serveDisk starts what a storage server has at boot, in the order of its units. The target writes past the
// page cache, to a device that can be made slow.
const serveDisk = `
	modprobe -a dm_mod dm_delay
	dmsetup create disk --noudevsync --table "0 $(blockdev --getsz /dev/vda) linear /dev/vda 0"
	mkdir -p /var/lib/o2fence /run/tgtd /run/lock
	mount /dev/vdb /var/lib/o2fence
	./o2fence-ipban restore
	nohup ./o2fence-ipban serve >/run/ipban.log 2>&1 &
	nohup tgtd -f >/run/tgtd.log 2>&1 &
	await sh -c 'tgtadm --lld iscsi --mode sys --op show >/dev/null 2>&1'
	tgtadm --lld iscsi --mode target --op new --tid 1 -T iqn.2026-01.test:disk
	tgtadm --lld iscsi --mode logicalunit --op new --tid 1 --lun 1 -b /dev/dm-0 --bsoflags direct
	tgtadm --lld iscsi --mode target --op bind --tid 1 -I ALL
	await ./o2fence-ipban check >/dev/null
`

// slow has the disk take so many ms for a write.
const slow = `
	dmsetup suspend disk --noudevsync
	dmsetup reload disk --table "0 $(blockdev --getsz /dev/vda) delay /dev/vda 0 0 /dev/vda 0 %d"
	dmsetup resume disk --noudevsync
`

const login = `
	mkdir -p /run/lock/iscsi
	modprobe -a iscsi_tcp sd_mod
	echo InitiatorName=iqn.2026-01.test:$(hostname) > /etc/iscsi/initiatorname.iscsi
	nohup iscsid -f >/run/iscsid.log 2>&1 &
	await grep -q ISCSIADM_ABSTRACT_NAMESPACE /proc/net/unix
	iscsiadm -m discovery -t st -p 10.77.0.10 >/dev/null
	iscsiadm -m node -l >/dev/null
	await sh -c 'ls /sys/class/iscsi_session/*/device/target*/*/block/* >/dev/null 2>&1'
`

// write counts, in blocks of the disk, one for each of several processes, which have one write under way
// each: past the page cache, to where a node's journal would go.
const write = `
	disk=/dev/$(ls /sys/class/iscsi_session/*/device/target*/*/block/ | head -1)
	for i in $(seq 0 %d); do
		nohup sh -c 'i=0; while i=$((i+1)); do
			printf "%%-65536d" $i | dd of='$disk' bs=64k count=1 seek='$((%d + i))' iflag=fullblock oflag=direct conv=notrunc status=none || exit
		done' >/run/writer.$i 2>&1 &
	done
`

type machine struct {
	*testing.T
	*vm.VM
	ctx context.Context
	bin string
}

func (m *machine) sh(script string) string {
	m.Helper()
	return vm.Sh(m.ctx, m.T, m.VM, library+"cd "+m.bin+"\n"+script)
}

func (m *machine) write(path, text string) {
	m.Helper()
	if err := m.WriteFile(m.ctx, path, []byte(text), 0o600); err != nil {
		m.Fatal(err)
	}
}

// slot is where a node's blocks begin, of 64 KiB.
func slot(node int) int { return node * writers }

// written reads a node's counters from the disk, in the storage server.
func (m *machine) written(node int) []int {
	m.Helper()
	var counts []int
	out := m.sh(fmt.Sprintf(`for i in $(seq %d %d); do dd if=/dev/vda bs=64k skip=$i count=1 iflag=direct status=none | head -c 20; echo; done`, slot(node), slot(node)+writers-1))
	for line := range strings.Lines(out) {
		n, _ := strconv.Atoi(strings.TrimSpace(line)) // what is there at first is no number
		counts = append(counts, n)
	}
	return counts
}

// goesOn waits until each of a node's counters has moved on by so many.
func (m *machine) goesOn(node, by int) {
	m.Helper()
	from := m.written(node)
	for {
		now, done := m.written(node), true
		for i := range now {
			done = done && now[i] >= from[i]+by
		}
		if done {
			return
		}
		if m.ctx.Err() != nil {
			m.Fatalf("node%d does not write: %v, then %v", node, from, now)
		}
	}
}

// standsStill sees whether nothing of a node's reaches the disk while another's counters move on.
func (m *machine) standsStill(node int, since []int, other, by int) {
	m.Helper()
	before := m.written(other)
	m.goesOn(other, by)
	if now := m.written(node); !slices.Equal(now, since) {
		m.Errorf("FALSE SUCCESS: node%d has written: %v, then %v", node, since, now)
	}
	m.Logf("node%d stays at %v, node%d went from %v to %v", node, since, other, before, m.written(other))
}

// fence fences a node, and sees that it was by ipban, not by the watchdog that comes after it.
func (m *machine) fence(node string) {
	m.Helper()
	out := m.sh("./o2fencectl fence " + node + "; ./o2fencectl history --json | grep '\"method\"' | sort -u")
	if !strings.HasSuffix(out, `"method": "ipban",`) || strings.Contains(out, `"method": "watchdog"`) {
		m.Errorf("fenced by another method: %s", out)
	}
	m.Log(out)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestABannedNodesWritesStop(t *testing.T) {
	needs(t)
	kept := filepath.Join(t.TempDir(), "state.img")
	c := vm.TestCluster(t, vm.ClusterConfig{Nodes: 3, Machine: func(i int, c *vm.Config) {
		if i == 0 {
			c.Disks = append(c.Disks, kept)
		}
	}})
	check(t, makeDisk(kept))
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	root, err := filepath.Abs("../..")
	check(t, err)
	var nodes []*machine
	for _, m := range c.Nodes {
		nodes = append(nodes, &machine{t, m, ctx, filepath.Join(root, "build", "bin")})
	}
	server, node1, node2 := nodes[0], nodes[1], nodes[2]
	check(t, c.Boot(ctx))

	server.configure()
	server.sh("mkfs.ext4 -q /dev/vdb\n" + serveDisk)
	for i, m := range nodes[1:] {
		m.sh(login + fmt.Sprintf(write, writers-1, slot(i+1)))
	}
	protect(node2, root)
	server.goesOn(1, 1)
	server.goesOn(2, 1)

	// With the disk slow, the target has four writes of node1's at any time, and had them before the ban. Three
	// more of node2's take longer than any of these.
	node2.sh("./o2fencectl check")
	server.sh(fmt.Sprintf(slow, 2000))
	server.goesOn(1, 1)
	node2.fence("node1")
	since := server.written(1)
	server.standsStill(1, since, 2, 3)
	server.sh(fmt.Sprintf(slow, 0))
	server.standsStill(1, since, 2, 5)
	node1.sh("pidof dd >/dev/null") // which waits, and has not failed

	// The service of the bans, and all rules: as at a boot there is no network meanwhile.
	server.sh(`ip link set eth0 down
		kill -9 $(pidof o2fence-ipban); nft flush ruleset; ./o2fence-ipban restore
		ip link set eth0 up
		nohup ./o2fence-ipban serve >>/run/ipban.log 2>&1 &`)
	server.standsStill(1, since, 2, 5)

	// The whole server.
	check(t, server.Reset(ctx))
	check(t, server.Ready(ctx))
	server.configure()
	server.sh(serveDisk)
	server.standsStill(1, since, 2, 5)
	if out := server.sh("./o2fence-ipban status"); !strings.Contains(out, "node1  banned") || !strings.Contains(out, "node2  allowed") {
		t.Errorf("status:\n%s", out)
	}
	node2.fence("node1") // which is banned still

	// The initiator sends what it could not: so a node has to restart before it is let in.
	server.sh("./o2fence-ipban release node1")
	server.goesOn(1, 1)
}

// configure is what the server loses when it restarts: its root is in memory.
func (m *machine) configure() {
	m.Helper()
	m.write("/etc/o2fence/ipban.conf", banConf)
	m.write("/etc/o2fence/ipban.key", key)
}

// protect brings the modules and the bridge up.
func protect(m *machine, root string) {
	m.Helper()
	m.write("/etc/ocfs2/cluster.conf", clusterConf)
	m.write("/etc/ocfs2/fence.conf", fenceConf)
	m.write("/etc/ocfs2/storage.password", key)
	ko := filepath.Join(root, "build", "ko", m.sh("uname -r"))
	m.sh("insmod " + ko + "/o2fence.ko; insmod " + ko + "/o2fence_methods.ko\n" +
		"start-stop-daemon --start --background --notify-await --notify-timeout 60 --exec $PWD/o2fenced\n" +
		"./o2fencectl join")
}
