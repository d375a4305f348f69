// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/reserve"
	"github.com/o2fence/o2fence/fencemethods/scsi"
)

const await = `
	await() { n=0; until "$@"; do n=$((n+1)); [ $n -lt 600 ] || { echo "never: $*" >&2; return 1; }; sleep 0.05; done; }`

// The SCSI disk is the kernel's own target's (LIO). Two hosts of this machine lead to it: the first is this
// node's, the second, which the bridge does not know, is the node's that is fenced.
const (
	wwid = "naa.60014055d2c0e8ba141f76c93ee027b5" // of the serial number

	scsiLibrary = await + `
	t=/sys/kernel/config/target
	disks() { grep -lx ` + wwid + ` /sys/block/sd*/device/wwid; }
	both() { test $(disks | wc -l) = 2; }
	attach() { # NUMBER
		mkdir -p $t/loopback/naa.60014050000000a$1/tpgt_1
		cd $t/loopback/naa.60014050000000a$1/tpgt_1
		echo naa.60014050000000b$1 > nexus
		mkdir lun/lun_0
		ln -s $t/core/rd_mcp_0/disk lun/lun_0/disk
	}`

	makeSCSI = scsiLibrary + `
	modprobe -a sd_mod target_core_mod tcm_loop
	mkdir -p /var/target/pr $t/core/rd_mcp_0/disk # where it notes the reservations
	echo rd_pages=256 > $t/core/rd_mcp_0/disk/control
	echo 5d2c0e8b-a141-f76c-93ee-027b50000000 > $t/core/rd_mcp_0/disk/wwn/vpd_unit_serial
	echo 1 > $t/core/rd_mcp_0/disk/enable
	attach 1
	await disks`

	// By now the bridge has found its own. Who was fenced is told so by the first command, which is not
	// carried out.
	registerSCSI = scsiLibrary + `
	[ -e /run/first ] || { disks > /run/first; attach 2; await both; }
	other=$(disks | grep -vxFf /run/first | cut -d/ -f4)
	for try in 1 2; do
		sg_persist --no-inquiry --out --register-ignore --param-sark=$1 /dev/$other > /run/register 2>&1 && exit
	done
	cat /run/register; exit 1`
)

// The NVMe namespace is the kernel's own target's (nvmet), which has no reservations before Linux 6.13 and
// here does not use them.
const makeNVMe = await + `
	modprobe -a loop nvmet-tcp nvme-tcp
	truncate -s 1M /run/namespace
	losetup /dev/loop0 /run/namespace
	s=/sys/kernel/config/nvmet/subsystems/nqn.2026-01.test:nvme
	p=/sys/kernel/config/nvmet/ports/1
	mkdir $s $s/namespaces/1 $p
	echo 1 > $s/attr_allow_any_host
	cd $s/namespaces/1
	printf /dev/loop0 > device_path
	echo 5e0f0000-0000-4000-8000-000000000001 > device_uuid
	echo 1 > enable
	cd $p
	echo tcp > addr_trtype; echo ipv4 > addr_adrfam; echo 10.0.2.15 > addr_traddr; echo 4420 > addr_trsvcid
	ln -s $s subsystems/
	id=5e0f0000-0000-4000-9000-000000000000
	echo transport=tcp,traddr=10.0.2.2,trsvcid=$1,nqn=nqn.2026-01.test:nvme,hostnqn=nqn.2014-08.org.nvmexpress:uuid:$id,hostid=$id,keep_alive_tmo=0 > /dev/nvme-fabrics
	await test -b /dev/nvme0n1`

// makeDisks makes both, with this node registered where that can be.
func (s *suite) makeDisks() error {
	port, err := os.ReadFile(filepath.Join(s.config, "nvme"))
	if err != nil {
		return err
	}
	if err := shell(makeNVMe, string(port)); err != nil {
		return err
	}
	if err := shell(makeSCSI); err != nil {
		return err
	}
	d, err := scsi.Method().Open(fencemethods.Target{Cluster: realCluster, Name: self, Member: true},
		map[string]string{"disks": wwid, "persist": "no"})
	if err != nil {
		return err
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return d.On(ctx)
}

// register registers the node that is to be fenced, as only itself can.
func (s *suite) register(node uint32) error {
	return shell(registerSCSI, reserve.KeyOf(realCluster, uint8(node)).String())
}

func shell(script string, args ...string) error {
	out, err := exec.Command("sh", append([]string{"-euc", script, "sh"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
