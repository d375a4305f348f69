// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/test/bench/upcall/sample"
)

// patience is for what must happen; nothing waits that long but a benchmark that fails.
const patience = time.Minute

var ctx = context.Background()

const clusterName = "bench"

// A cluster is a fencer: o2fence's kernel, with a cluster joined whose nodes all have one method.
type cluster struct {
	*kernel.Client
	method string
	ask    *netlink.Conn
	family uint16
	round  int
	pause  time.Duration // until a round has probably ended
}

func join(joined kernel.Cluster, method string) (*cluster, error) {
	client, err := kernel.Dial()
	if err != nil {
		return nil, err
	}
	if err := client.Join(ctx, joined); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	c := &cluster{Client: client, method: method}
	return c, c.dial()
}

// kernel makes a way of a method that runs in the kernel.
func (b *bench) kernel(method string) func() (fencer, error) {
	return func() (fencer, error) {
		joined := kernel.Cluster{Name: clusterName}
		for n := range uint32(uapi.NodesMax) {
			joined.Nodes = append(joined.Nodes, kernel.Node{
				Number: n, Name: fmt.Sprintf("n%d", n), Steps: []kernel.Step{{Method: method, TimeoutMS: 60_000}},
			})
		}
		return join(joined, method)
	}
}

// dial opens the connection by which many FENCEs are sent as one.
func (c *cluster) dial() error {
	g, err := genetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer g.Close()
	family, err := g.GetFamily(uapi.GenlName)
	if err != nil {
		return err
	}
	c.family = family.ID
	c.ask, err = netlink.Dial(unix.NETLINK_GENERIC, nil)
	return err
}

func (c *cluster) close() error {
	return errors.Join(c.ask.Close(), c.Leave(ctx, clusterName), c.Client.Close())
}

// fence asks for all nodes in one system call, so that the fences are under way at the same time, as
// they are when a heartbeat sees that many nodes have died. Nobody listens to the events meanwhile;
// the kernel has the times.
func (c *cluster) fence(n int) (sample.Round, error) {
	c.round++
	reason := fmt.Sprintf("round %d", c.round)
	messages := make([]netlink.Message, n)
	for i := range messages {
		data, err := c.fenceMessage(uint32(i+1), reason)
		if err != nil {
			return sample.Round{}, err
		}
		messages[i] = netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(c.family), Flags: netlink.Request}, Data: data,
		}
	}
	if _, err := c.ask.SendMessages(messages); err != nil {
		return sample.Round{}, err
	}
	return c.await(n, reason)
}

func (c *cluster) fenceMessage(node uint32, reason string) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.String(uint16(uapi.AttrCluster), clusterName)
	ae.Uint32(uint16(uapi.AttrNode), node)
	ae.String(uint16(uapi.AttrReason), reason)
	ae.Uint64(uint16(uapi.AttrIncarnation), 0)
	attrs, err := ae.Encode()
	return append([]byte{byte(uapi.CmdFence), uapi.GenlVersion, 0, 0}, attrs...), err
}

// await waits until all fences of a round have ended. It asks seldom, for to ask takes the processor's
// time: first when the fences have probably ended, after twice the time of the last round.
func (c *cluster) await(n int, reason string) (sample.Round, error) {
	c.pause = max(c.pause, 5*time.Millisecond)
	for end := time.Now().Add(patience); ; {
		time.Sleep(c.pause)
		r, err := c.times(reason)
		switch {
		case err != nil:
			return r, err
		case len(r.Fences) == n:
			c.pause = 2 * r.Span()
			return r, nil
		case time.Now().After(end):
			return r, fmt.Errorf("%d fences of %d have ended", len(r.Fences), n)
		}
	}
}

// times are those of this round's fences that have ended. It is an error when one of them was not by
// the method that is measured.
func (c *cluster) times(reason string) (r sample.Round, err error) {
	all, err := c.Nodes(ctx)
	if err != nil {
		return r, err
	}
	for _, node := range all {
		last := node.Last
		if last == nil || last.Reason != reason || !setup.Ended(last) {
			continue
		}
		if last.State != uapi.EventNotice || last.Attempt != 1 || last.Method != c.method {
			return r, fmt.Errorf("node %d: %v by %s, attempt %d: %w (%s)",
				node.Number, last.State, last.Method, last.Attempt, last.Errno, last.Errmsg)
		}
		r.Fences = append(r.Fences, sample.Fence{
			Asked:     last.At[uapi.EventStarted].UnixNano(),
			Initiated: last.At[uapi.EventInitiated].UnixNano(),
			Fenced:    last.At[uapi.EventFenced].UnixNano(),
		})
	}
	return r, nil
}
