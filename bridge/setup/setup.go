// SPDX-License-Identifier: GPL-2.0-only

// Package setup turns the configuration files into what the kernel joins and what the bridge carries
// out, the same way for both, so that they agree byte by byte.
package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/dispatch"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/agent"
	"github.com/o2fence/o2fence/fencemethods/ask"
	"github.com/o2fence/o2fence/fencemethods/catalog"
	"github.com/o2fence/o2fence/fencemethods/kdump"
	"github.com/o2fence/o2fence/fencemethods/level"
)

// Schema is what fence.conf may say of the methods of the catalog.
func Schema() config.Schema {
	schema := config.Schema{}
	for _, m := range catalog.Methods() {
		var params []config.Param
		for _, p := range m.Params {
			params = append(params, config.Param{
				Name: p.Name, Required: p.Required, Default: p.Default, Validate: p.Validate,
				Secret: p.Secret, Identity: p.Identity, List: p.List, Private: p.Private,
			})
		}
		schema[m.Name] = config.Method{Params: params, Check: checked(m), Blind: m.Blind}
		s := schema[m.Name]
		switch m.Name {
		case agent.Name:
			s.Order = safeOrder
		case ask.Name:
			s.TimeoutMS = ask.TimeoutMS
		case kdump.Name:
			s.Suits = ofThisDeath
		}
		schema[m.Name] = s
	}
	return schema
}

// safeOrder refuses an agent, which may wait for memory, as the first that is tried.
func safeOrder(steps []config.Step) error {
	var all []agent.Step
	for _, s := range steps {
		all = append(all, agent.Step{Method: s.Method, Values: s.Values})
	}
	_, err := agent.CheckOrder(all)
	return err
}

// ofThisDeath refuses to have kdump believe what a node may have said before its last heartbeat: then it was
// of an earlier life.
func ofThisDeath(c *config.Cluster, values map[string]string) error {
	silent := uint64(c.Missed) * uint64(c.PeriodMS)
	if ms, err := strconv.ParseUint(values["silence_ms"], 10, 32); err == nil && ms > silent {
		return &config.KeyError{Key: "silence_ms", Err: fmt.Errorf(
			"%d is longer than a node is silent before it is fenced: expected at most missed times period_ms, %d", ms, silent)}
	}
	return nil
}

// checked has a method look at all of its parameters together, and points at the one that it objects
// to.
func checked(m fencemethods.Method) func(map[string]string) error {
	return func(values map[string]string) error {
		_, err := m.Parse(values)
		if e, ok := errors.AsType[*fencemethods.ParamError](err); ok {
			return &config.KeyError{Key: e.Key, Err: errors.New(e.Text)}
		}
		return err
	}
}

// Load reads the configuration files.
func Load(clusterFile, fenceFile string) (*config.Config, error) {
	return config.Load(clusterFile, fenceFile, Schema())
}

// Cluster is a cluster as the machine of this host name joins it.
func Cluster(c *config.Cluster, host string) (kernel.Cluster, error) {
	us, err := c.NodeOfHost(host)
	if err != nil {
		return kernel.Cluster{}, err
	}
	joined := kernel.Cluster{
		Name: c.Name, ThisNode: us.Number,
		Rules: kernel.Rules{
			Missed: c.Missed, PeriodMS: c.PeriodMS, FenceDelayMS: c.FenceDelayMS,
			// The gate holds this node's own heartbeat up: it must let go well before the others would
			// find this one silent. The kernel sees to it that it lets go before this one resets itself.
			GateMS: min(c.GateMS, c.Missed*c.PeriodMS/2),
		},
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

// Missing lists the methods of a cluster that nobody carries, given those that the kernel knows: each
// once, in the order of the nodes, with the names of the nodes that want it.
func Missing(c kernel.Cluster, registered []kernel.Method) []MissingMethod {
	var missing []MissingMethod
	for _, n := range c.Nodes {
		for _, s := range n.Steps {
			if kernel.Carries(registered, s.Method) {
				continue
			}
			i := slices.IndexFunc(missing, func(m MissingMethod) bool { return m.Method == s.Method })
			if i < 0 {
				missing = append(missing, MissingMethod{Method: s.Method})
				i = len(missing) - 1
			}
			if !slices.Contains(missing[i].Nodes, n.Name) {
				missing[i].Nodes = append(missing[i].Nodes, n.Name)
			}
		}
	}
	return missing
}

// A MissingMethod is one that is configured and cannot be used.
type MissingMethod struct {
	Method string
	Nodes  []string
}

// Settled tells whether a node of a joined cluster has neither a fence under way nor a notice
// outstanding. One that is silent and about to be fenced is not settled either.
func Settled(ctx context.Context, cluster string, node uint32) (bool, error) {
	client, err := kernel.Dial()
	if err != nil {
		return false, err
	}
	defer client.Close()
	nodes, err := client.Nodes(ctx)
	if err != nil {
		return false, err
	}
	for _, n := range nodes {
		if n.Cluster == cluster && n.Number == node {
			return n.Last == nil || Ended(n.Last), nil
		}
	}
	return false, kernel.ErrUnknownNode
}

// Ended tells whether a request is over. Its notice is part of it.
func Ended(r *kernel.Request) bool {
	return r.State == uapi.EventNotice || r.State == uapi.EventFailed || r.State == uapi.EventObsolete
}

// IsKernel tells whether a method runs in the kernel, so that no bridge carries it.
func IsKernel(method string) bool {
	return method == config.Watchdog || method == config.Manual
}

// An Opener opens devices: one for all of a process, since some of a method share what there can be only
// once, such as kdump's port. Several goroutines may use it. It holds nothing but what its devices
// hold, until the last of them is closed.
type Opener struct{ methods catalog.Table }

// NewOpener makes one for the methods of the catalog.
func NewOpener() *Opener { return &Opener{catalog.Methods()} }

// Open makes the device of one method of a node, which is no level. It reads the method's secrets.
func (o *Opener) Open(c *config.Cluster, n config.Node, s config.Step) (fencemethods.Device, error) {
	m, err := o.methods.Find(s.Method)
	if err != nil {
		return nil, err
	}
	d, err := m.Open(target(c, n), s.Values)
	if err != nil || s.Retries == 0 {
		return d, err
	}
	return level.Retry(d, int(s.Retries), ms(s.BackoffMS)), nil
}

func target(c *config.Cluster, n config.Node) fencemethods.Target {
	t := fencemethods.Target{Cluster: c.Name, Node: uint8(n.Number), Name: n.Name}
	if host, err := os.Hostname(); err == nil {
		if us, err := c.NodeOfHost(host); err == nil {
			t.Member, t.From = true, uint8(us.Number)
		}
	}
	return t
}

func ms(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }

// openStep makes what carries out a step for the bridge. begin is for the goroutines of a level.
func (o *Opener) openStep(c *config.Cluster, n config.Node, s config.Step, begin func()) (d fencemethods.Device, err error) {
	if s.Level == config.NoLevel {
		d, err = o.Open(c, n, s)
	} else {
		d, err = o.openLevel(c, n, s, begin)
	}
	if err != nil || s.DelayMS+s.DelayRandomMS == 0 {
		return d, err
	}
	return level.Delay(d, ms(s.DelayMS), ms(s.DelayRandomMS)), nil
}

// openLevel makes the devices of a level. After an error none is left open.
func (o *Opener) openLevel(c *config.Cluster, n config.Node, s config.Step, begin func()) (fencemethods.Device, error) {
	var members []level.Member
	for _, m := range s.Members {
		d, err := o.Open(c, n, m)
		if err != nil {
			for _, open := range members {
				err = errors.Join(err, open.Device.Close())
			}
			return nil, err
		}
		members = append(members, level.Member{Name: label(m), Device: d, After: ms(m.AfterMS)})
	}
	rule := level.All
	if s.Level == config.Any {
		rule = level.Any
	}
	return level.Method(s.Method, rule, members, begin).Open(target(c, n), nil)
}

// labelMax is as long as an IPv6 address may be.
const labelMax = 39

// label tells a member of a level from the others, for people: by the first of what names its machine.
func label(s config.Step) string {
	m, err := catalog.Methods().Find(s.Method)
	if err != nil {
		return s.Method
	}
	for _, p := range m.Params {
		if value := s.Values[p.Name]; p.Identity && !p.Private && value != "" && len(value) <= labelMax {
			return s.Method + " " + value
		}
	}
	return s.Method
}

// A Bridge is all that a bridge carries: the nodes of all clusters with their devices.
type Bridge struct {
	Nodes   []dispatch.Node
	Methods []string // each once
	HeapKiB int      // that all devices together may take between two collections
}

// OpenBridge makes the devices of all nodes. After an error none is left open. begin is called once by
// each goroutine that will carry out orders, before OpenBridge returns: the time to grow its stack.
func OpenBridge(cfg *config.Config, begin func()) (*Bridge, error) {
	b, o := &Bridge{}, NewOpener()
	for _, c := range cfg.Clusters {
		for _, n := range c.Nodes {
			if err := b.add(o, c, n, begin); err != nil {
				return nil, errors.Join(err, b.Close())
			}
		}
	}
	return b, nil
}

func (b *Bridge) add(o *Opener, c *config.Cluster, n config.Node, begin func()) error {
	b.Nodes = append(b.Nodes, dispatch.Node{
		Cluster: c.Name, Number: n.Number, ThenOn: n.ThenOn, ThenDelay: ms(c.ThenDelayMS),
	})
	node := &b.Nodes[len(b.Nodes)-1]
	for _, s := range n.Steps {
		if IsKernel(s.Method) {
			continue
		}
		device, err := o.openStep(c, n, s, begin)
		if err != nil {
			return err
		}
		node.Jobs = append(node.Jobs, dispatch.Job{
			Method: s.Method, Params: s.Params, Device: device, Several: s.Level != config.NoLevel,
		})
		if !slices.Contains(b.Methods, s.Method) {
			b.Methods = append(b.Methods, s.Method)
		}
	}
	for _, s := range n.Devices() {
		if m, err := catalog.Methods().Find(s.Method); err == nil { // the others are the kernel's
			b.HeapKiB += m.MemoryKiB
		}
	}
	return nil
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
