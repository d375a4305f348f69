// SPDX-License-Identifier: GPL-2.0-only

// O2fence-sandbox runs the fence agents of the method "agent", each in a jail of its own. O2fenced
// connects to it; by itself it does nothing. Package sandbox has what it does.
//
// Exit codes: 0 it was told to end; 1 it failed, or could not confine a program on this machine;
// 2 the command line is wrong.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods/agent/sandbox"
)

func main() {
	// The process inside a jail is this very program.
	if len(os.Args) == 3 && os.Args[1] == "inside" {
		sandbox.Inside(os.Args[2])
		return
	}
	socket := flag.String("socket", sandbox.Socket, "where o2fenced connects")
	cgroup := flag.String("cgroup", sandbox.CGroup, "control group (cgroup v2) for the jails; its parent has to exist")
	flag.Parse()
	if flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := serve(*socket, *cgroup); err != nil {
		fmt.Fprintln(os.Stderr, "o2fence-sandbox:", err)
		os.Exit(1)
	}
}

func serve(socket, cgroup string) error {
	// Secrets pass through; none shall reach a core file or a swap device.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		return fmt.Errorf("mlockall: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s, err := sandbox.Listen(socket, cgroup, self)
	if err != nil {
		return err
	}
	s.Log = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "o2fence-sandbox: "+format+"\n", args...)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		s.Log("systemd: %v", err)
	}
	return s.Serve(ctx)
}
