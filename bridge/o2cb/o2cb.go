// SPDX-License-Identifier: GPL-2.0-only

// Package o2cb reads what the O2CB cluster stack of OCFS2 shows of itself: the cluster that is
// online and this machine's node in configfs, its heartbeat regions as they come and go, and the
// file systems that depend on them. It changes nothing.
//
// Nothing here runs while a node is being fenced.
package o2cb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrOffline says that no cluster is online, or not the one that was asked for.
var ErrOffline = errors.New("cluster is offline")

// An FS is the root below which sys, proc and dev are found. The zero value is the machine's own.
type FS struct{ Root string }

// A Cluster is a cluster that is online.
type Cluster struct {
	Name            string
	GlobalHeartbeat bool // regions are shared by all file systems, not one for each
	Nodes           []Node
}

// A Node is a node as it is registered with the kernel.
type Node struct {
	Name   string
	Number uint32 // 0..254
	Local  bool   // it is this machine
}

// A Region is a heartbeat region that is in use: o2hb writes this node's slot there.
type Region struct {
	UUID       string
	Device     string // the kernel's name of its block device, such as "sda1"
	DevNumber  string // the same as "major:minor"
	StartBlock uint64 // of the slot of node 0, in blocks
	BlockBytes uint32 // the size of a slot
	Blocks     uint32 // how many slots there are
}

// Cluster returns the cluster that is online; O2CB has one at most. Without any the error is
// ErrOffline, whether its modules are loaded or not.
func (f FS) Cluster() (*Cluster, error) {
	names, err := dirs(f.configfs())
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, ErrOffline
	}
	c := Cluster{Name: names[0]}
	mode, err := attribute(f.configfs(c.Name, "heartbeat", "mode"))
	if err != nil {
		return nil, err
	}
	c.GlobalHeartbeat = mode == "global"
	c.Nodes, err = f.nodes(c.Name)
	return &c, err
}

func (f FS) nodes(cluster string) ([]Node, error) {
	names, err := dirs(f.configfs(cluster, "node"))
	if err != nil {
		return nil, err
	}
	var nodes []Node
	for _, name := range names {
		dir := f.configfs(cluster, "node", name)
		num, err1 := number(dir, "num", 8)
		local, err2 := number(dir, "local", 8)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		nodes = append(nodes, Node{Name: name, Number: uint32(num), Local: local == 1})
	}
	return nodes, nil
}

// Local returns the node that this machine is, as o2cb told the kernel.
func (c *Cluster) Local() (Node, error) {
	for _, n := range c.Nodes {
		if n.Local {
			return n, nil
		}
	}
	return Node{}, fmt.Errorf("none of the nodes of cluster %s is this machine: does the host name match one of them?", c.Name)
}

// Regions returns the heartbeat regions that are in use, by their UUIDs. One that mount.ocfs2 is
// only setting up is not among them. The error is ErrOffline when the cluster is.
func (f FS) Regions(cluster string) ([]Region, error) {
	uuids, err := dirs(f.configfs(cluster, "heartbeat"))
	if err != nil {
		return nil, err
	}
	var regions []Region
	for _, uuid := range uuids {
		r, err := f.region(cluster, uuid)
		if errors.Is(err, errNotReady) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		regions = append(regions, r)
	}
	return regions, nil
}

// errNotReady says that a region has no device yet, or no more.
var errNotReady = errors.New("region has no device")

func (f FS) region(cluster, uuid string) (Region, error) {
	dir := f.configfs(cluster, "heartbeat", uuid)
	device, err := attribute(filepath.Join(dir, "dev"))
	if err != nil {
		return Region{}, err
	}
	if device == "" {
		return Region{}, fmt.Errorf("%s: %w", uuid, errNotReady)
	}
	start, err1 := number(dir, "start_block", 64)
	size, err2 := number(dir, "block_bytes", 32)
	blocks, err3 := number(dir, "blocks", 32)
	devNumber, err4 := attribute(f.sysfs(device))
	return Region{
		UUID:       uuid,
		Device:     device,
		DevNumber:  devNumber,
		StartBlock: start,
		BlockBytes: uint32(size),
		Blocks:     uint32(blocks),
	}, errors.Join(err1, err2, err3, err4)
}

func (f FS) configfs(below ...string) string {
	return f.path(append([]string{"sys/kernel/config/cluster"}, below...)...)
}

// sysfs names the file with a block device's number. Where a name has a slash, sysfs has a "!".
func (f FS) sysfs(device string) string {
	return f.path("sys/class/block", strings.ReplaceAll(device, "/", "!"), "dev")
}

func (f FS) path(elements ...string) string {
	return filepath.Join(append([]string{f.Root, "/"}, elements...)...)
}

// dirs lists the directories in one. Of the cluster's that are missing, the cluster is offline.
func dirs(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrOffline, err)
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func attribute(name string) (string, error) {
	text, err := os.ReadFile(name)
	return strings.TrimSpace(string(text)), err
}

func number(dir, name string, bits int) (uint64, error) {
	text, err := attribute(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	return n, nil
}
