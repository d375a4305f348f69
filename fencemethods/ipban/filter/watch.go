// SPDX-License-Identifier: GPL-2.0-only

package filter

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Watch learns when somebody changes rules, be they of whatever table.
type Watch struct{ conn *netlink.Conn }

// NewWatch begins to listen: what changes from then on is told.
func NewWatch() (*Watch, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err == nil {
		err = c.JoinGroup(unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return &Watch{c}, nil
}

// Wait waits for a change, and returns nil for one or several. After Close it fails.
func (w *Watch) Wait() error {
	_, err := w.conn.Receive()
	if errors.Is(err, syscall.ENOBUFS) { // there were too many to be told
		return nil
	}
	return err
}

// Close ends it.
func (w *Watch) Close() error { return w.conn.Close() }
