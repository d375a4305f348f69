// SPDX-License-Identifier: GPL-2.0-only

// Command guest fences nodes in the machine that it runs in, in one way after another, and prints
// how long it took, as lines of JSON (package sample).
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/test/bench/upcall/sample"
)

// nodes can be fenced: all but this one.
const nodes = uapi.NodesMax - 1

// A way to fence.
type way struct {
	name   string
	open   func() (fencer, error)
	rounds int // with one node; with more, as many as have so many fences
	least  int // but not fewer rounds than that
	most   int // nodes at once
}

// A fencer fences nodes 1 to n at once.
type fencer interface {
	fence(n int) (sample.Round, error)
	close() error
}

func main() {
	var b bench
	flag.StringVar(&b.modules, "modules", "", "directory of o2fence's modules")
	flag.StringVar(&b.programs, "programs", "", "directory of o2fenced")
	flag.StringVar(&b.own, "own", "", "directory of the benchmark's own module and programs")
	flag.StringVar(&b.ways, "ways", "", "ways to measure, separated by commas; default: all")
	flag.Parse()
	debug.SetGCPercent(-1) // measure collects, when nothing is measured
	if err := b.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type bench struct{ modules, programs, own, ways string }

func (b *bench) wanted(way string) bool {
	return b.ways == "" || slices.Contains(strings.Split(b.ways, ","), way)
}

func (b *bench) run() error {
	if err := b.prepare(); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, w := range []way{
		{sample.Kernel, b.kernel("upcall-kernel"), 300, 20, nodes},
		{sample.Bridge, b.bridge(0), 300, 20, nodes},
		{sample.Waiting, b.bridge(50 * time.Millisecond), 100, 5, nodes},
		{sample.Helper, b.kernel("upcall-helper"), 200, 5, nodes},
		{sample.Pacemaker, b.pacemaker("fence_bench"), 100, 3, nodes},
		{sample.Script, b.pacemaker("fence_bench_sh"), 100, 3, 16},
	} {
		if !b.wanted(w.name) {
			continue
		}
		if err := w.measure(out); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

// helper is in memory, as all that is started here: the disk is not what is measured.
const helper = "/run/upcall/helper"

// prepare copies the programs into memory and loads the modules.
func (b *bench) prepare() error {
	for from, to := range map[string]string{
		filepath.Join(b.own, "helper"):                 helper,
		filepath.Join(b.own, "fence_bench"):            "/usr/sbin/fence_bench",
		filepath.Join(b.own, "peers/fence_bench_sh"):   "/usr/sbin/fence_bench_sh",
		filepath.Join(b.own, "pacemaker_client"):       "/run/upcall/pacemaker_client",
		"/usr/lib/pacemaker/pacemaker-fenced":          "/run/upcall/pacemaker-fenced",
		filepath.Join(b.programs, "o2fenced"):          "/run/upcall/o2fenced",
		filepath.Join(b.own, "kmod/upcall_methods.ko"): "/run/upcall/upcall_methods.ko",
		filepath.Join(b.modules, "o2fence.ko"):         "/run/upcall/o2fence.ko",
		filepath.Join(b.modules, "o2fence_methods.ko"): "/run/upcall/o2fence_methods.ko",
	} {
		text, err := os.ReadFile(from)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, text, 0o755)); err != nil {
			return err
		}
	}
	return errors.Join(load("o2fence", ""), load("o2fence_methods", ""), load("upcall_methods", "helper="+helper))
}

func load(module, params string) error {
	f, err := os.Open("/run/upcall/" + module + ".ko")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), params, 0); err != nil {
		return fmt.Errorf("loading %s: %w", module, err)
	}
	return nil
}

// The rounds before the first that counts fill the caches, and the processor's.
const warmUp = 3

// quiet is how long nothing happens before a round begins: what the last one has left to do, and what
// this program has told, must not take the processor's time from it.
const quiet = 10 * time.Millisecond

// measure prints what it has measured at the end, for the same reason.
func (w way) measure(out *json.Encoder) (err error) {
	f, err := w.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	var rounds []sample.Round
	for _, n := range []int{1, 4, 16, 64, 128, nodes} {
		if n > w.most {
			break
		}
		for i := range warmUp + max(w.rounds/n, w.least) {
			runtime.GC()
			time.Sleep(quiet)
			r, err := f.fence(n)
			if err != nil {
				return fmt.Errorf("%d at once: %w", n, err)
			}
			r.Way, r.Nodes = w.name, n
			if i >= warmUp {
				rounds = append(rounds, r)
			}
		}
	}
	for _, r := range rounds {
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}
