// SPDX-License-Identifier: GPL-2.0-only

// Package setup turns the configuration files into what the kernel joins and what the bridge carries
// out, the same way for both, so that they agree byte by byte.
package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/dispatch"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/catalog"
)

// Schema is what fence.conf may say of the methods of the catalog.
func Schema() config.Schema {
	schema := config.Schema{}
	for _, m := range catalog.Methods() {
		var params []config.Param
		for _, p := range m.Params {
			params = append(params, config.Param{
				Name: p.Name, Required: p.Required, Secret: p.Secret, Validate: p.Validate,
			})
		}
		schema[m.Name] = config.Method{Params: params}
	}
	return schema
}

// Load reads the configuration files.
func Load(clusterFile, fenceFile string) (*config.Config, error) {
	return config.Load(clusterFile, fenceFile, Schema())
}

// Cluster is a cluster as this machine, by its host name, joins it.
func Cluster(c *config.Cluster) (kernel.Cluster, error) {
	host, err := os.Hostname()
	if err != nil {
		return kernel.Cluster{}, err
	}
	us, err := c.NodeOfHost(host)
	if err != nil {
		return kernel.Cluster{}, err
	}
	joined := kernel.Cluster{
		Name: c.Name, ThisNode: us.Number, Missed: c.Missed, PeriodMS: c.PeriodMS,
		GateMS: c.GateMS, FenceDelayMS: c.FenceDelayMS,
	}
	for _, n := range c.Nodes {
		node := kernel.Node{Number: n.Number, Name: n.Name}
		for _, s := range n.Steps {
			node.Steps = append(node.Steps, kernel.Step{Method: s.Method, TimeoutMS: s.TimeoutMS, Params: s.Params})
		}
		joined.Nodes = append(joined.Nodes, node)
	}
	return joined, nil
}

// Settled tells whether a node of a joined cluster has neither a fence under way nor a notice
// outstanding.
func Settled(cluster string, node uint32) (bool, error) {
	client, err := kernel.Dial()
	if err != nil {
		return false, err
	}
	defer client.Close()
	nodes, err := client.Nodes(context.Background())
	if err != nil {
		return false, err
	}
	for _, n := range nodes {
		if n.Cluster == cluster && n.Number == node {
			return n.Last == nil || !Active(n.Last), nil
		}
	}
	return false, kernel.ErrUnknownNode
}

// Active tells whether a request is under way. Its notice is part of it.
func Active(r *kernel.Request) bool {
	return r.State >= uapi.EventStarted && r.State <= uapi.EventFenced
}

// IsKernel tells whether a method runs in the kernel, so that no bridge carries it.
func IsKernel(method string) bool {
	return method == config.Watchdog || method == config.Manual
}

// Open makes the device of one step of a node. It reads the step's secrets.
func Open(c *config.Cluster, n config.Node, s config.Step) (fencemethods.Device, error) {
	m, err := catalog.Find(s.Method)
	if err != nil {
		return nil, err
	}
	return m.Open(fencemethods.Target{Cluster: c.Name, Node: uint8(n.Number), Name: n.Name}, s.Values)
}

// A Bridge is all that a bridge carries: the nodes of all clusters with their devices.
type Bridge struct {
	Nodes   []dispatch.Node
	Methods []string // each once
	HeapKiB int      // that all devices together may take between two collections
}

// OpenBridge makes the devices of all nodes. After an error none is left open.
func OpenBridge(cfg *config.Config) (*Bridge, error) {
	b := &Bridge{}
	for _, c := range cfg.Clusters {
		for _, n := range c.Nodes {
			if err := b.add(c, n); err != nil {
				return nil, errors.Join(err, b.Close())
			}
		}
	}
	return b, nil
}

func (b *Bridge) add(c *config.Cluster, n config.Node) error {
	node := dispatch.Node{
		Cluster: c.Name, Number: n.Number, ThenOn: n.ThenOn,
		ThenDelay: time.Duration(c.ThenDelayMS) * time.Millisecond,
	}
	b.Nodes = append(b.Nodes, node)
	jobs := &b.Nodes[len(b.Nodes)-1].Jobs
	for _, s := range n.Steps {
		if IsKernel(s.Method) {
			continue
		}
		m, err := catalog.Find(s.Method)
		if err != nil {
			return err
		}
		device, err := Open(c, n, s)
		if err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		*jobs = append(*jobs, dispatch.Job{Method: s.Method, Params: s.Params, Device: device})
		b.HeapKiB += m.MemoryKiB
		b.bind(s.Method)
	}
	return nil
}

func (b *Bridge) bind(method string) {
	for _, m := range b.Methods {
		if m == method {
			return
		}
	}
	b.Methods = append(b.Methods, method)
}

// Close closes all devices.
func (b *Bridge) Close() error {
	var errs []error
	for _, n := range b.Nodes {
		for _, j := range n.Jobs {
			errs = append(errs, j.Device.Close())
		}
	}
	return errors.Join(errs...)
}
