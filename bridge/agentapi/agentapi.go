// SPDX-License-Identifier: GPL-2.0-only

// Package agentapi is o2fence seen from outside: a fence agent by the fence-agents API, so that
// Pacemaker and dlm_controld fence through the kernel's requests, and DRBD's fence-peer handler
// (R29). It carries nothing out itself but "on": it asks the kernel, and says that a node is fenced
// when the kernel has said so, and never otherwise.
//
// The API is doc/FenceAgentAPI.md of ClusterLabs/fence-agents; what dlm_controld sends is in its
// fence.c, DRBD's exit codes in drbd.conf(5).
package agentapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/fencemethods"
)

// The exit codes of the API. Callers know no others.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitOff    = 2 // status: the node is off
)

// The exit codes of DRBD's fence-peer handler. 3 to 6 speak of the state of the peer's disk, of
// which o2fence knows nothing: 5, "unreachable", would have DRBD take a peer for dead that nobody
// has proven dead, so it is never used. With all but these DRBD stays frozen.
const (
	ExitFenced    = 7
	ExitNotFenced = 1
)

// A Kernel is a kernel.Client.
type Kernel interface {
	Nodes(context.Context) ([]kernel.Node, error)
	Methods(context.Context) ([]kernel.Method, error)
	Regions(context.Context) ([]kernel.Region, error)
	Requests(context.Context) ([]kernel.Request, error)
	Fence(ctx context.Context, cluster string, node uint32, life kernel.Incarnation, reason string) error
	Close() error
}

// Events are a kernel.Listener.
type Events interface {
	Events(context.Context) iter.Seq2[kernel.Event, error]
	Close() error
}

// An Agent is one call of the agent. Everything but Version has to be set.
type Agent struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string // of DRBD's variables
	Version        string

	Load   func(clusterFile, fenceFile string) (*config.Config, error)
	Dial   func() (Kernel, error)
	Listen func() (Events, error)
	// Open makes the device of one step of a node. It reads the step's secrets.
	Open func(*config.Cluster, config.Node, config.Step) (fencemethods.Device, error)
	// IsKernel tells whether a method runs in the kernel, so that it has no device.
	IsKernel func(method string) bool
}

// Run does what the call asks for and returns the exit code. It ends when the kernel has ended the
// request, after power_timeout, or with ctx; the request then goes on.
func (a *Agent) Run(ctx context.Context) int {
	o, err := a.options()
	if err != nil {
		return a.fail(err)
	}
	if o.drbd {
		return a.fencePeer(ctx, o)
	}
	code, err := a.act(ctx, o)
	if err != nil {
		return a.fail(err)
	}
	return code
}

// fail says why. Pacemaker looks for some words in the text: "timed out" for one.
func (a *Agent) fail(err error) int {
	text := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		text = "timed out: " + text
	}
	fmt.Fprintf(a.Stderr, "fence_o2fence: %s\n", text)
	return ExitFailed
}

func (a *Agent) warn(format string, args ...any) {
	fmt.Fprintf(a.Stderr, "fence_o2fence: "+format+"\n", args...)
}

func (a *Agent) say(format string, args ...any) {
	fmt.Fprintf(a.Stdout, format+"\n", args...)
}

// act does what is not DRBD's.
func (a *Agent) act(ctx context.Context, o *options) (int, error) {
	switch o.action {
	case actionHelp:
		return ExitOK, a.help()
	case actionVersion:
		a.say("%s", a.Version)
		return ExitOK, nil
	case actionMetadata:
		return ExitOK, a.metadata()
	}
	c, err := a.cluster(o)
	if err != nil {
		return ExitFailed, err
	}
	switch o.action {
	case actionList, actionListStatus:
		return ExitOK, a.list(ctx, c, o.action == actionListStatus)
	case actionMonitor:
		return ExitOK, a.monitor(ctx, c)
	case actionValidate:
		return ExitOK, a.validate(o, c)
	}
	n, err := o.target(c)
	if err != nil {
		return ExitFailed, err
	}
	return a.switchNode(ctx, o, c, n)
}

// switchNode is for the actions that are about one node.
func (a *Agent) switchNode(ctx context.Context, o *options, c *config.Cluster, n *config.Node) (int, error) {
	switch o.action {
	case actionStatus:
		return a.status(ctx, c, n)
	case actionOn:
		return ExitOK, a.on(ctx, c, n)
	}
	if err := pause(ctx, o.delay); err != nil {
		return ExitFailed, err
	}
	r, err := a.fenceWithin(ctx, o, c, n)
	if err != nil {
		return ExitFailed, err
	}
	a.say("Success: node %s is fenced by %s", n.Name, r.Method)
	if o.action == actionReboot {
		a.restart(ctx, c, n, r.ID)
	}
	return ExitOK, nil
}

func (a *Agent) cluster(o *options) (*config.Cluster, error) {
	cfg, err := a.Load(o.clusterFile, o.fenceFile)
	if err != nil {
		return nil, err
	}
	return cfg.Cluster(o.cluster)
}

// validate has loaded the configuration, and looks for the node if one is named.
func (a *Agent) validate(o *options, c *config.Cluster) error {
	if !o.named() {
		return nil
	}
	_, err := o.target(c)
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
