// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods/ipban/filter"
	"github.com/o2fence/o2fence/fencemethods/remote"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
)

func warn(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "o2fence-ipban: "+format+"\n", args...)
}

// serve takes orders until ctx ends. What is banned stays so.
func serve(ctx context.Context, g *opened, _ []string) error {
	if err := confine(); err != nil {
		return err
	}
	key, err := remote.ReadKey(g.config.KeyFile)
	if err != nil {
		return err
	}
	defer key.Wipe()
	// From before the first look on, so that no change is missed.
	watch, err := filter.NewWatch()
	if err != nil {
		return err
	}
	defer watch.Close()
	if _, err := g.Restore(); err != nil {
		return err
	}
	s, err := server.New(g.config.Listen, g.Orders(key), server.Options{Log: warn})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { watch.Close(); s.Close() })
	defer stop()
	guarded := make(chan error, 1)
	go func() {
		err := g.guard(watch)
		s.Close() // who does not see the filter any more does not serve
		guarded <- err
	}()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		warn("systemd: %v", err)
	}
	err = s.Serve()
	watch.Close() // for the second time, where ctx has ended
	unguarded := <-guarded
	if ctx.Err() != nil {
		return err
	}
	return errors.Join(err, unguarded)
}

// confine keeps the key out of core files and swap, and the program answering when memory is short.
func confine() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		return fmt.Errorf("mlockall: %w", err)
	}
	return nil
}

// guard puts the filter right whenever somebody has altered it, until watch fails or is closed. Until it
// has, a banned node may get through.
func (g *opened) guard(watch *filter.Watch) error {
	for {
		if err := watch.Wait(); err != nil {
			return err
		}
		changed, err := g.Restore()
		switch {
		case err != nil:
			warn("SOMEBODY MAY HAVE LET BANNED NODES IN: the packet filter cannot be read or made again: %v", err)
		case changed:
			warn("SOMEBODY HAS ALTERED THE PACKET FILTER: it is put right. Banned nodes may have got through meanwhile")
		}
	}
}
