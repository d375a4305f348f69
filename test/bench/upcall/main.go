// SPDX-License-Identifier: GPL-2.0-only

// Upcall measures what it costs to have a node fenced by a method that does nothing: by one in the
// kernel, by o2fenced, by a program that the kernel starts (call_usermodehelper, as DRBD does), and
// by Pacemaker's fencer. All are measured in one virtual machine, one after another, from one node
// to 254 at once; o2fenced once more with devices that take 50 ms. The result is a table, build/bench/upcall.json and a picture,
// build/bench/upcall.svg; it fails when o2fence is not as much faster as it is meant to be.
//
// With one processor nothing runs beside what is measured, and nothing is counted that waits for
// another processor to wake up. The machine's clock counts instructions, 1 ns each, so that neither what
// else the host does nor what is slow to emulate counts, and a run is as the next. Caches and memory do
// not count either. With -counted=false it is the host's time.
//
// Exit codes: 0 all that is promised is kept; 3 nothing is missed but what was never reached, and is
// said to be missed in the README; 1 something else is missed or went wrong.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/test/bench/upcall/sample"
	"github.com/o2fence/o2fence/test/vm"
)

func main() {
	cpus := flag.Int("cpus", 1, "processors of the virtual machine")
	dir := flag.String("dir", filepath.Join("build", "bench"), "where the results and logs go")
	counted := flag.Bool("counted", true, "have the machine's clock count instructions, 1 ns each, and not the host's time")
	ways := flag.String("ways", "", "ways to measure, separated by commas, without a verdict; default: all")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := checkWays(*ways)
	if err == nil {
		err = run(ctx, *dir, *ways, vm.Config{CPUs: *cpus, Counted: *counted})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "upcall:", err)
		os.Exit(exitCode(err))
	}
}

func exitCode(err error) int {
	if errors.Is(err, errFar) {
		return 3
	}
	return 1
}

func checkWays(ways string) error {
	for name := range strings.SplitSeq(ways, ",") {
		if _, ok := notes()[name]; !ok && ways != "" {
			return fmt.Errorf("-ways: unknown %q, known are %s", name, strings.Join(slices.Sorted(maps.Keys(notes())), ", "))
		}
	}
	return nil
}

// benchTime is more than it takes on a slow machine; one that hangs has to end too.
const benchTime = 20 * time.Minute

// memory of the machine, in MiB: 254 agents at once, and all programs.
const memory = 1024

// run measures in a machine with the processors and the clock of m.
func run(ctx context.Context, dir, ways string, m vm.Config) error {
	ctx, cancel := context.WithTimeoutCause(ctx, benchTime, errors.New("the benchmark takes too long"))
	defer cancel()
	kernel, err := vm.PrepareKernel(ctx, filepath.Join("build", "vm"))
	if err != nil {
		return err
	}
	own, err := build(ctx, dir, kernel.Release)
	if err != nil {
		return err
	}
	m.Kernel, m.Name, m.Dir, m.Memory = kernel, "upcall", own, memory
	rounds, err := measure(ctx, m, ways)
	if err != nil {
		return err
	}
	r := newReport(ctx, rounds, m)
	if err := r.write(dir); err != nil {
		return err
	}
	r.print(os.Stdout, dir)
	return r.failure()
}

// measure has the program guest measure, in a machine that does nothing else.
func measure(ctx context.Context, config vm.Config, ways string) ([]sample.Round, error) {
	own, kernel := config.Dir, config.Kernel
	m, err := vm.New(ctx, config)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if err := m.Boot(ctx); err != nil {
		return nil, err
	}
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	out, in := io.Pipe()
	var stderr bytes.Buffer
	p, err := m.Start(ctx, vm.Command{
		Args: []string{
			filepath.Join(own, "guest"), "-ways", ways, "-own", own,
			"-modules", filepath.Join(root, "build", "ko", kernel.Release), "-programs", filepath.Join(root, "build", "bin"),
		},
		Stdout: in, Stderr: &stderr,
	})
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- p.Wait(ctx)
		in.Close()
	}()
	rounds, err := read(out)
	if err := errors.Join(err, <-ended); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, stderr.Bytes())
	}
	if faults := m.KernelFaults(); len(faults) > 0 {
		return nil, fmt.Errorf("the kernel complains: %s", faults[0])
	}
	return rounds, nil
}

// read reads what guest tells, and says how far it is.
func read(out io.Reader) ([]sample.Round, error) {
	var rounds []sample.Round
	last, began := "", time.Now()
	for in := json.NewDecoder(out); ; {
		var r sample.Round
		err := in.Decode(&r)
		if err == io.EOF {
			return rounds, nil
		}
		if err != nil {
			_, _ = io.Copy(io.Discard, out) // the machine must not wait for us
			return nil, err
		}
		rounds = append(rounds, r)
		if r.Way != last {
			fmt.Fprintf(os.Stderr, "%4.0f s  measured: %s\n", time.Since(began).Seconds(), r.Way)
			last = r.Way
		}
	}
}
