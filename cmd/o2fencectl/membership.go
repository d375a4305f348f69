// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/o2cb"
	"github.com/o2fence/o2fence/bridge/setup"
)

func (t *tool) joinCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "join",
		Short: "Enter the cluster: every method of every node must be there",
		Long: "Hands the configuration to the kernel, which refuses it unless it has every method of every\n" +
			"node, and watches the heartbeat regions there are. Joined already is not an error. Mounts\n" +
			"that come later are protected while \"o2fencectl watch\" runs.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := t.join(cmd.Context())
			if err != nil {
				return err
			}
			regions, err := o2cb.FS{}.Regions(cluster)
			if err != nil && !errors.Is(err, o2cb.ErrOffline) {
				return err
			}
			for _, r := range regions {
				if err := watchRegion(cmd.Context(), cluster, r); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (t *tool) join(ctx context.Context) (string, error) {
	c, warnings, err := t.load()
	if err != nil {
		return "", err
	}
	for _, w := range warnings {
		fmt.Fprintln(os.Stderr, "o2fencectl:", w)
	}
	cluster, err := setup.Cluster(c)
	if err != nil {
		return "", usageError{err}
	}
	client, err := kernel.Dial()
	if err != nil {
		return "", err
	}
	defer client.Close()
	if err := client.Join(ctx, cluster); err != nil && !errors.Is(err, kernel.ErrExists) {
		return "", err
	}
	return c.Name, nil
}

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
				fmt.Fprintln(os.Stderr, "o2fencectl:", err)
			}
			w := watcher{cluster: cluster, told: make(map[string]string)}
			err = o2cb.FS{}.Watch(cmd.Context(), cluster, func(e o2cb.Event) error { return w.handle(cmd.Context(), e) })
			if cmd.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
}

// A watcher passes regions on to the kernel. A refusal is tried again by its caller, and said once.
type watcher struct {
	cluster string
	told    map[string]string
}

func (w *watcher) handle(ctx context.Context, e o2cb.Event) error {
	change := watchRegion
	if e.Gone {
		change = unwatchRegion
	}
	err := change(ctx, w.cluster, e.Region)
	if err == nil {
		delete(w.told, e.Region.UUID)
		return nil
	}
	if w.told[e.Region.UUID] != err.Error() {
		w.told[e.Region.UUID] = err.Error()
		fmt.Fprintf(os.Stderr, "o2fencectl: region %s: %v\n", e.Region.UUID, err)
	}
	return err
}

func watchRegion(ctx context.Context, cluster string, r o2cb.Region) error {
	device, err := o2cb.FS{}.OpenDevice(r)
	if err != nil {
		return err
	}
	defer device.Close()
	client, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	err = client.RegionAdd(ctx, kernel.Region{
		Cluster: cluster, UUID: r.UUID,
		StartBlock: r.StartBlock, BlockBytes: r.BlockBytes, Blocks: r.Blocks,
	}, device)
	if errors.Is(err, kernel.ErrExists) {
		return nil
	}
	return err
}

func unwatchRegion(ctx context.Context, _ string, r o2cb.Region) error {
	client, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	err = client.RegionDel(ctx, r.UUID)
	if errors.Is(err, kernel.ErrUnknownRegion) {
		return nil
	}
	return err
}

// leaveTime is how long a leave waits for regions of file systems that were just unmounted.
const leaveTime = 5 * time.Second

func (t *tool) leaveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "leave",
		Short: "Leave the cluster: nothing is mounted any more, no fence is under way",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := t.load()
			if err != nil {
				return err
			}
			if err := dropGone(cmd.Context(), c.Name); err != nil {
				return err
			}
			deadline := time.Now().Add(leaveTime)
			for {
				err := leave(cmd.Context(), c.Name)
				if !errors.Is(err, kernel.ErrBusy) || time.Now().After(deadline) {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return err
				case <-time.After(leaveTime / 20):
				}
			}
		},
	}
}

// dropGone unwatches the regions that are in use no more: nobody else does when no watch runs.
func dropGone(ctx context.Context, cluster string) error {
	used, err := o2cb.FS{}.Regions(cluster)
	if err != nil && !errors.Is(err, o2cb.ErrOffline) {
		return err
	}
	inUse := make(map[string]bool)
	for _, r := range used {
		inUse[r.UUID] = true
	}
	client, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	watched, err := client.Regions(ctx)
	if err != nil {
		return err
	}
	for _, r := range watched {
		if r.Cluster != cluster || inUse[r.UUID] {
			continue
		}
		if err := client.RegionDel(ctx, r.UUID); err != nil && !errors.Is(err, kernel.ErrUnknownRegion) {
			return err
		}
	}
	return nil
}

func leave(ctx context.Context, cluster string) error {
	client, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	err = client.Leave(ctx, cluster)
	if errors.Is(err, kernel.ErrUnknownCluster) {
		return nil
	}
	return err
}
