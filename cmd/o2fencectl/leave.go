// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/o2cb"
)

// The kernel takes a moment to drop the region of a file system that was just unmounted, and a
// fence that is under way may be about to end.
const (
	leaveTime  = 5 * time.Second
	leaveAgain = 250 * time.Millisecond
)

func (t *tool) leaveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "leave",
		Short: "Leave the cluster: nothing is mounted any more, no fence is under way",
		Long: "Leaves the cluster. Refused, and tried again for " + leaveTime.String() + ", while a file system is mounted or a fence\n" +
			"is under way. Not joined is not an error.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := t.load()
			if err != nil {
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
				case <-time.After(leaveAgain):
				}
			}
		},
	}
}

func leave(ctx context.Context, cluster string) error {
	client, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := dropUnused(ctx, client, cluster); err != nil {
		return err
	}
	err = client.Leave(ctx, cluster)
	if errors.Is(err, kernel.ErrUnknownCluster) {
		return nil
	}
	return err
}

// dropUnused unwatches the regions that are in use no more: nobody else does when no watch runs.
func dropUnused(ctx context.Context, client *kernel.Client, cluster string) error {
	used, err := o2cb.FS{}.Regions(cluster)
	if err != nil && !errors.Is(err, o2cb.ErrOffline) {
		return err
	}
	inUse := make(map[string]bool)
	for _, r := range used {
		inUse[r.UUID] = true
	}
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
