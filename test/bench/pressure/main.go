// SPDX-License-Identifier: GPL-2.0-only

// Pressure measures fences on a machine that is deadlocked for want of memory (package test/pressure):
// by o2fence, by the same program without the memory rules, by a daemon that executes a shell agent,
// and by Debian's fence_ipmilan. First without pressure, then while reclaim waits for the locks of a
// frozen node, whose own fence is under way all the time and is let succeed at the end. The result is
// a table, build/bench/pressure.json and a picture, build/bench/pressure.svg; it fails when o2fence
// missed a fence, or was slow.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/test/pressure"
	"github.com/o2fence/o2fence/test/pressure/wire"
	"github.com/o2fence/o2fence/test/vm"
)

func main() {
	dir := flag.String("dir", filepath.Join("build", "bench"), "where the results and logs go")
	calm := flag.Int("calm", 50, "fences without pressure by each fencer")
	pressed := flag.Int("fences", 50, "fences with pressure by each fencer")
	patience := flag.Duration("patience", 10*time.Second, "for each fence: one that takes longer has failed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{dir: *dir, calm: *calm, pressed: *pressed, patience: *patience, began: time.Now()}
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "pressure:", err)
		os.Exit(1)
	}
}

// benchTime is more than it takes on a slow machine; one that hangs has to end too.
const benchTime = 45 * time.Minute

// fencers in the order in which they are shown; the first one fences by itself, see package pressure.
func fencers() []string { return []string{wire.O2fence, wire.Plain, wire.Shell, wire.IPMILan} }

type bench struct {
	dir           string
	kernel        *vm.Kernel
	calm, pressed int
	patience      time.Duration
	began         time.Time
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%4.0f s  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

func (b *bench) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, benchTime, errors.New("the benchmark takes too long"))
	defer cancel()
	var err error
	if b.kernel, err = vm.PrepareKernel(ctx, filepath.Join("build", "vm")); err != nil {
		return err
	}
	r := &report{Kernel: b.kernel.Release, MemoryMiB: pressure.Memory, PatienceMS: b.patience.Milliseconds()}
	err = b.play(ctx, "noswap", pressure.Config{
		Files: 6000, Fencers: fencers(), Calm: b.calm, Pressed: b.pressed, Patience: b.patience,
	}, r)
	if err != nil {
		return err
	}
	// What was measured is told whatever becomes of the second one.
	err = b.play(ctx, "swap", pressure.Config{
		Files: 3000, Swap: 64, Fencers: fencers(), Pressed: b.pressed, Patience: b.patience,
	}, r)
	if err := errors.Join(err, r.write(b.dir)); err != nil {
		return err
	}
	r.print(os.Stdout, b.dir)
	return r.failure()
}

// play goes into the deadlock and out of it, and adds what was seen to the report.
func (b *bench) play(ctx context.Context, name string, cfg pressure.Config, r *report) error {
	cfg.Dir = filepath.Join(b.dir, "pressure-"+name)
	cfg.Watch = b.watch()
	c, err := vm.NewCluster(ctx, vm.ClusterConfig{Kernel: b.kernel, Dir: cfg.Dir, Nodes: pressure.Nodes, Machine: pressure.Machine})
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := pressure.New(ctx, c, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	b.say("%s: two machines with one OCFS2, %d files in the survivor's caches", name, cfg.Files)
	if err := errors.Join(s.Start(ctx), s.Measure(ctx)); err != nil {
		return err
	}
	if cfg.Calm > 0 {
		b.say("%s: %d fences by each, without pressure", name, cfg.Calm)
		s.Ask(wire.Calm)
		if err := s.AwaitDone(ctx, wire.Calm); err != nil {
			return err
		}
		s.Ask(wire.Idle)
	}
	if err := errors.Join(s.Work(ctx), s.Freeze(ctx)); err != nil {
		return err
	}
	b.say("%s: the victim is frozen, the survivor's memory is being taken", name)
	run, err := b.deadlock(ctx, s, cfg)
	run.Name, run.SwapMiB = name, cfg.Swap
	r.add(s, run)
	return err
}

// recoveryTime is how long OCFS2 may take to go on.
const recoveryTime = 90 * time.Second

func (b *bench) deadlock(ctx context.Context, s *pressure.Scenario, cfg pressure.Config) (scene, error) {
	var run scene
	stuck, err := s.AwaitStuck(ctx)
	if err != nil {
		return run, err
	}
	from := len(s.Samples())
	b.say("reclaim is stuck")
	if cfg.Pressed > 0 {
		s.Ask(wire.Pressure)
		if err := s.AwaitDone(ctx, wire.Pressure); err != nil {
			return run, err
		}
		s.Ask(wire.Idle)
	}
	run.Pressure = newConditions(append([]wire.Sample{stuck}, s.Samples()[from:]...))
	released := time.Now()
	s.Release()
	free, cancel := context.WithTimeout(ctx, recoveryTime)
	defer cancel()
	err = s.AwaitFree(free)
	run.VictimOff = s.Victim.PowerState() == vm.Off
	run.WritersWentOn = err == nil
	run.Seconds = time.Since(released).Seconds()
	b.say("the victim is off: %v; the writers go on: %v", run.VictimOff, run.WritersWentOn)
	run.Faults = pressure.Faults(s.Survivor)
	s.Ask(wire.End)
	return run, nil
}

// watch says how far it is.
func (b *bench) watch() func(wire.Report) {
	n := 0
	return func(r wire.Report) {
		if r.Fence == nil {
			return
		}
		n++
		if n%20 < len(fencers()) { // all of them, now and then
			b.say("%s, %s: %v %s", r.Fence.Phase, r.Fence.Fencer, r.Fence.Took.Round(time.Millisecond), r.Fence.Why)
		}
	}
}
