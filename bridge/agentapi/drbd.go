// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// fencePeer is DRBD's fence-peer handler: it fences the peer that the environment names.
func (a *Agent) fencePeer(ctx context.Context, o *options) int {
	err := func() error {
		peer, err := a.peer()
		if err != nil {
			return err
		}
		o.action = "DRBD's fence-peer for resource " + a.Getenv("DRBD_RESOURCE")
		c, err := a.cluster(o)
		if err != nil {
			return err
		}
		n, err := c.NodeOfHost(peer)
		if err != nil {
			return err
		}
		r, err := a.fenceWithin(ctx, o, c, n)
		if err == nil {
			a.say("node %s is fenced by %s", n.Name, r.Method)
		}
		return err
	}()
	if err != nil {
		a.fail(err)
		return ExitNotFenced
	}
	return ExitFenced
}

// peer is the host name of the peer: DRBD 9 names its number, and drbdadm the names of all numbers;
// DRBD 8.4 names it.
func (a *Agent) peer() (string, error) {
	if id := a.Getenv("DRBD_PEER_NODE_ID"); id != "" {
		if name := a.Getenv("DRBD_NODE_ID_" + id); name != "" {
			return name, nil
		}
		return "", fmt.Errorf("DRBD_NODE_ID_%s is not set: call it through drbdadm, as the fence-peer handler of drbd.conf", id)
	}
	if name := a.Getenv("DRBD_PEER"); name != "" {
		return name, nil
	}
	switch names := strings.Fields(a.Getenv("DRBD_PEERS")); len(names) {
	case 0:
		return "", errors.New("no peer is named: expected DRBD_PEER_NODE_ID, DRBD_PEER or DRBD_PEERS in the environment")
	case 1:
		return names[0], nil
	default:
		return "", fmt.Errorf("DRBD_PEERS names %d peers: expected the one to be fenced", len(names))
	}
}
