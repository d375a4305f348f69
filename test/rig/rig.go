// SPDX-License-Identifier: GPL-2.0-only

// Package rig is a test cluster that fences: machines with OCFS2 on a shared disk (package vm), a
// BMC for each that really switches its QEMU (package bmc), and o2fence in every node, installed
// and configured as an administrator would.
package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/o2fence/o2fence/test/bmc"
	"github.com/o2fence/o2fence/test/vm"
)

// The BMCs' account. The password reaches the nodes as a file, as it should.
const (
	user         = "fence"
	password     = "correct-horse"
	passwordFile = "/etc/ocfs2/bmc.password"
)

// What nodes and relay share.
const (
	key     = "0123456789abcdef0123456789abcdef"
	keyFile = "/etc/ocfs2/relay.key"
)

// A Rig is a cluster and its BMCs. Its methods may be called by several goroutines, for different
// nodes.
type Rig struct {
	*vm.Cluster
	BMCs []*bmc.BMC // one for each node

	released chan struct{} // closed: the BMCs carry commands out

	root string // of the module, as seen by the host and, over 9p, by the guests
	conf string // fence.conf
	own  string // the relay's
}

// Config says how the nodes are fenced. The zero value is fence.conf's defaults.
type Config struct {
	Missed int // heartbeats; 0 is the default
	// Cluster is added to fence.conf's cluster stanza, Fence to every node's, behind its IPMI
	// parameters: lines of "\tkey = value\n".
	Cluster, Fence string
	// NoBMC leaves out the IPMI method, and the BMCs.
	NoBMC bool
	// Relay is the address of the machine that StartRelay makes a relay: it has the IPMI method then, and
	// the nodes have the relay.
	Relay netip.Addr
	// Slow makes the BMCs acknowledge commands without carrying them out, and say that all machines
	// are on, until Release.
	Slow bool
}

// New starts a BMC for each node of the cluster; dir is for their files. Close ends them.
func New(ctx context.Context, c *vm.Cluster, dir string, cfg Config) (*Rig, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r := &Rig{Cluster: c, root: root, released: make(chan struct{})}
	if !cfg.Slow {
		r.Release()
	}
	for _, m := range c.Nodes {
		if cfg.NoBMC {
			break
		}
		own := filepath.Join(dir, m.Name()+".bmc")
		if err := errors.Join(os.RemoveAll(own), os.MkdirAll(own, 0o700)); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		b, err := bmc.Start(ctx, own, bmc.Config{User: user, Password: password, Power: power{m, r.released}})
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.BMCs = append(r.BMCs, b)
	}
	r.conf = r.fenceConf(cfg)
	if cfg.Relay.IsValid() {
		r.own = r.fenceConf(Config{})
	}
	return r, nil
}

// Release lets slow BMCs carry out what they were told from now on; what they were told before is
// lost, as with a BMC that restarts. It may be called once.
func (r *Rig) Release() { close(r.released) }

// Close ends the BMCs. The cluster is its owner's to close.
func (r *Rig) Close() error {
	var errs []error
	for _, b := range r.BMCs {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

func (r *Rig) fenceConf(cfg Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster:\n\tname = %s\n", vm.ClusterName)
	if cfg.Missed != 0 {
		fmt.Fprintf(&b, "\tmissed = %d\n", cfg.Missed)
	}
	b.WriteString(cfg.Cluster)
	for i, m := range r.Nodes {
		fmt.Fprintf(&b, "\nfence:\n\tcluster = %s\n\tnode = %s\n", vm.ClusterName, m.Name())
		switch {
		case cfg.Relay.IsValid():
			fmt.Fprintf(&b, "\tmethod = relay\n\taddrs = %s\n\tkey_file = %s\n", cfg.Relay, keyFile)
		case !cfg.NoBMC:
			fmt.Fprintf(&b, "\tmethod = ipmi\n\taddr = %s\n\tport = %d\n\tuser = %s\n\tpassword_file = %s\n",
				vm.HostAddress, r.BMCs[i].Addr().Port(), user, passwordFile)
		}
		b.WriteString(cfg.Fence)
	}
	return b.String()
}

// Conf is the nodes' fence.conf.
func (r *Rig) Conf() string { return r.conf }

// Install gives a node that is up its configuration and loads the modules.
func (r *Rig) Install(ctx context.Context, m *vm.VM) error {
	release, err := m.Run(ctx, "uname", "-r")
	if err != nil {
		return err
	}
	if err := errors.Join(
		m.WriteFile(ctx, "/etc/ocfs2/fence.conf", []byte(r.conf), 0o644),
		m.WriteFile(ctx, passwordFile, []byte(password+"\n"), 0o600),
		m.WriteFile(ctx, keyFile, []byte(key+"\n"), 0o600),
	); err != nil {
		return err
	}
	dir := filepath.Join(r.root, "build", "ko", strings.TrimSpace(release))
	for _, module := range []string{"o2fence", "o2fence_o2cb", "o2fence_methods"} {
		if _, err := m.Run(ctx, "insmod", filepath.Join(dir, module+".ko")); err != nil {
			return err
		}
	}
	return nil
}

// StartBridge starts the daemon in a node, with these further arguments, and returns when it carries
// its methods.
func (r *Rig) StartBridge(ctx context.Context, m *vm.VM, args ...string) (*vm.Process, error) {
	out := &output{}
	p, err := m.Start(ctx, vm.Command{Args: append([]string{r.Program("o2fenced")}, args...), Stdout: out, Stderr: out})
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Wait(ctx) }()
	err = poll(ctx, func() (bool, error) {
		select {
		case err := <-ended:
			return false, fmt.Errorf("it ended: %v", err)
		default:
		}
		return r.carried(ctx, m)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: o2fenced: %w\n%s", m.Name(), err, out)
	}
	return p, nil
}

// carried tells whether a bridge carries the methods of the configuration.
func (r *Rig) carried(ctx context.Context, m *vm.VM) (bool, error) {
	text, err := r.Ctl(ctx, m, "methods", "--json")
	if err != nil {
		return false, err
	}
	var methods []struct {
		Name    string `json:"method"`
		Carried bool   `json:"carried"`
	}
	if err := json.Unmarshal([]byte(text), &methods); err != nil {
		return false, err
	}
	for _, method := range methods {
		if strings.Contains(r.conf, "method = "+method.Name+"\n") && !method.Carried {
			return false, nil
		}
	}
	return true, nil
}

// Ctl runs o2fencectl in a node and returns what it prints.
func (r *Rig) Ctl(ctx context.Context, m *vm.VM, args ...string) (string, error) {
	return m.Run(ctx, append([]string{r.Program("o2fencectl")}, args...)...)
}

// Program is a program's path, the same in the host and in the guests.
func (r *Rig) Program(name string) string { return filepath.Join(r.root, "build", "bin", name) }

// Protect brings o2fence up in a node, as its services do, and returns when it has joined.
func (r *Rig) Protect(ctx context.Context, m *vm.VM) error {
	if err := r.Install(ctx, m); err != nil {
		return err
	}
	if _, err := r.StartBridge(ctx, m); err != nil {
		return err
	}
	return r.Join(ctx, m)
}

// Join has a node whose bridge serves join, and protects its mounts.
func (r *Rig) Join(ctx context.Context, m *vm.VM) error {
	if _, err := r.Ctl(ctx, m, "join"); err != nil {
		return err
	}
	_, err := m.Start(ctx, vm.Command{Args: []string{r.Program("o2fencectl"), "watch"}})
	return err
}

// A Status is what o2fencectl status tells, as far as tests want to know.
type Status struct {
	Nodes []struct {
		Number uint32 `json:"node"`
		Last   *struct {
			State  string `json:"state"`
			Method string `json:"method"`
			Reason string `json:"reason"`
			Errmsg string `json:"errmsg"`
		} `json:"last_request"`
	} `json:"nodes"`
	Regions []struct {
		Live   []uint32 `json:"live"`
		Silent []uint32 `json:"silent"`
	} `json:"regions"`
	Mounts []struct {
		Protected bool `json:"protected"`
	} `json:"mounts"`
}

// Status asks a node. That a mount is not protected is no error.
func (r *Rig) Status(ctx context.Context, m *vm.VM) (Status, error) {
	var s Status
	text, err := r.Ctl(ctx, m, "status", "--json")
	if exit, ok := errors.AsType[*vm.ExitError](err); ok && exit.Code == 1 && text != "" {
		err = nil
	}
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(text), &s)
}

// Watched waits until a node sees these nodes alive, itself included, and no others.
func (r *Rig) Watched(ctx context.Context, m *vm.VM, nodes ...uint32) error {
	err := poll(ctx, func() (bool, error) {
		status, err := r.Status(ctx, m)
		return err == nil && len(status.Regions) == 1 && slices.Equal(status.Regions[0].Live, nodes), err
	})
	if err != nil {
		return fmt.Errorf("%s: waiting for nodes %v to be seen: %w", m.Name(), nodes, err)
	}
	return nil
}

// PoweredOn waits until a machine's power is on.
func (r *Rig) PoweredOn(ctx context.Context, m *vm.VM) error {
	err := poll(ctx, func() (bool, error) { return m.PowerState() == vm.Running, nil })
	if err != nil {
		return fmt.Errorf("%s: waiting for its power: %w", m.Name(), err)
	}
	return nil
}

// pollEvery is for what nothing tells of when it happens.
const pollEvery = 200 * time.Millisecond

func poll(ctx context.Context, done func() (bool, error)) error {
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollEvery):
		}
	}
}

// power is a machine as its BMC sees it. A machine that is paused is on.
type power struct {
	*vm.VM
	released <-chan struct{}
}

func (p power) slow() bool {
	select {
	case <-p.released:
		return false
	default:
		return true
	}
}

func (p power) On() (bool, error) { return p.slow() || p.PowerState() != vm.Off, nil }

func (p power) SetOn(on bool) error {
	if p.slow() {
		return nil
	}
	if on {
		return p.PowerOn(context.Background())
	}
	p.PowerOff()
	return nil
}

func (p power) Reset() error { return p.VM.Reset(context.Background()) }

// output keeps what a program prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("not inside of the module")
}
