// SPDX-License-Identifier: GPL-2.0-only

// O2fenced is the bridge: it carries out the fence requests of the kernel through the user-space
// methods that fence.conf names, and does nothing else. It runs in PF_MEMALLOC mode with all its
// memory locked, since nothing can be written to the cluster's disks until it is done (R19, R20).
// Its history is in the kernel's events, its messages on standard error.
//
// Exit codes: 0 it was told to end; 1 it failed; 2 the command line or the configuration is wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/dispatch"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/bridge/service"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/bridge/uapi"
)

const (
	// ownKernelKiB is for what is not a device's: 2.5 MiB that may wait in the bridge's own socket
	// (kernel.OpenBridge has the sum), an answer of at most 2 KiB with its bookkeeping for each of
	// 255 nodes, and a dump of the nodes when power is restored.
	ownKernelKiB = 4096

	// ownHeapKiB is the same for Go's heap: a node powered on again, messages on standard error.
	ownHeapKiB = 2048

	// threads may be blocked in system calls at a time: the one that receives, one that waits for the
	// network, one that answers, one that asks whether a node is settled, one that logs.
	threads = 5

	// ballastKiB is free when OCFS2 begins to recover: for a kernel thread, and what that asks for.
	ballastKiB = 8192
	// ballastTime is more than recovery takes.
	ballastTime = time.Minute

	log service.Log = "o2fenced"
)

func own() memsafe.Budget {
	return memsafe.Budget{KernelKiB: ownKernelKiB, HeapKiB: ownHeapKiB, Threads: threads}
}

func main() {
	clusterFile := flag.String("cluster-conf", config.ClusterFile, "ocfs2-tools' cluster.conf")
	fenceFile := flag.String("fence-conf", config.FenceFile, "how each node is fenced")
	flag.Parse()
	if flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	os.Exit(log.ExitCode(run(*clusterFile, *fenceFile)))
}

// run reads the configuration first, for the budget follows from it. Prepare starts the program once more,
// and nothing of this first run is left then.
func run(clusterFile, fenceFile string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, budget, err := service.Load(clusterFile, fenceFile, own())
	if err != nil {
		return err
	}
	s := &server{cfg: cfg}
	defer s.close()
	plan := log.Plan(budget, s.open)
	if err := memsafe.Prepare(ctx, plan); err != nil {
		return err
	}
	return errors.Join(s.serve(ctx, plan.Reserve), plan.Reserve.Release(context.Background()))
}

// A server is what the program holds while it serves.
type server struct {
	cfg     *config.Config
	carried *setup.Bridge
	bridge  *kernel.Bridge
	client  *kernel.Client
}

// open takes all that will be needed.
func (s *server) open() (err error) {
	if err := service.RefuseFiles(); err != nil {
		return err
	}
	for _, w := range s.cfg.Warnings {
		log.Printf("%v", w)
	}
	if s.carried, err = setup.OpenBridge(s.cfg, service.GrowStack); err != nil {
		return err
	}
	if s.bridge, err = kernel.OpenBridge(); err != nil {
		return err
	}
	s.client, err = kernel.Dial()
	return err
}

func (s *server) close() {
	if s.client != nil {
		s.client.Close()
	}
	if s.bridge != nil {
		s.bridge.Close()
	}
	if s.carried != nil {
		s.carried.Close()
	}
}

// resume has nodes powered on again that were fenced just before this program was started again.
func (s *server) resume(ctx context.Context, d *dispatch.Dispatcher) error {
	nodes, err := s.client.Nodes(ctx)
	for _, n := range nodes {
		if last := n.Last; last != nil && (last.State == uapi.EventFenced || last.State == uapi.EventNotice) {
			if d.Resume(n.Cluster, n.Number, last.Method, last.At[uapi.EventFenced]) {
				log.Printf("node %d of %s was fenced before the restart, and is powered on again", n.Number, n.Cluster)
			}
		}
	}
	return err
}

// serve binds the methods, and then serves until it is told to end. The kernel checks the rules
// when it is asked to bind, so that comes last.
func (s *server) serve(ctx context.Context, reserve memsafe.Reserve) error {
	if err := service.MarkSockets(ctx, s.client, reserve); err != nil {
		return err
	}
	ballast, err := memsafe.TakeBallast(ballastKiB, reserve)
	if err != nil {
		return err
	}
	d := dispatch.New(s.bridge, s.carried.Nodes, dispatch.Options{
		Settled: setup.Settled, Idle: service.NewSweeper(ownHeapKiB/4, memsafe.Collect).Sweep, Log: log.Printf,
		Begin: service.GrowStack, Proven: ballast.Drop,
	})
	go ballast.Refill(ctx, ballastTime, d.Busy)
	if err := s.resume(ctx, d); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- d.Serve() }()
	if err := s.bridge.Bind(ctx, s.carried.Methods); err != nil {
		return err
	}
	log.Ready()
	select {
	case err := <-failed:
		return fmt.Errorf("the kernel's requests cannot be received: %w", err)
	case <-ctx.Done():
		// Closing the socket, at the end of the process, moves what is under way on at once.
		return nil
	}
}
