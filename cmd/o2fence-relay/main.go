// SPDX-License-Identifier: GPL-2.0-only

// O2fence-relay makes a machine a fencing node: it carries out, by the methods that its own fence.conf
// names, what the method relay of the cluster's nodes orders, and does nothing else. It is best run
// where none of the cluster's file systems is mounted (R22): then nothing that it waits for can wait
// for the node that is to be fenced. It keeps the memory rules all the same, and those of the kernel
// where the module o2fence is loaded. Its messages are on standard error.
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

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/bridge/o2cb"
	"github.com/o2fence/o2fence/bridge/relay"
	"github.com/o2fence/o2fence/bridge/service"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
)

const (
	// ownHeapKiB is for messages on standard error and texts of failures.
	ownHeapKiB = 2048
	// threads may be blocked in system calls at a time: one that receives, one that answers, one that
	// logs.
	threads = 3

	log service.Log = "o2fence-relay"
)

func main() {
	var o options
	flag.StringVar(&o.cluster, "cluster-conf", config.ClusterFile, "ocfs2-tools' cluster.conf, as on the cluster's nodes")
	flag.StringVar(&o.fence, "fence-conf", config.FenceFile, "how this machine fences each node")
	flag.Func("listen", "IP `address` of this machine to take orders at, with :PORT if it is not "+defaultPort, o.parseListen)
	flag.Func("key-file", "`file` with the key of those who may give orders; CLUSTER=FILE for one cluster's nodes only; may be repeated", o.parseKey)
	flag.Parse()
	if flag.NArg() != 0 || !o.listen.IsValid() || len(o.keys) == 0 {
		fmt.Fprintln(os.Stderr, "o2fence-relay: expected -listen and -key-file, and no arguments")
		flag.Usage()
		os.Exit(2)
	}
	os.Exit(log.ExitCode(run(o)))
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	own := memsafe.Budget{KernelKiB: server.KernelKiB, HeapKiB: ownHeapKiB, Threads: threads}
	cfg, budget, err := service.Load(o.cluster, o.fence, own)
	if err != nil {
		return err
	}
	s := &fencer{options: o, cfg: cfg}
	defer s.close()
	plan := log.Plan(budget, s.open)
	if err := s.prepare(ctx, plan); err != nil {
		return err
	}
	return errors.Join(s.serve(ctx, plan.Reserve), plan.Reserve.Release(context.Background()))
}

// A fencer is what the program holds while it serves.
type fencer struct {
	options options
	cfg     *config.Config
	relay   *relay.Relay
	server  *server.Server
	client  *kernel.Client // nil where the module is not loaded
}

// prepare keeps the memory rules, but for PF_MEMALLOC where there is no module to give it. Then a thread
// may wait for memory like any other, though not for the cluster's disks: that none of them is mounted
// here is what the fence then rests on, and is made sure of.
func (s *fencer) prepare(ctx context.Context, plan memsafe.Plan) error {
	client, err := kernel.Dial()
	switch {
	case err == nil:
		s.client = client
		return memsafe.Prepare(ctx, plan)
	case !errors.Is(err, kernel.ErrNotLoaded):
		return err
	}
	if err := refuseMounts(o2cb.FS{}); err != nil {
		return err
	}
	plan.Flag = nil
	if err := memsafe.Prepare(ctx, plan); err != nil {
		return err
	}
	log.Printf("the module o2fence is not loaded: all memory rules are kept but PF_MEMALLOC, so that memory can be waited for, though not for the cluster's disks, which are not mounted here")
	return nil
}

// open takes all that will be needed.
func (s *fencer) open() (err error) {
	if err := service.RefuseFiles(); err != nil {
		return err
	}
	if s.relay, err = relay.Open(s.cfg, service.GrowStack); err != nil {
		return service.ConfigError{Err: err}
	}
	if err := s.options.giveKeys(s.relay.Nodes); err != nil {
		return service.ConfigError{Err: err}
	}
	s.server, err = server.New(s.options.listen, s.relay.Nodes, server.Options{
		Log: log.Printf, Begin: service.GrowStack, Idle: service.NewSweeper(ownHeapKiB/4, memsafe.Collect).Sweep,
	})
	return err
}

func (s *fencer) close() {
	if s.client != nil {
		s.client.Close()
	}
	if s.server != nil {
		s.server.Close()
	}
	if s.relay != nil {
		s.relay.Close()
	}
}

// serve takes orders until it is told to end.
func (s *fencer) serve(ctx context.Context, reserve memsafe.Reserve) error {
	if s.client != nil {
		if err := service.MarkSockets(ctx, s.client, reserve); err != nil {
			return err
		}
	}
	failed := make(chan error, 1)
	go func() { failed <- s.server.Serve() }()
	log.Printf("takes orders for %d nodes at %v", len(s.relay.Nodes), s.server.Addr())
	log.Ready()
	select {
	case err := <-failed:
		return fmt.Errorf("orders cannot be received: %w", err)
	case <-ctx.Done():
		s.server.Close()
		return <-failed
	}
}
