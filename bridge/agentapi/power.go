// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/fencemethods"
)

// status says what the node's devices and its heartbeat say. Off is what is read as off by all that
// answer, and of a level that wants all, by all: a node that is cut off from the disks, but powered, is
// on. Unknown is a failure.
func (a *Agent) status(ctx context.Context, c *config.Cluster, n *config.Node) (int, error) {
	state, err := a.state(ctx, c, n)
	switch state {
	case fencemethods.On:
		a.say("Status: ON")
		return ExitOK, nil
	case fencemethods.Off:
		a.say("Status: OFF")
		return ExitOff, nil
	}
	return ExitFailed, fmt.Errorf("node %s: its state is unknown: %w", n.Name, err)
}

func (a *Agent) state(ctx context.Context, c *config.Cluster, n *config.Node) (fencemethods.State, error) {
	alive, err := a.alive(ctx, c.Name, n.Number)
	if alive {
		return fencemethods.On, nil
	}
	errs := []error{err}
	state := fencemethods.Unknown
	for _, s := range n.Steps {
		read, err := a.stateBy(ctx, c, n, s)
		state = max(state, read)
		errs = append(errs, err)
	}
	if state == fencemethods.Unknown {
		errs = append(errs, errors.New("no device of it could tell, and it has no heartbeat here"))
	}
	return state, errors.Join(errs...)
}

// stateBy is what the devices of one step say together. One that is on is enough, and one that is off but
// in a level of all: there, what one of them does not tell is not known.
func (a *Agent) stateBy(ctx context.Context, c *config.Cluster, n *config.Node, s config.Step) (fencemethods.State, error) {
	var errs []error
	state, unknown := fencemethods.Unknown, false
	for _, m := range s.Devices() {
		read := fencemethods.Unknown
		err := a.withDevice(ctx, c, n, m, func(ctx context.Context, d fencemethods.Device) (err error) {
			read, err = d.Status(ctx)
			return err
		})
		if err != nil {
			read = fencemethods.Unknown
		}
		state = max(state, read)
		unknown = unknown || read == fencemethods.Unknown
		errs = append(errs, err)
	}
	if s.Level == config.All && unknown && state == fencemethods.Off {
		state = fencemethods.Unknown
	}
	return state, errors.Join(errs...)
}

// withDevice opens the device of a step for one operation. For methods of the kernel there is none.
func (a *Agent) withDevice(ctx context.Context, c *config.Cluster, n *config.Node, s config.Step,
	do func(context.Context, fencemethods.Device) error,
) error {
	if a.IsKernel(s.Method) {
		return nil
	}
	d, err := a.Open(c, *n, s)
	if err != nil {
		return err
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.TimeoutMS)*time.Millisecond)
	defer cancel()
	return do(ctx, d)
}

// alive tells whether the node's heartbeat is seen in a region that is watched here.
func (a *Agent) alive(ctx context.Context, cluster string, node uint32) (bool, error) {
	k, err := a.Dial()
	if err != nil {
		return false, err
	}
	defer k.Close()
	live, _, err := heartbeat(ctx, k, cluster, node)
	return live, err
}

// heartbeat tells in what regions a node is: in one where its heartbeat is seen, in one where it is
// missed.
func heartbeat(ctx context.Context, k Kernel, cluster string, node uint32) (live, silent bool, err error) {
	regions, err := k.Regions(ctx)
	for _, r := range regions {
		if r.Cluster == cluster && slices.Contains(r.Silent, node) {
			silent = true
		} else if r.Cluster == cluster && slices.Contains(r.Live, node) {
			live = true
		}
	}
	return live, silent, err
}

// on switches on what is read as off of a node's devices: what o2fenced does for "then = on".
func (a *Agent) on(ctx context.Context, c *config.Cluster, n *config.Node) error {
	if err := a.settled(ctx, c, n); err != nil {
		return err
	}
	isOn, was := false, "Already"
	var silent, failed []error
	for _, s := range n.Devices() {
		err := a.withDevice(ctx, c, n, s, func(ctx context.Context, d fencemethods.Device) error {
			state, err := d.Status(ctx)
			switch {
			case err != nil:
				silent = append(silent, err)
				return nil
			case state == fencemethods.Off:
				was = "Powered"
				err = d.On(ctx)
			case state == fencemethods.Unknown:
				return nil
			}
			isOn = isOn || err == nil
			return err
		})
		if err != nil {
			failed = append(failed, err)
		}
	}
	switch {
	case len(failed) > 0:
		return errors.Join(append(failed, silent...)...)
	case !isOn:
		return errors.Join(append(silent, fmt.Errorf("node %s: no device of it could be read", n.Name))...)
	}
	for _, err := range silent {
		a.warn("passed over: %v", err)
	}
	a.say("Success: %s ON", was)
	return nil
}

// settled refuses to switch a node on that is being fenced, or about to be: its fencer must not meet
// it coming back.
func (a *Agent) settled(ctx context.Context, c *config.Cluster, n *config.Node) error {
	k, err := a.Dial()
	if err != nil {
		return err
	}
	defer k.Close()
	f := follower{kernel: k, cluster: c.Name, node: n.Number, name: n.Name}
	all, _, err := f.look(ctx)
	if err != nil {
		return err
	}
	_, silent, err := heartbeat(ctx, k, c.Name, n.Number)
	if _, fencing := underWay(all); fencing || silent {
		return fmt.Errorf("node %s is silent or being fenced, and is left alone until that has ended", n.Name)
	}
	return err
}

// restart is the second half of reboot. By the API a reboot has succeeded when the first half has.
func (a *Agent) restart(ctx context.Context, c *config.Cluster, n *config.Node, request uint64) {
	if n.ThenOn {
		a.say("o2fenced powers it on again, %d ms after the fence", c.ThenDelayMS)
		return
	}
	err := a.noticed(ctx, c, n, request)
	if err == nil {
		err = pause(ctx, time.Duration(c.ThenDelayMS)*time.Millisecond)
	}
	if err == nil {
		err = a.on(ctx, c, n)
	}
	if err != nil {
		a.warn("it is fenced, but not powered on again: %v", err)
	}
}

// noticed waits until a request that has fenced the node is over.
func (a *Agent) noticed(ctx context.Context, c *config.Cluster, n *config.Node, request uint64) error {
	f, stop, err := a.follow(ctx, c, n)
	if err != nil {
		return err
	}
	defer stop()
	for {
		all, _, err := f.look(ctx)
		if err != nil || endedIn(all, request) {
			return err
		}
		if err := f.wait(ctx); err != nil {
			return err
		}
	}
}

// list prints the nodes that can be fenced from here: those of the cluster that was joined, without
// this one.
func (a *Agent) list(ctx context.Context, c *config.Cluster, withStatus bool) error {
	others, err := a.joined(ctx, c)
	if err != nil {
		return err
	}
	for i := range c.Nodes {
		n := &c.Nodes[i]
		switch {
		case !slices.Contains(others, n.Number): // it is this one
		case withStatus:
			state, _ := a.state(ctx, c, n)
			a.say("%s,,%s", n.Name, map[fencemethods.State]string{
				fencemethods.On: "ON", fencemethods.Off: "OFF", fencemethods.Unknown: "UNKNOWN",
			}[state])
		default:
			a.say("%s,", n.Name)
		}
	}
	return nil
}

// joined returns the nodes of a cluster that the kernel knows: all but this one.
func (a *Agent) joined(ctx context.Context, c *config.Cluster) ([]uint32, error) {
	k, err := a.Dial()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	nodes, err := k.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	var others []uint32
	for _, n := range nodes {
		if n.Cluster == c.Name {
			others = append(others, n.Number)
		}
	}
	if len(others) == 0 {
		return nil, fmt.Errorf("cluster %s is not joined: o2fencectl join", c.Name)
	}
	return others, nil
}

// monitor looks whether nodes could be fenced from here: the cluster is joined, and each method is
// carried by a bridge or a module. It does not ask the devices; o2fencectl check does.
func (a *Agent) monitor(ctx context.Context, c *config.Cluster) error {
	if _, err := a.joined(ctx, c); err != nil {
		return err
	}
	k, err := a.Dial()
	if err != nil {
		return err
	}
	defer k.Close()
	methods, err := k.Methods(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range c.Nodes {
		for _, s := range n.Steps {
			if !kernel.Carries(methods, s.Method) {
				errs = append(errs, fmt.Errorf("node %s: nobody carries method %s: is o2fenced running?", n.Name, s.Method))
			}
		}
	}
	return errors.Join(errs...)
}
