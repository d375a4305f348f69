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
	var failed *memsafe.StepError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrong):
		fmt.Fprintln(os.Stderr, "o2fenced:", err)
		return 2
	case errors.As(err, &failed): // says so itself
	case errors.Is(err, kernel.ErrNotLoaded):
		err = fmt.Errorf("%w: modprobe o2fence", err)
	case errors.Is(err, kernel.ErrPermission), errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: it needs root, with CAP_NET_ADMIN, CAP_SYS_RESOURCE, CAP_IPC_LOCK and CAP_SYS_NICE", err)
	}
	fmt.Fprintln(os.Stderr, "o2fenced:", err)
	return 1
}

// run reads the configuration first, for what is wrong with it is what people want to hear first, and
// the budget follows from it. Prepare starts the program once more, and nothing of this first run
// is left then.
func run(clusterFile, fenceFile string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := setup.Load(clusterFile, fenceFile)
	if err != nil {
		return configError{err}
	}
	s := &server{cfg: cfg}
	if s.budget, err = budget(cfg); err != nil {
		return configError{err}
	}
	defer s.close()
	reserve := memsafe.SystemReserve()
	err = memsafe.Prepare(ctx, memsafe.Plan{
		Name: "o2fenced", Budget: s.budget, Reserve: reserve, Flag: flagThread, Open: s.open,
		Overrun: func() {
			warn("it ran for 2 s without a pause, and has no real-time priority any more: please report this")
		},
	})
	if err != nil {
		return err
	}
	return errors.Join(s.serve(ctx, reserve), reserve.Release(context.Background()))
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

// A server is what the program holds while it serves.
type server struct {
	cfg     *config.Config
	budget  memsafe.Budget
	carried *setup.Bridge
	bridge  *kernel.Bridge
	client  *kernel.Client
}

// open takes all that will be needed.
func (s *server) open() (err error) {
	if err := refuseFiles(); err != nil {
		return err
	}
	for _, w := range s.cfg.Warnings {
		warn("%v", w)
	}
	if s.carried, err = setup.OpenBridge(s.cfg, growStack); err != nil {
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

// serve binds the methods, and then serves until it is told to end. The kernel checks the rules
// when it is asked to bind, so that comes last.
func (s *server) serve(ctx context.Context, reserve memsafe.Reserve) error {
	if err := s.markSockets(ctx, reserve); err != nil {
		return err
	}
	d := dispatch.New(s.bridge, s.carried.Nodes, dispatch.Options{
		Settled: setup.Settled, Idle: newSweeper(memsafe.Collect).sweep, Log: warn,
		Begin: growStack,
	})
	failed := make(chan error, 1)
	go func() { failed <- d.Serve() }()
	if err := s.bridge.Bind(ctx, s.carried.Methods); err != nil {
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

// markSockets has all sockets that are there receive with the reserve, and notes how many they are.
func (s *server) markSockets(ctx context.Context, reserve memsafe.Reserve) error {
	if err := memsafe.MarkSockets(ctx, s.client); err != nil {
		return err
	}
	sockets, err := memsafe.Sockets(os.Getpid())
	if err != nil {
		return err
	}
	return reserve.NoteSockets(ctx, len(sockets))
}

// growStack is for each goroutine that carries out orders or answers.
func growStack() { memsafe.GrowStack(stackKiB) }

// errLogFile is why messages do not go to a file: there, a write does block, for memory and for the
// disk, and a PF_MEMALLOC task must not write back.
var errLogFile = errors.New("standard error is a file: redirect it to a pipe, a socket, a terminal or /dev/null")

func refuseFiles() error {
	info, err := os.Stderr.Stat()
	if err == nil && info.Mode().IsRegular() {
		return errLogFile
	}
	return err
}

// warn must not block the goroutine that calls it; the service manager's pipe is read by others,
// who may wait for memory. What does not fit is lost: the kernel's events have it too.
func warn(format string, args ...any) {
	line := fmt.Appendf(nil, "o2fenced: "+format+"\n", args...)
	_ = syscall.SetNonblock(int(os.Stderr.Fd()), true)
	_, _ = syscall.Write(int(os.Stderr.Fd()), line)
}
