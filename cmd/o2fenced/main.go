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
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/dispatch"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/bridge/setup"
)

func main() {
	clusterFile := flag.String("cluster-conf", config.ClusterFile, "ocfs2-tools' cluster.conf")
	fenceFile := flag.String("fence-conf", config.FenceFile, "how each node is fenced")
	flag.Parse()
	if flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	os.Exit(exitCode(run(*clusterFile, *fenceFile)))
}

// A configError is a configuration that cannot be used.
type configError struct{ error }

// exitCode says what is wrong, and what to do about it.
func exitCode(err error) int {
	var wrong configError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrong):
		fmt.Fprintln(os.Stderr, "o2fenced:", err)
		return 2
	case errors.Is(err, kernel.ErrNotLoaded):
		err = fmt.Errorf("%w: modprobe o2fence", err)
	case errors.Is(err, kernel.ErrPermission), errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: it needs root, with CAP_NET_ADMIN, CAP_SYS_RESOURCE and CAP_IPC_LOCK", err)
	}
	fmt.Fprintln(os.Stderr, "o2fenced:", err)
	return 1
}

// run reads the configuration first, for what is wrong with it is what people want to hear first.
// Enter starts the program once more, and nothing of this first run is left then.
func run(clusterFile, fenceFile string) error {
	cfg, err := setup.Load(clusterFile, fenceFile)
	if err != nil {
		return configError{err}
	}
	if err := memsafe.Enter(flagThread); err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		warn("%v", w)
	}
	carried, err := setup.OpenBridge(cfg)
	if err != nil {
		return err
	}
	defer carried.Close()
	bridge, err := kernel.OpenBridge()
	if err != nil {
		return err
	}
	defer bridge.Close()
	d := dispatch.New(bridge, carried.Nodes, dispatch.Options{
		Settled: setup.Settled, Idle: newSweeper(memsafe.Collect).sweep, Log: warn,
	})
	return serve(d, bridge, carried)
}

// flagThread asks the kernel to put the calling thread into PF_MEMALLOC mode.
func flagThread() error {
	client, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Memalloc(context.Background())
}

// Threads that may be blocked in system calls at a time: the one that receives, one that answers,
// one that asks whether a node is settled, one that logs.
const threads = 4

// ownHeapKiB is for what is not a device's: a node powered on again, messages on standard error.
const ownHeapKiB = 2048

// serve locks the memory, binds the methods, and then serves until it is told to end. The kernel
// checks the rules when it is asked to bind, so the lock comes first.
func serve(d *dispatch.Dispatcher, bridge *kernel.Bridge, carried *setup.Bridge) error {
	if err := memsafe.Lock(memsafe.Budget{HeapKiB: carried.HeapKiB + ownHeapKiB, Threads: threads}); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- d.Serve() }()
	if err := bridge.Bind(ctx, carried.Methods); err != nil {
		return err
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		warn("systemd: %v", err)
	}
	select {
	case err := <-failed:
		return fmt.Errorf("the kernel's requests cannot be received: %w", err)
	case <-ctx.Done():
		// Closing the socket, at the end of the process, moves what is under way on at once.
		return nil
	}
}

// warn must not block the goroutine that calls it; the service manager's pipe is read by others,
// who may wait for memory. What does not fit is lost: the kernel's events have it too.
func warn(format string, args ...any) {
	line := fmt.Appendf(nil, "o2fenced: "+format+"\n", args...)
	_ = syscall.SetNonblock(int(os.Stderr.Fd()), true)
	_, _ = syscall.Write(int(os.Stderr.Fd()), line)
}
