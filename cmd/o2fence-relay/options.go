// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/o2fence/o2fence/bridge/o2cb"
	method "github.com/o2fence/o2fence/fencemethods/relay"
	"github.com/o2fence/o2fence/fencemethods/remote"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
)

const defaultPort = method.Port

// Options are the command line's.
type options struct {
	cluster, fence string
	listen         netip.AddrPort
	keys           []keyFile
}

// A keyFile holds the key of those who may give orders for the nodes of a cluster, or of all.
type keyFile struct{ cluster, name string }

func (o *options) parseListen(s string) error {
	at, err := netip.ParseAddrPort(s)
	if addr, alone := netip.ParseAddr(s); alone == nil {
		at, err = netip.ParseAddrPort(net.JoinHostPort(addr.String(), defaultPort))
	}
	switch {
	case err != nil:
		return errors.New("expected an IP address, or an IP address and a port as in 192.0.2.5:7411 or [2001:db8::5]:7411")
	case at.Addr().IsUnspecified() || at.Addr().IsMulticast():
		return errors.New("expected one address of this machine: an answer from another than was asked is not believed")
	}
	o.listen = at
	return nil
}

func (o *options) parseKey(s string) error {
	k := keyFile{name: s}
	if cluster, name, ok := strings.Cut(s, "="); ok && !filepath.IsAbs(s) {
		k = keyFile{cluster, name}
	}
	if !filepath.IsAbs(k.name) {
		return errors.New("expected the absolute path of a file that holds the key, not the key")
	}
	o.keys = append(o.keys, k)
	return nil
}

// giveKeys reads the keys, and gives each node those of its cluster.
func (o *options) giveKeys(nodes []server.Node) error {
	for _, k := range o.keys {
		key, err := remote.ReadKey(k.name)
		if err != nil {
			return err
		}
		used := false
		for i, n := range nodes {
			if k.cluster == "" || k.cluster == n.Target.Cluster {
				nodes[i].Keys = append(nodes[i].Keys, key)
				used = true
			}
		}
		if !used {
			return fmt.Errorf("-key-file %s=%s: no node of a cluster %q can be fenced from here", k.cluster, k.name, k.cluster)
		}
	}
	for _, n := range nodes {
		if len(n.Keys) == 0 {
			return fmt.Errorf("node %s of cluster %s: no -key-file is for it", n.Target.Name, n.Target.Cluster)
		}
	}
	return nil
}

var errMounted = errors.New("OCFS2 is mounted here, so that memory may have to wait for the very node that is to be fenced: load the module o2fence, or unmount it")

// refuseMounts fails when an OCFS2 file system is mounted.
func refuseMounts(system o2cb.FS) error {
	mounts, err := system.Mounts()
	if err == nil && len(mounts) > 0 {
		return fmt.Errorf("%s: %w", mounts[0].Point, errMounted)
	}
	return err
}
