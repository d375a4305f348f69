// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"context"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/vm"
)

// A node is a virtual machine with a watchdog, in which Debian's sbd watches the disk.
type node struct {
	*vm.VM
	disk *testDisk
	dev  *device
	ctx  context.Context
}

func boot(t *testing.T, watchdog, msgwait string) *node {
	t.Helper()
	k := formatted(t, 512, []string{"-1", watchdog, "-4", msgwait}, "node1", "node2")
	c := vm.TestCluster(t, vm.ClusterConfig{Nodes: 1, Machine: func(_ int, c *vm.Config) {
		c.Disks = append(c.Disks, k.file.Name())
		c.Devices = append(c.Devices, "-device", "i6300esb")
	}})
	n := &node{VM: c.Nodes[0], disk: k, ctx: within(t, 5*time.Minute)}
	if err := c.Boot(n.ctx); err != nil {
		t.Fatal(err)
	}
	n.run(t, "modprobe i6300esb; mkdir -p /run /var/lib/sbd; "+
		"SBD_PACEMAKER=no SBD_SYNC_RESOURCE_STARTUP=no setsid sbd -d /dev/vdb -n node2 -P -P -w /dev/watchdog watch >/dev/console 2>&1 & "+
		// It opens the watchdog last. Until then a node that hangs is not reset.
		"until ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q /dev/watchdog; do sleep 1; done")
	n.dev = openDevice(t, map[string]string{"ping": "yes", "io": "3"}, k)
	if err := n.dev.Check(within(t, time.Minute)); err != nil {
		t.Fatal("its sbd does not answer:", err)
	}
	return n
}

func (n *node) run(t *testing.T, command string) {
	t.Helper()
	if out, err := n.Run(n.ctx, "sh", "-c", command); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// fenced fences the node and looks whether it is off when Off says so.
func (n *node) fenced(t *testing.T, msgwait time.Duration) {
	t.Helper()
	start := time.Now()
	off := make(chan time.Duration, 1)
	go func() { <-n.Exited(); off <- time.Since(start) }()
	if err := n.dev.Off(n.ctx); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	if s := n.PowerState(); s != vm.Off {
		t.Fatalf("FALSE SUCCESS: the machine is %s", s)
	}
	t.Logf("off after %v, proven after %v", <-off, took)
	if took < msgwait {
		t.Errorf("took %v, msgwait is %v", took, msgwait)
	}
}

func TestSbdInAMachineObeys(t *testing.T) {
	n := boot(t, "10", "20")
	n.fenced(t, 20*time.Second)
}

// The sbd of a node that hangs reads nothing: its watchdog is what makes msgwait a proof.
func TestTheWatchdogOfAMachineThatHangsIsFasterThanMsgwait(t *testing.T) {
	n := boot(t, "10", "20")
	n.run(t, "pkill -STOP sbd")
	n.fenced(t, 20*time.Second)
}
