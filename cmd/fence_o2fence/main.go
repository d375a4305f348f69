// SPDX-License-Identifier: GPL-2.0-only

// Fence_o2fence is o2fence as a fence agent: Pacemaker and dlm_controld fence through it, and DRBD
// by "fence_o2fence --drbd" as its fence-peer handler. Package agentapi has what it does.
//
// Exit codes: 0 done; 1 not; 2 for status, the node is off. With --drbd: 7 the peer is fenced;
// 1 it is not proven fenced.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/agentapi"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
)

func main() {
	// Go's runtime ends with 2 when it crashes, which says of a node that it is off. So it dies of a signal,
	// and without a core file, for there are passwords in it.
	debug.SetTraceback("crash")
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := agentapi.Agent{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Getenv: os.Getenv, Version: version(),
		Load:     setup.Load,
		Open:     setup.NewOpener().Open,
		IsKernel: setup.IsKernel,
		Dial: func() (agentapi.Kernel, error) {
			client, err := kernel.Dial()
			if err != nil {
				return nil, err // and not an interface that holds a nil pointer
			}
			return client, nil
		},
		Listen: func() (agentapi.Events, error) {
			listener, err := kernel.Listen()
			if err != nil {
				return nil, err
			}
			return listener, nil
		},
	}
	return a.Run(ctx)
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}
