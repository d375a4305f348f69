// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/test/rig"
	"github.com/o2fence/o2fence/test/vm"
)

// The nodes' parts. The survivor that waits is also the lowest-numbered node, which has the duty.
const (
	nodes  = 3
	writer = 0
	victim = 2
)

// file is what both append to, under its cluster-wide flock.
const file = vm.MountPoint + "/journal"

type demo struct {
	dir    string
	kernel *vm.Kernel
	missed int
}

// A play is what happened in one of the two runs.
type play struct {
	name    string
	freeze  time.Time
	appends []time.Time // of the writer, as they became known
	steps   []step
	release func()
}

// A step is something that happened after the freeze.
type step struct {
	name string
	at   time.Time
}

// since is a step's time in seconds from the freeze.
func (p *play) since(name string) (float64, bool) {
	for _, s := range p.steps {
		if s.name == name {
			return s.at.Sub(p.freeze).Seconds(), true
		}
	}
	return 0, false
}

func (p *play) tell(name string, at time.Time) {
	p.steps = append(p.steps, step{name, at})
}

// play runs the scenario once. Protect, when set, brings o2fence up first and returns what gathers
// its steps afterwards.
func (d *demo) play(ctx context.Context, name string, protect func(context.Context, *vm.Cluster, *play) (func() error, error)) (*play, error) {
	say := newNarrator(name)
	c, err := vm.NewCluster(ctx, vm.ClusterConfig{Kernel: d.kernel, Dir: filepath.Join(d.dir, name), Nodes: nodes})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	say("booting %d machines, Linux %s", nodes, d.kernel.Release)
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	say("OCFS2 is mounted on all of them")
	p := &play{name: name}
	gather := func() error { return nil }
	if protect != nil {
		if gather, err = protect(ctx, c, p); err != nil {
			return nil, err
		}
		defer p.release()
		say("o2fence protects it: a BMC for each machine, the bridge, the methods")
	}
	if err := p.hang(ctx, c, d.workload(), say); err != nil {
		return nil, err
	}
	if err := gather(); err != nil {
		return nil, err
	}
	for _, m := range c.Nodes {
		if faults := m.KernelFaults(); len(faults) > 0 {
			return nil, fmt.Errorf("the kernel of %s complains: %s", m.Name(), faults[0])
		}
	}
	p.narrate(say)
	return p, nil
}

func (d *demo) workload() string {
	path, err := filepath.Abs(filepath.Join("build", "bin", "workload"))
	if err != nil {
		return "workload"
	}
	return path
}

// hang lets two nodes work, freezes the victim while it holds the lock, and waits for the writer.
func (p *play) hang(ctx context.Context, c *vm.Cluster, workload string, say narrator) error {
	for _, m := range c.Nodes {
		// The steps of OCFS2's recovery are notices.
		if _, err := m.Run(ctx, "dmesg", "-n", "6"); err != nil {
			return err
		}
	}
	lines := newLines()
	work, err := c.Nodes[writer].Start(ctx, vm.Command{Args: []string{workload, file}, Stdout: lines})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { cancel(fmt.Errorf("the writer has ended: %w", work.Wait(ctx))) }()
	holder, err := c.Nodes[victim].Start(ctx, vm.Command{Args: []string{workload, "-hold", file}})
	if err != nil {
		return err
	}
	if err := lines.await(ctx, 20); err != nil {
		return err
	}
	say("node%d and node%d append to one file in turns", writer, victim)

	victims := c.Nodes[victim].Console()
	from := victims.Len()
	if err := holder.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	if _, _, err := victims.Await(ctx, from, regexp.MustCompile("workload: holding the lock")); err != nil {
		return err
	}
	done := lines.count()
	off := p.watchPower(c.Nodes[victim])
	if err := c.Nodes[victim].Pause(ctx); err != nil {
		return err
	}
	p.freeze = time.Now()
	say("node%d hangs: it is frozen while it holds the lock", victim)
	if err := lines.await(ctx, done+1); err != nil {
		return fmt.Errorf("the writer does not go on: %w", err)
	}
	p.appends = lines.times()
	for _, at := range p.appends[done:] {
		if at.After(p.freeze) {
			p.tell("stall", at)
			break
		}
	}
	select {
	case at := <-off:
		p.tell("power_off", at)
	default:
	}
	return p.ocfs2Steps(c)
}

// watchPower tells when the machine's QEMU has ended. It may be on again when somebody looks.
func (p *play) watchPower(m *vm.VM) <-chan time.Time {
	exited, off := m.Exited(), make(chan time.Time, 1)
	go func() {
		<-exited
		off <- time.Now()
	}()
	return off
}

// ocfs2Steps finds what the survivors' kernels said of the recovery, before the writer went on: only
// the one that masters it tells its end.
func (p *play) ocfs2Steps(c *vm.Cluster) error {
	for _, look := range []struct{ name, pattern string }{
		{"evicted", fmt.Sprintf(`o2dlm has evicted node %d`, victim)},
		{"recovered", `o2dlm: End recovery`},
	} {
		pattern, first := regexp.MustCompile(look.pattern), time.Time{}
		for _, m := range c.Nodes[:victim] {
			for _, line := range m.Console().Lines(0) {
				if pattern.MatchString(line.Text) && line.Time.After(p.freeze) && (first.IsZero() || line.Time.Before(first)) {
					first = line.Time
				}
			}
		}
		if first.IsZero() {
			return fmt.Errorf("no survivor's kernel said %q", look.pattern)
		}
		p.tell(look.name, first)
	}
	return nil
}

// protect brings o2fence up on all nodes, and follows the events of the one that has the duty.
func (d *demo) protect(ctx context.Context, c *vm.Cluster, p *play) (func() error, error) {
	r, err := rig.New(ctx, c, filepath.Join(d.dir, p.name), rig.Config{Missed: d.missed})
	if err != nil {
		return nil, err
	}
	p.release = func() { r.Close() }
	if err := c.All(func(m *vm.VM) error { return r.Protect(ctx, m) }); err != nil {
		p.release()
		return nil, err
	}
	if err := c.All(func(m *vm.VM) error { return r.Watched(ctx, m, 0, 1, 2) }); err != nil {
		p.release()
		return nil, err
	}
	events, err := r.Follow(ctx, c.Nodes[writer])
	if err != nil {
		p.release()
		return nil, err
	}
	return func() error {
		for _, e := range events.All() {
			if e.Event == "attempt_failed" {
				return fmt.Errorf("method %s failed: %s", e.Method, e.Errmsg)
			}
		}
		for _, name := range []string{"silent", "initiated", "fenced", "notice"} {
			e, err := events.Await(ctx, name, victim)
			if err != nil {
				return err
			}
			p.tell(name, e.HostTime)
		}
		return nil
	}, nil
}

// A narrator prints a line with the time since the run began.
type narrator func(format string, args ...any)

func newNarrator(run string) narrator {
	began := time.Now()
	return func(format string, args ...any) {
		fmt.Printf("%-8s %6.1f s  %s\n", run, time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// narrate tells the steps after the freeze in their order.
func (p *play) narrate(say narrator) {
	for _, s := range p.ordered() {
		say("  %6.2f s after the freeze: %s", s.at.Sub(p.freeze).Seconds(), meaning(s.name))
	}
}

// lines counts a program's lines and remembers when they came.
type lines struct {
	mu   sync.Mutex
	at   []time.Time
	more chan struct{} // closed and replaced with each line
}

func newLines() *lines { return &lines{more: make(chan struct{})} }

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range strings.Count(string(b), "\n") {
		l.at = append(l.at, time.Now())
	}
	close(l.more)
	l.more = make(chan struct{})
	return len(b), nil
}

func (l *lines) count() int { return len(l.times()) }

func (l *lines) times() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at[:len(l.at):len(l.at)]
}

// await waits until there have been n lines.
func (l *lines) await(ctx context.Context, n int) error {
	for {
		l.mu.Lock()
		count, more := len(l.at), l.more
		l.mu.Unlock()
		if count >= n {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
