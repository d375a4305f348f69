// SPDX-License-Identifier: GPL-2.0-only

package storage

import (
	"fmt"
	"testing"
)

const (
	banKey  = "0123456789abcdef0123456789abcdef"
	banConf = `server:
	listen = 10.77.0.12
	key_file = /etc/o2fence/ipban.key
	target = tgt

node:
	cluster = o2test
	name = node0
	number = 0
	addresses = 10.77.0.10
	initiators = iqn.2026-01.test.o2fence:node0

node:
	cluster = o2test
	name = node1
	number = 1
	addresses = 10.77.0.11
	initiators = iqn.2026-01.test.o2fence:node1
`
	fenceConf = "\tmethod = ipban\n\taddrs = 10.77.0.12\n\tkey_file = /etc/ocfs2/storage.password\n"
)

const serveTGT = `
	mkdir -p /var/lib/o2fence /run/tgtd
	IPBAN restore
	nohup IPBAN serve >/run/ipban.log 2>&1 &
	nohup tgtd -f >/run/tgtd.log 2>&1 &
	await sh -c 'tgtadm --lld iscsi --mode sys --op show >/dev/null 2>&1'
	tgtadm --lld iscsi --mode target --op new --tid 1 -T iqn.2026-01.test.o2fence:disk
	tgtadm --lld iscsi --mode logicalunit --op new --tid 1 --lun 1 -b /dev/vda --bsoflags direct
	tgtadm --lld iscsi --mode target --op bind --tid 1 -I ALL
	await IPBAN check >/dev/null
`

const connect = `
	mkdir -p /run/lock/iscsi
	modprobe -a iscsi_tcp sd_mod
	echo InitiatorName=iqn.2026-01.test.o2fence:$(hostname) > /etc/iscsi/initiatorname.iscsi
	nohup iscsid -f >/run/iscsid.log 2>&1 &
	await grep -q ISCSIADM_ABSTRACT_NAMESPACE /proc/net/unix
	iscsiadm -m discovery -t st -p 10.77.0.12 >/dev/null
	iscsiadm -m node -l >/dev/null
	await sh -c 'ls /sys/class/iscsi_session/*/device/target*/*/block/* >/dev/null 2>&1'
	ln -s $(ls /sys/class/iscsi_session/*/device/target*/*/block/) /dev/shared
`

func TestAFrozenNodeThatIsBannedWritesNoMore(t *testing.T) {
	b := start(t, fenceConf, serveTGT, map[string]string{"/etc/o2fence/ipban.conf": banConf, "/etc/o2fence/ipban.key": banKey})
	b.device = "/dev/shared"
	up := func(m *machine) {
		m.sh(connect)
		m.write("/etc/ocfs2/storage.password", banKey)
		b.protect(m)
	}
	b.both(up)
	b.frozen("ipban", func() {}, func(node1 *machine, line, _ int) {
		// What it sends is not heard, and it waits.
		t.Log(node1.says(line, "detected conn error"))
		node1.sh(fmt.Sprintf("await awk '/^Writeback:/ { exit $2 < %d }' /proc/meminfo; grep '^State:.*D' /proc/$(pidof sync)/status", block>>10))
	})

	node1 := b.nodes[1]
	check(t, node1.Reset(b.ctx))
	check(t, node1.Ready(b.ctx))
	if out, err := node1.run("timeout 3 bash -c '</dev/tcp/10.77.0.12/3260'"); err == nil {
		t.Errorf("a node that is banned has reached the target: %s", out)
	}
	b.storage.sh(b.Program("o2fence-ipban") + " release node1")
	up(node1)
	check(t, b.Watched(b.ctx, b.nodes[0].VM, 0, 1))
	b.intact()
}
