// SPDX-License-Identifier: GPL-2.0-only

package reserve

import (
	"strings"
	"testing"

	"github.com/o2fence/o2fence/test/vm"
)

const nvmeUUID = "5e0f0000-0000-4000-8000-00000000000"

// One subsystem with two namespaces.
const serveNVMe = await + `
	modprobe -a loop nvmet-tcp
	s=/sys/kernel/config/nvmet/subsystems/nqn.2026-01.test:nvme
	mkdir $s; echo 1 > $s/attr_allow_any_host
	for n in 1 2; do
		mkdir $s/namespaces/$n; cd $s/namespaces/$n
		[ -e resv_enable ] || { echo none; exit; }
		truncate -s 16M /run/ns$n; losetup /dev/loop$n /run/ns$n
		printf /dev/loop$n > device_path; echo ` + nvmeUUID + `$n > device_uuid
		echo 1 > resv_enable; echo 1 > enable
	done
	p=/sys/kernel/config/nvmet/ports/1
	mkdir $p; echo tcp > $p/addr_trtype; echo ipv4 > $p/addr_adrfam
	echo 10.77.0.10 > $p/addr_traddr; echo 4420 > $p/addr_trsvcid
	ln -s $s $p/subsystems/
`

// Each host has an identifier of its own: a registration is the host's.
const connect = await + `
	modprobe nvme-tcp
	id=5e0f0000-0000-4000-9000-$(hostname | sed 's/node/00000000000/')
	echo transport=tcp,traddr=10.77.0.10,trsvcid=4420,nqn=nqn.2026-01.test:nvme,hostnqn=nqn.2014-08.org.nvmexpress:uuid:$id,hostid=$id > /dev/nvme-fabrics
	await test -b /dev/nvme0n2; await test -b /dev/nvme0n1
	cd /sys/block
	for d in nvme0n*; do ln -s $d /dev/disk-$(cat $d/wwid); done # which is which differs from boot to boot
`

func TestAFencedNodesWritesStopOnNVMe(t *testing.T) {
	_, storage, a, b := machines(t)
	if storage.sh(serveNVMe) == "none" {
		t.Skipf("the nvmet of kernel %s has no reservations, those since 6.13 have: choose one with %s",
			storage.sh("uname -r"), vm.KernelVariable)
	}
	a.sh(connect)
	b.sh(connect)
	s := &bed{
		T: t, a: a, b: b, method: "nvme", paths: 1, kind: "rtype : 5",
		params: []string{"namespaces=uuid." + nvmeUUID + "1,uuid." + nvmeUUID + "2", "persist=no"},
		disks:  []string{"/dev/disk-uuid." + nvmeUUID + "1", "/dev/disk-uuid." + nvmeUUID + "2"},
		opinion: func(disk string) (keys, kind string) {
			report := strings.Join(strings.Fields(a.sh("nvme resv-report -e $(readlink -f "+disk+")")), " ")
			return report, report
		},
	}
	s.run()
}
