// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/o2cb"
	"github.com/o2fence/o2fence/bridge/setup"
)

func (t *tool) joinCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "join",
		Short: "Enter the cluster: every method of every node must be there",
		Long: "Hands the configuration to the kernel, which takes all of it or nothing, and needs every method of\n" +
			"every node. Then watches the heartbeat regions that are in use. When one of them is refused, the\n" +
			"cluster stays joined and the others are watched: exits with 1, and \"o2fencectl status\" shows the\n" +
			"mount as not protected. Mounts that come later are protected while \"o2fencectl watch\" runs.\n" +
			"Joined already is not an error: a new configuration needs \"o2fencectl leave\" first.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := t.join(cmd.Context())
			if err != nil {
				return err
			}
			regions, err := o2cb.FS{}.Regions(cluster.Name)
			if err != nil && !errors.Is(err, o2cb.ErrOffline) {
				return err
			}
			var refused []error
			for _, r := range regions {
				if err := watchRegion(cmd.Context(), cluster, r); err != nil {
					refused = append(refused, fmt.Errorf("cluster %s is joined, but region %s on %s is not protected: %w",
						cluster.Name, r.UUID, r.Device, err))
				}
			}
			return errors.Join(refused...)
		},
	}
}

// join enters the cluster of the configuration unless it is joined, and returns it.
func (t *tool) join(ctx context.Context) (kernel.Cluster, error) {
	var none kernel.Cluster
	c, err := t.review()
	if err != nil {
		return none, err
	}
	host, err := os.Hostname()
	if err != nil {
		return none, err
	}
	cluster, err := setup.Cluster(c, host)
	if err != nil {
		return none, usageError{err}
	}
	client, err := kernel.Dial()
	if err != nil {
		return none, err
	}
	defer client.Close()
	joined, err := client.Joined(ctx, c.Name)
	if err != nil {
		return none, err
	}
	if joined == len(cluster.Others()) {
		return cluster, nil
	}
	methods, err := client.Methods(ctx)
	if err != nil {
		return none, err
	}
	if err := errMissing(setup.Missing(cluster, methods)); err != nil {
		return none, err
	}
	if joined > 0 {
		// Another configuration, or a join that was killed half way. While it fences or protects a
		// mount, the kernel refuses.
		if err := client.Leave(ctx, c.Name); err != nil {
			return none, fmt.Errorf("another configuration is in force: %w", err)
		}
	}
	if err := client.Join(ctx, cluster); err != nil && !errors.Is(err, kernel.ErrExists) {
		return none, err
	}
	return cluster, nil
}

// errMissing names all the methods that are missing, and what would bring them. The kernel, which
// checks it again, would name the first.
func errMissing(missing []setup.MissingMethod) error {
	if len(missing) == 0 {
		return nil
	}
	text := "not joined, because methods are missing:"
	var kernels, bridges bool
	for _, m := range missing {
		text += fmt.Sprintf("\n  %s, of %s", m.Method, strings.Join(m.Nodes, ", "))
		kernels = kernels || setup.IsKernel(m.Method)
		bridges = bridges || !setup.IsKernel(m.Method)
	}
	if kernels {
		text += "\nload the module o2fence_methods"
	}
	if bridges {
		text += "\nstart o2fenced, or restart it when fence.conf has changed"
	}
	return errors.New(text)
}

// watchRegion asks the kernel to watch a region. That it does so already is no error.
func watchRegion(ctx context.Context, cluster kernel.Cluster, r o2cb.Region) error {
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
		Cluster: cluster.Name, UUID: r.UUID,
		StartBlock: r.StartBlock, BlockBytes: r.BlockBytes, Blocks: r.Blocks,
		Nodes: uint32(len(cluster.Others())), Rules: cluster.Rules,
	}, device)
	if errors.Is(err, kernel.ErrExists) {
		return nil
	}
	return err
}

// unwatchRegion is its reverse.
func unwatchRegion(ctx context.Context, r o2cb.Region) error {
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
