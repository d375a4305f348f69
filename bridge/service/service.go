// SPDX-License-Identifier: GPL-2.0-only

// Package service is what the daemons that carry out fences have in common, o2fenced and
// o2fence-relay: how they keep the memory rules of package memsafe, and how they speak.
package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/memsafe"
)

// FlagThread asks the kernel to put the calling thread into PF_MEMALLOC mode. The error is
// kernel.ErrNotLoaded where the module o2fence is not.
func FlagThread() error {
	client, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Memalloc(context.Background())
}

// GrowStack is for each goroutine that carries out orders or answers, before it serves.
func GrowStack() { memsafe.GrowStack(stackKiB) }

// MarkSockets has all sockets that are there receive with the reserve, and notes how many they are.
func MarkSockets(ctx context.Context, client *kernel.Client, reserve memsafe.Reserve) error {
	if err := memsafe.MarkSockets(ctx, client); err != nil {
		return err
	}
	sockets, err := memsafe.Sockets(os.Getpid())
	if err != nil {
		return err
	}
	return reserve.NoteSockets(ctx, len(sockets))
}

// errLogFile is why messages do not go to a file: there, a write does block, for memory and for the
// disk, and a PF_MEMALLOC task must not write back.
var errLogFile = errors.New("standard error is a file: redirect it to a pipe, a socket, a terminal or /dev/null")

// RefuseFiles fails when standard error is a file.
func RefuseFiles() error {
	info, err := os.Stderr.Stat()
	if err == nil && info.Mode().IsRegular() {
		return errLogFile
	}
	return err
}

// A Log writes messages to standard error, each on a line of its own behind the daemon's name.
type Log string

// Printf must not block the goroutine that calls it; the service manager's pipe is read by others,
// who may wait for memory. What does not fit is lost.
func (l Log) Printf(format string, args ...any) {
	line := fmt.Appendf(nil, string(l)+": "+format+"\n", args...)
	_ = syscall.SetNonblock(int(os.Stderr.Fd()), true)
	_, _ = syscall.Write(int(os.Stderr.Fd()), line)
}
