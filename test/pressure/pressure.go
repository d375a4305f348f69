// SPDX-License-Identifier: GPL-2.0-only

// Package pressure recreates the deadlock that the RFC is about, on real OCFS2: a node has no memory
// left, and those who reclaim some wait for a lock that a dead node is master of, so that everything
// waits for the fence.
//
// What waits in today's OCFS2 is not the writing back of a page, whose lock is held as long as it is
// dirty, but the shrinkers: to drop a cached dentry or inode they give its lock back, and ask the
// lock's master, which is frozen. kswapd and whoever asks for memory end there, one after another.
package pressure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/o2fence/o2fence/test/bmc"
	"github.com/o2fence/o2fence/test/pressure/wire"
	"github.com/o2fence/o2fence/test/rig"
	"github.com/o2fence/o2fence/test/vm"
)

// A Config says how hard it shall be. Dir and Files must be set.
type Config struct {
	Dir string // for programs and BMCs; the machines share it

	// Files is how many there are in the survivor's caches.
	Files int
	// Swap is the size of a swap file on the OCFS2, in MiB.
	Swap int

	Calm, Pressed int           // fences by each fencer
	Patience      time.Duration // with each of them
	Fencers       []string      // of package wire

	Watch func(wire.Report) // called with each report of the measuring process; may be nil
}

// The two machines. The survivor is the lowest-numbered node, and has quorum alone.
const (
	survivor = 0
	victim   = 1
)

// Memory is the survivor's, in MiB.
const Memory = 512

// Machine is for vm.ClusterConfig: the survivor is short of memory.
func Machine(i int, c *vm.Config) {
	if i == survivor {
		c.Memory = Memory
	}
}

// Nodes is how many machines there are.
const Nodes = 2

// A Scenario is a cluster on the way into the deadlock and out of it. The victim's BMC does not switch it
// off until Release: the deadlock lasts, and the fence that ends it is under way for all that time.
type Scenario struct {
	*rig.Rig
	*Control
	Survivor, Victim *vm.VM

	cfg     Config
	spares  map[string]*spare // of each fencer
	guest   string            // the program in the machines
	appends *lines            // of the writer that waits for the victim's lock
	before  int               // as many as there were when the victim was frozen
}

// New prepares the scenario for a cluster of machines that are off. Close gives back what it holds.
func New(ctx context.Context, c *vm.Cluster, cfg Config) (*Scenario, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Scenario{
		cfg: cfg, Survivor: c.Nodes[survivor], Victim: c.Nodes[victim], guest: filepath.Join(dir, "guest"),
		spares: map[string]*spare{},
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", s.guest, "github.com/o2fence/o2fence/test/pressure/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, text)
	}
	s.Rig, err = rig.New(ctx, c, filepath.Join(dir, "bmc"), rig.Config{
		Slow: true, Cluster: "\tthen = off\n", Fence: fmt.Sprintf("\ttimeout_ms = %d\n", forEver),
	})
	if err != nil {
		return nil, err
	}
	if err := s.startSpares(ctx, dir); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.Control, err = newControl(s.spares, cfg.Watch)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// forEver is longer than any of this takes, in ms.
const forEver = 3_600_000

// The spare machines' account.
const (
	user         = "fence"
	password     = "correct-horse"
	passwordFile = "/etc/ocfs2/bmc.password"
)

func (s *Scenario) startSpares(ctx context.Context, dir string) error {
	program, err := bmc.BuildGoIPMI(ctx, dir)
	if err != nil {
		return err
	}
	for i, name := range s.cfg.Fencers {
		own := filepath.Join(dir, fmt.Sprintf("spare%d", i))
		if err := errors.Join(os.RemoveAll(own), os.MkdirAll(own, 0o700)); err != nil {
			return err
		}
		if s.spares[name], err = startSpare(ctx, own, program); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the BMCs. The cluster is its owner's to close.
func (s *Scenario) Close() error {
	errs := []error{s.Rig.Close()}
	for _, m := range s.spares {
		errs = append(errs, m.close())
	}
	if s.Control != nil {
		errs = append(errs, s.Control.Close())
	}
	return errors.Join(errs...)
}

// nodesOfSpare are the nodes that the fencers with a fence.conf have: o2fence and the one without the
// rules.
var nodesOfSpare = map[string]int{wire.O2fence: 1, wire.Plain: 2}

// bridgeConf is the configuration of the survivor's bridge: that of the cluster, and the spare nodes.
func (s *Scenario) bridgeConf() (clusterConf, fenceConf string) {
	var c, f strings.Builder
	c.WriteString(vm.ClusterConf(vm.ClusterName, s.Nodes))
	f.WriteString(s.Conf())
	nodes := "node:\n\tcluster = spare\n\tnumber = 0\n\tip_port = 7777\n\tip_address = 10.78.0.10\n\tname = node0\n\n"
	for name, number := range nodesOfSpare {
		spare, ok := s.spares[name]
		if !ok {
			continue
		}
		nodes += fmt.Sprintf("node:\n\tcluster = spare\n\tnumber = %d\n\tip_port = 7777\n\tip_address = 10.78.0.%d\n\tname = spare%d\n\n", number, 10+number, number)
		fmt.Fprintf(&f, "\nfence:\n\tcluster = spare\n\tnode = spare%d\n\tthen = off\n\tmethod = ipmi\n\taddr = %s\n\tport = %d\n\tuser = %s\n\tpassword_file = %s\n",
			number, vm.HostAddress, spare.line.Addr().Port(), user, passwordFile)
	}
	fmt.Fprintf(&c, "cluster:\n\tname = spare\n\theartbeat_mode = local\n\tnode_count = %d\n\n%s", strings.Count(nodes, "node:"), nodes)
	return c.String(), f.String()
}

// Stock OCFS2's own limit, in its periods of 2 s: with it, recovery waits for the fence and not for the
// minute after which OCFS2 believes the node dead.
const threshold = 1800

// Start brings both nodes up, and makes the victim the master of the locks of what the survivor has in
// its caches. The victim is alone at first: to make files together is slow.
func (s *Scenario) Start(ctx context.Context) error {
	limit := fmt.Sprintf("echo %d > /sys/kernel/config/cluster/%s/heartbeat/dead_threshold; dmesg -n 6", threshold, vm.ClusterName)
	for _, step := range []func(*vm.VM) error{
		func(m *vm.VM) error { return m.Boot(ctx) },
		func(m *vm.VM) error { return s.Online(ctx, m) },
		func(m *vm.VM) error { return s.sh(ctx, m, limit) },
	} {
		if err := s.All(step); err != nil {
			return err
		}
	}
	files, count := filepath.Join(vm.MountPoint, "files"), fmt.Sprint(s.cfg.Files)
	for _, step := range []func() error{
		func() error { return s.Mount(ctx, s.Victim) },
		func() error { return s.run(ctx, s.Victim, "files", files, count) },
		func() error { return s.sh(ctx, s.Victim, "sync; echo 2 > /proc/sys/vm/drop_caches") },
		func() error { return s.run(ctx, s.Victim, "look", files, count) },
		func() error { return s.Mount(ctx, s.Survivor) },
		func() error { return s.protect(ctx) },
		func() error {
			return s.sh(ctx, s.Survivor, "mount -t cgroup2 none /sys/fs/cgroup; echo +memory > /sys/fs/cgroup/cgroup.subtree_control"+
				// What is stuck for minutes is what this is about.
				"; echo 0 > /proc/sys/kernel/hung_task_timeout_secs")
		},
		func() error { return s.run(ctx, s.Survivor, "look", "-groups", fmt.Sprint(groups), files, count) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// groups are the control groups whose caches hold the files: each of them can hold up one more of
// those who reclaim memory.
const groups = 60

func (s *Scenario) run(ctx context.Context, m *vm.VM, args ...string) error {
	_, err := m.Run(ctx, append([]string{s.guest}, args...)...)
	return err
}

func (s *Scenario) protect(ctx context.Context) error {
	m := s.Survivor
	if err := s.Install(ctx, m); err != nil {
		return err
	}
	clusterConf, fenceConf := s.bridgeConf()
	const dir = "/run/pressure/"
	if err := errors.Join(
		m.WriteFile(ctx, dir+"cluster.conf", []byte(clusterConf), 0o644),
		m.WriteFile(ctx, dir+"fence.conf", []byte(fenceConf), 0o644),
	); err != nil {
		return err
	}
	if _, err := s.StartBridge(ctx, m, "-cluster-conf", dir+"cluster.conf", "-fence-conf", dir+"fence.conf"); err != nil {
		return err
	}
	if err := s.Join(ctx, m); err != nil {
		return err
	}
	return s.Watched(ctx, m, 0, 1)
}

func (s *Scenario) sh(ctx context.Context, m *vm.VM, script string) error {
	_, err := m.Run(ctx, "sh", "-ec", script)
	return err
}

// Measure starts the measuring process, and the fencers that it does not start itself. It returns when
// the process has told for the first time how things are.
func (s *Scenario) Measure(ctx context.Context) error {
	for _, name := range s.cfg.Fencers {
		args, err := s.fencer(ctx, name)
		if err != nil {
			return err
		}
		if args == nil {
			continue
		}
		if _, err := s.start(ctx, s.Survivor, args...); err != nil {
			return err
		}
	}
	p, err := s.start(ctx, s.Survivor, "measure", "-host", fmt.Sprintf("%s:%d", vm.HostAddress, s.Control.port()),
		"-fencers", strings.Join(s.cfg.Fencers, ","), "-calm", fmt.Sprint(s.cfg.Calm), "-pressure", fmt.Sprint(s.cfg.Pressed),
		"-patience", s.cfg.Patience.String())
	if err != nil {
		return err
	}
	go func() {
		if err := p.Wait(ctx); err != nil {
			s.Control.fail(err)
		}
	}()
	_, err = s.Control.Await(ctx, "the measuring process", func(wire.Sample) bool { return true })
	return err
}

func (s *Scenario) fencer(ctx context.Context, name string) ([]string, error) {
	if name == wire.O2fence {
		return nil, nil
	}
	if name == wire.Plain {
		return []string{"plain"}, nil
	}
	program := "/usr/sbin/fence_ipmilan"
	if name == wire.Shell {
		program = "/usr/local/sbin/fence_shell"
		if err := s.Survivor.WriteFile(ctx, program, []byte(shellAgent), 0o755); err != nil {
			return nil, err
		}
	}
	return []string{
		"agents", name, program, "action=off", "ip=" + vm.HostAddress, fmt.Sprintf("ipport=%d", s.spares[name].line.Addr().Port()),
		"username=" + user, "password=" + password, "lanplus=1", "cipher=3",
	}, nil
}

// shellAgent is a fence agent as people write it for dlm_controld and Pacemaker.
const shellAgent = `#!/bin/sh
while IFS='=' read -r key value; do
	case $key in
	ip) host=$value ;;
	ipport) port=$value ;;
	username) user=$value ;;
	password) export IPMI_PASSWORD="$value" ;;
	esac
done
power() { ipmitool -I lanplus -C 3 -E -U "$user" -H "$host" -p "$port" chassis power "$1"; }
power off >/dev/null || exit 1
for _ in 1 2 3 4 5 6 7 8 9 10; do
	[ "$(power status)" = "Chassis Power is off" ] && exit 0
	sleep 1
done
exit 1
`

func (s *Scenario) start(ctx context.Context, m *vm.VM, args ...string) (*vm.Process, error) {
	return m.Start(ctx, vm.Command{Args: append([]string{s.guest}, args...), Stderr: os.Stderr})
}
