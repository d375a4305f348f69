// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/o2fence/o2fence/bridge/config"
)

const corosyncFile = "/etc/corosync/corosync.conf"

// nodeOfCorosync finds the node that dlm_controld knows by corosync's number. That is another number
// than the one in cluster.conf, however alike the two may look: to take one for the other would be
// to fence the wrong node and to call the right one fenced. So corosync.conf has to say who it is,
// by the node's name or by its address.
func nodeOfCorosync(c *config.Cluster, file, id string) (*config.Node, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w; or name the node by plug= in the connect line of dlm.conf", id, err)
	}
	var found *config.Node
	for _, entry := range nodelist(string(text)) {
		if entry["nodeid"] != id {
			continue
		}
		n, err := matching(c, entry)
		if err != nil {
			return nil, fmt.Errorf("%s: node %s: %w", file, id, err)
		}
		if found != nil && found != n {
			return nil, fmt.Errorf("%s: node %s is there twice", file, id)
		}
		found = n
	}
	if found == nil {
		return nil, fmt.Errorf("%s: no node with nodeid %s; or name the node by plug= in the connect line of dlm.conf", file, id)
	}
	return found, nil
}

// matching finds a node of corosync's in the cluster. What is said of it must not point at two.
func matching(c *config.Cluster, entry map[string]string) (*config.Node, error) {
	var found *config.Node
	for key, value := range entry {
		if key != "name" && !(strings.HasPrefix(key, "ring") && strings.HasSuffix(key, "_addr")) {
			continue
		}
		n := nodeOf(c, value)
		if n != nil && found != nil && found != n {
			return nil, fmt.Errorf("both %s and %s of cluster %s are meant by its name and addresses", found.Name, n.Name, c.Name)
		}
		found = cmp.Or(n, found)
	}
	if found == nil {
		return nil, errors.New("neither its name nor an address of it is that of a node of cluster " + c.Name)
	}
	return found, nil
}

// nodeOf finds the node of a host name or an address, nil for none.
func nodeOf(c *config.Cluster, value string) *config.Node {
	addr, err := netip.ParseAddr(value)
	if err != nil {
		n, _ := c.NodeOfHost(value)
		return n
	}
	for i := range c.Nodes {
		if c.Nodes[i].Addr.Addr().Unmap() == addr.Unmap() {
			return &c.Nodes[i]
		}
	}
	return nil
}

// nodelist reads the node sections of a corosync.conf(5): sections in braces, lines of "key: value".
func nodelist(text string) []map[string]string {
	var nodes []map[string]string
	var sections []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		section, opens := strings.CutSuffix(line, "{")
		key, value, isPair := strings.Cut(line, ":")
		within := strings.Join(sections, "/")
		switch {
		case strings.HasPrefix(line, "#"):
		case opens:
			sections = append(sections, strings.TrimSpace(section))
			if strings.Join(sections, "/") == "nodelist/node" {
				nodes = append(nodes, map[string]string{})
			}
		case line == "}" && len(sections) > 0:
			sections = sections[:len(sections)-1]
		case isPair && within == "nodelist/node":
			nodes[len(nodes)-1][strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return nodes
}
