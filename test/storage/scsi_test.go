// SPDX-License-Identifier: GPL-2.0-only

package storage

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/o2fence/o2fence/fencemethods/reserve"
	"github.com/o2fence/o2fence/test/vm"
)

// serial becomes the disk's designator, as far as it fits.
const (
	serial = "5e0f0000-0000-4000-8000-000000000000"
	wwid   = "naa.60014055e0f000000004000800000000"
)

// saved is what targetcli saves: one disk, by two addresses, for two nodes that are known by name.
const saved = `{
	"storage_objects": [{"plugin": "block", "name": "disk", "dev": "/dev/vda", "wwn": "` + serial + `"}],
	"targets": [{"fabric": "iscsi", "wwn": "iqn.2026-01.test.o2fence:disk", "tpgs": [{
		"tag": 1, "enable": true,
		"attributes": {"authentication": 0, "generate_node_acls": 0},
		"luns": [{"index": 0, "storage_object": "/backstores/block/disk"}],
		"portals": [{"ip_address": "10.77.0.12", "port": 3260}, {"ip_address": "10.77.0.112", "port": 3260}],
		"node_acls": [
			{"node_wwn": "iqn.2026-01.test.o2fence:node0", "mapped_luns": [{"index": 0, "tpg_lun": 0, "write_protect": false}]},
			{"node_wwn": "iqn.2026-01.test.o2fence:node1", "mapped_luns": [{"index": 0, "tpg_lun": 0, "write_protect": false}]}
		]
	}]}]
}
`

const serveLIO = `
	ip addr add 10.77.0.112/24 dev eth0
	mkdir -p /etc/rtslib-fb-target/pr
	mount -o sync /dev/vdb /etc/rtslib-fb-target/pr # LIO does not wait until what it stores is on the disk
	targetctl restore 2>&1
`

// connectPaths finds the disk by both addresses, and makes one device of the paths.
const connectPaths = `
	mkdir -p /run/lock/iscsi
	modprobe -a iscsi_tcp sd_mod dm_multipath
	echo InitiatorName=iqn.2026-01.test.o2fence:$(hostname) > /etc/iscsi/initiatorname.iscsi
	nohup iscsid -f >/run/iscsid.log 2>&1 &
	/lib/systemd/systemd-udevd --daemon >/dev/null 2>&1
	printf 'defaults {\n\tfind_multipaths no\n\tuser_friendly_names no\n}\n' > /etc/multipath.conf
	await grep -q ISCSIADM_ABSTRACT_NAMESPACE /proc/net/unix
	iscsiadm -m discovery -t st -p 10.77.0.12 >/dev/null
	iscsiadm -m node -l >/dev/null
	await sh -c 'test $(ls -d /sys/class/iscsi_session/*/device/target*/*/block/* | wc -l) = 2'
	nohup multipathd -d -s >/run/multipathd.log 2>&1 &
	await sh -c 'test $(ls /sys/block/dm-0/slaves 2>/dev/null | wc -l) = 2'
`

func TestAFrozenNodeWhoseKeyIsTakenAwayWritesNoMore(t *testing.T) {
	b := start(t, "\tmethod = scsi\n\tdisks = "+wwid+"\n", serveLIO, map[string]string{"/etc/rtslib-fb-target/saveconfig.json": saved})
	b.device = "/dev/mapper/3" + wwid[len("naa."):]
	b.both(func(m *machine) {
		m.sh(connectPaths)
		b.unfence(m)
		b.protect(m)
	})
	b.registered(map[int]int{0: 2, 1: 2})
	b.frozen("scsi", func() {
		// The storage's power fails: the keys, and that one of them is gone, have to survive it.
		check(t, b.storage.Reset(b.ctx))
		check(t, b.storage.Ready(b.ctx))
		b.serve(serveLIO)
		ctl := b.Program("o2fencectl")
		out := b.nodes[0].sh(ctl + " fence node1; " + ctl + ` history --json | grep '"method"' | sort -u`)
		if !strings.HasSuffix(out, `"method": "scsi",`) || strings.Contains(out, "watchdog") {
			t.Errorf("fenced once more by another method: %s", out)
		}
		t.Log(out)
		b.registered(map[int]int{0: 2})
	}, func(node1 *machine, line, sector int) {
		// The kernel leaves out lines where there are many.
		t.Log(node1.says(line, fmt.Sprintf(`critical nexus error, dev dm-0, sector %d op 0x1:\(WRITE\)|CDB: Write\(10\) 2a 00 % x `,
			sector, binary.BigEndian.AppendUint32(nil, uint32(sector)))))
	})

	node1 := b.nodes[1]
	check(t, node1.Reset(b.ctx))
	node1.onlyGaveUp()
	check(t, node1.Ready(b.ctx))
	node1.sh(connectPaths)
	// To mount takes heartbeats, and these are writes.
	if _, err := node1.run("dd if=" + b.device + " of=" + b.device + " bs=4096 count=1 iflag=direct oflag=direct status=none"); err == nil || !strings.Contains(err.Error(), "Invalid exchange") {
		t.Errorf("a node that has not registered writes: %v", err)
	}
	b.unfence(node1)
	b.registered(map[int]int{0: 2, 1: 2})
	b.protect(node1)
	check(t, b.Watched(b.ctx, b.nodes[0].VM, 0, 1))
	b.intact()
}

// onlyGaveUp forgets the one panic that may be: OCFS2's, that has lost its journal. When that is not the
// first thing it is refused, the node resets itself a minute later.
func (m *machine) onlyGaveUp() {
	m.Helper()
	for _, fault := range m.KernelFaults() {
		if !strings.Contains(fault, "OCFS2: (device dm-0): panic forced after error") && !strings.HasSuffix(fault, "Call Trace:") {
			m.Errorf("kernel fault: %s", fault)
		}
	}
	m.ClearKernelFaults()
}

// registered asks for a second opinion: how many keys of each node the disk has, by each path of the first
// node.
func (b *bed) registered(want map[int]int) {
	b.Helper()
	// It is told once that something has changed, and gives up.
	out := b.nodes[0].sh(`for d in sda sdb; do sg_persist -n -k /dev/$d || sg_persist -n -k /dev/$d; sg_persist -n -r /dev/$d; done`)
	for node := range b.nodes {
		key := strings.TrimPrefix(reserve.KeyOf(vm.ClusterName, uint8(node)).String(), "0x")
		if got := strings.Count(out, key); got != 2*want[node] {
			b.Errorf("%d registrations of node%d are seen, want %d:\n%s", got, node, 2*want[node], out)
		}
	}
	if strings.Count(out, "Write Exclusive, all registrants") != 2 {
		b.Errorf("another reservation:\n%s", out)
	}
}

// unfence is what o2fence-unfence.service does, before there is a cluster.
func (b *bed) unfence(m *machine) {
	b.Helper()
	m.write("/etc/ocfs2/cluster.conf", vm.ClusterConf(vm.ClusterName, b.Cluster.Nodes))
	m.write("/etc/ocfs2/fence.conf", b.Conf())
	if out := m.sh(b.Program("o2fencectl") + " unfence"); !strings.HasSuffix(out, "is registered") {
		b.Errorf("%s: unfence says %q", m.Name(), out)
	}
}
