// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/o2cb"
)

func (t *tool) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch",
		Short: "Join, and protect mounts as they come and go",
		Long: "Joins the cluster unless it is joined, then tells the kernel of every heartbeat region that\n" +
			"comes into use or goes out of it. What is protected stays so when it ends. It runs as a\n" +
			"service beside o2fenced.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := t.join(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
				t.warn("%v", err)
			}
			w := watcher{tool: t, cluster: cluster, told: make(map[string]string)}
			err = o2cb.FS{}.Watch(cmd.Context(), cluster.Name, func(e o2cb.Event) error { return w.handle(cmd.Context(), e) })
			if cmd.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
}

// A watcher passes regions on to the kernel. A refusal is tried again by its caller, and said once.
type watcher struct {
	*tool
	cluster kernel.Cluster
	told    map[string]string // the last refusal, by the region's UUID
}

func (w *watcher) handle(ctx context.Context, e o2cb.Event) error {
	uuid := e.Region.UUID
	var err error
	if e.Gone {
		err = unwatchRegion(ctx, e.Region)
	} else {
		err = watchRegion(ctx, w.cluster, e.Region)
	}
	switch {
	case err == nil:
		delete(w.told, uuid)
	case w.told[uuid] != err.Error():
		w.told[uuid] = err.Error()
		w.warn("region %s on %s: %v", uuid, e.Region.Device, err)
	}
	return err
}
