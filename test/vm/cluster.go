// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ClusterName is every test cluster's name in cluster.conf.
const ClusterName = "o2test"

// MountPoint is where a cluster's file system is mounted in its nodes, and DiskDevice what is mounted
// there.
const (
	MountPoint = "/ocfs2"
	DiskDevice = "/dev/vda"
)

const (
	maxNodes = 200       // that have addresses
	diskSize = 300 << 20 // bytes; sparse
)

// A ClusterConfig describes a cluster. Kernel, Dir and Nodes must be set.
type ClusterConfig struct {
	Kernel *Kernel
	Dir    string // for logs and the shared disk
	Nodes  int
	// Machine, when set, changes the configuration of node i before it is made.
	Machine func(i int, c *Config)
}

// A Cluster is machines node0, node1 and so on, with addresses 10.77.0.10, 10.77.0.11 and so on,
// a private network and one shared disk with OCFS2 on it.
type Cluster struct {
	Nodes []*VM
	Disk  string // the image
}

// NewCluster formats the disk and makes the machines, which are off. The end of ctx is that of Close.
func NewCluster(ctx context.Context, cfg ClusterConfig) (*Cluster, error) {
	if cfg.Nodes < 1 || cfg.Nodes > maxNodes {
		return nil, fmt.Errorf("a cluster of %d nodes", cfg.Nodes)
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	c := &Cluster{Disk: filepath.Join(cfg.Dir, "disk.img")}
	if err := FormatOCFS2(ctx, c.Disk, diskSize, ClusterName, cfg.Nodes); err != nil {
		return nil, err
	}
	network, epoch := NewSwitch(), time.Now()
	for i := range cfg.Nodes {
		config := Config{
			Kernel: cfg.Kernel, Name: fmt.Sprintf("node%d", i), Dir: cfg.Dir, Epoch: epoch,
			Disks: []string{c.Disk}, Switch: network,
			Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(10 + i)}), 24),
		}
		if cfg.Machine != nil {
			cfg.Machine(i, &config)
		}
		m, err := New(ctx, config)
		if err != nil {
			c.Close()
			return nil, err
		}
		c.Nodes = append(c.Nodes, m)
	}
	return c, nil
}

// Close closes all machines and removes the disk.
func (c *Cluster) Close() {
	for _, m := range c.Nodes {
		m.Close()
	}
	os.Remove(c.Disk)
}

// All calls do for all nodes at once and joins the errors.
func (c *Cluster) All(do func(m *VM) error) error {
	errs := make([]error, len(c.Nodes))
	var wg sync.WaitGroup
	for i, m := range c.Nodes {
		wg.Go(func() { errs[i] = do(m) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Boot boots all nodes.
func (c *Cluster) Boot(ctx context.Context) error {
	return c.All(func(m *VM) error { return m.Boot(ctx) })
}

// Online loads OCFS2 in a node that is up and brings its o2cb online: from now on it can mount.
func (c *Cluster) Online(ctx context.Context, m *VM) error {
	// The guest's changes to its root are lost with every boot, so this is written every time.
	conf := ClusterConf(ClusterName, c.Nodes)
	if err := m.WriteFile(ctx, "/etc/ocfs2/cluster.conf", []byte(conf), 0o644); err != nil {
		return err
	}
	// What the init script of ocfs2-tools does, without its waiting and its console output.
	_, err := m.Run(ctx, "sh", "-ec", `
		modprobe ocfs2
		modprobe ocfs2_stack_o2cb
		echo o2cb >/sys/fs/ocfs2/cluster_stack
		o2cb register-cluster `+ClusterName)
	return err
}

// Mount mounts the shared disk in a node that is online. It returns when the node has joined the
// others that have it mounted.
func (c *Cluster) Mount(ctx context.Context, m *VM) error {
	_, err := m.Run(ctx, "sh", "-ec", "mkdir -p "+MountPoint+" && mount -t ocfs2 "+DiskDevice+" "+MountPoint)
	return err
}

// Unmount leaves the file system cleanly.
func (c *Cluster) Unmount(ctx context.Context, m *VM) error {
	_, err := m.Run(ctx, "umount", MountPoint)
	return err
}

// Start is Boot, and Online and Mount in all nodes.
func (c *Cluster) Start(ctx context.Context) error {
	for _, step := range []func(m *VM) error{
		func(m *VM) error { return m.Boot(ctx) },
		func(m *VM) error { return c.Online(ctx, m) },
		func(m *VM) error { return c.Mount(ctx, m) },
	} {
		// All nodes are up before the first of them mounts: joining takes seconds of heartbeat, which
		// the nodes then spend together.
		if err := c.All(step); err != nil {
			return err
		}
	}
	return nil
}
