// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/o2cb"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/fencemethods/catalog"
)

func (t *tool) unfenceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unfence",
		Short: "Register this node with the disks it is fenced by",
		Long: "Registers this node with the disks of its methods that reserve them (scsi, nvme), so that it may\n" +
			"write there, and can be kept from it. Refused while a heartbeat region is active or an OCFS2 file\n" +
			"system is mounted, unless the node is registered already: a node that was fenced and does not know\n" +
			"it would write again. To be run at each start, before o2cb.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := t.review()
			if err != nil {
				return err
			}
			return t.unfence(cmd.Context(), c)
		},
	}
}

func (t *tool) unfence(ctx context.Context, c *config.Cluster) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	us, err := c.NodeOfHost(host)
	if err != nil {
		return usageError{err}
	}
	var errs []error
	opener := setup.NewOpener()
	for _, step := range us.Steps {
		for _, s := range step.Devices() {
			if m, err := catalog.Methods().Find(s.Method); err != nil || !m.Registers {
				continue // one of the kernel's is not in the catalog
			}
			if err := t.register(ctx, opener, c, *us, s); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// register leaves a node alone that is registered, whatever it is doing.
func (t *tool) register(ctx context.Context, o *setup.Opener, c *config.Cluster, us config.Node, s config.Step) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.TimeoutMS)*time.Millisecond)
	defer cancel()
	device, err := o.Open(c, us, s)
	if err != nil {
		return err
	}
	defer device.Close()
	// Half of the time is for the answer, which may be a disk that hangs.
	look, done := context.WithTimeout(ctx, time.Duration(s.TimeoutMS)*time.Millisecond/2)
	err = device.Check(look)
	done()
	if err == nil {
		fmt.Fprintf(t.out, "%s: %s is registered already\n", s.Method, us.Name)
		return nil
	}
	if used := inUse(o2cb.FS{}); used != nil {
		return fmt.Errorf("%w; not registered anew, because %w", err, used)
	}
	if err := device.On(ctx); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "%s: %s is registered\n", s.Method, us.Name)
	return nil
}

// inUse is why this node may be writing to its disks, or nil.
func inUse(fs o2cb.FS) error {
	mounts, err := fs.Mounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		return fmt.Errorf("%s is mounted on %s: unmount it, or restart the node", m.Source, m.Point)
	}
	c, err := fs.Cluster()
	if errors.Is(err, o2cb.ErrOffline) {
		return nil
	}
	if err != nil {
		return err
	}
	regions, err := fs.Regions(c.Name)
	for _, r := range regions {
		return fmt.Errorf("there is a heartbeat on %s: unmount, stop o2cb, or restart the node", r.Device)
	}
	return err
}
