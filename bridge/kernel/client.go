// SPDX-License-Identifier: GPL-2.0-only

// Package kernel speaks o2fence's netlink protocol, which docs/netlink/o2fence.yaml specifies.
//
// A Client gives an administrator's commands and a Listener follows the events; they are ordinary
// Go on mdlayher's packages. A Bridge carries fence methods that live in user space. It is on the
// path from INITIATE to FENCED, so it has buffers of its own and allocates nothing there.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"github.com/o2fence/o2fence/bridge/uapi"
)

// A Client gives an administrator's commands to the kernel. It is for one goroutine at a time.
//
// All methods need CAP_NET_ADMIN in the initial user namespace. What the kernel refuses is a
// *Refusal, and can be told apart by the Err variables. A context that ends during a call closes
// the Client, for an answer that comes later must not be taken for that to the next call.
type Client struct {
	conn   *genetlink.Conn
	family genetlink.Family
}

// Dial opens a Client. The error is ErrNotLoaded when there is no module to talk to.
func Dial() (*Client, error) {
	conn, err := genetlink.Dial(&netlink.Config{Strict: true})
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return newClient(conn)
}

// newClient takes conn over.
func newClient(conn *genetlink.Conn) (*Client, error) {
	family, err := conn.GetFamily(uapi.GenlName)
	if errors.Is(err, os.ErrNotExist) {
		err = ErrNotLoaded
	} else if err == nil && family.Version != uapi.GenlVersion {
		err = fmt.Errorf("module o2fence speaks version %d of the protocol, not %d", family.Version,
			uapi.GenlVersion)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Client{conn: conn, family: family}, nil
}

// Close gives the connection back.
func (c *Client) Close() error { return c.conn.Close() }

// Join enters a cluster, all or nothing (R5): after an error none of what it did is left. The error is
// ErrUnknownMethod and names the node when a method is not registered, and ErrExists when a node of
// the cluster was joined already.
func (c *Client) Join(ctx context.Context, cluster Cluster) error {
	for i, n := range cluster.Others() {
		err := c.do(ctx, uapi.CmdNodeAdd, encodeNode(cluster.Name, n))
		if r, ok := errors.AsType[*Refusal](err); ok {
			r.Node = n.Name
		}
		if err != nil && i > 0 && ctx.Err() == nil {
			return errors.Join(err, c.Leave(ctx, cluster.Name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// encodeNode puts the attributes in the order that the kernel reads them: what follows a method
// belongs to it.
func encodeNode(cluster string, n Node) *netlink.AttributeEncoder {
	ae := netlink.NewAttributeEncoder()
	putString(ae, uapi.AttrCluster, cluster)
	putU32(ae, uapi.AttrNode, n.Number)
	for _, s := range n.Steps {
		putString(ae, uapi.AttrMethod, s.Method)
		putU32(ae, uapi.AttrTimeoutMS, s.TimeoutMS)
		putString(ae, uapi.AttrParams, string(s.Params))
	}
	return ae
}

// Joined tells how many nodes of a cluster have joined, without this one.
func (c *Client) Joined(ctx context.Context, cluster string) (int, error) {
	nodes, err := c.Nodes(ctx)
	return len(slices.DeleteFunc(nodes, func(n Node) bool { return n.Cluster != cluster })), err
}

// Leave leaves a cluster. The error is ErrBusy while a fence of it is under way (R10) or a region
// of it is watched, ErrUnknownCluster when it was not joined.
func (c *Client) Leave(ctx context.Context, cluster string) error {
	ae := netlink.NewAttributeEncoder()
	putString(ae, uapi.AttrCluster, cluster)
	return c.do(ctx, uapi.CmdLeave, ae)
}

// Fence starts a request and does not wait for its end: follow the events. The reason, up to 255
// bytes, is for the history. The error is ErrUnderWay when the node is being fenced already,
// ErrUnknownNode when it has not joined.
func (c *Client) Fence(ctx context.Context, cluster string, node uint32, life Incarnation, reason string) error {
	ae := netlink.NewAttributeEncoder()
	putString(ae, uapi.AttrCluster, cluster)
	putU32(ae, uapi.AttrNode, node)
	putU64(ae, uapi.AttrIncarnation, uint64(life))
	putString(ae, uapi.AttrReason, reason)
	return c.do(ctx, uapi.CmdFence, ae)
}

// Confirm vouches that the node of a request is off, while its attempt asks for an administrator
// (R14); r is Last of the node. The voucher, up to 255 bytes, says who vouches and why. The error is
// ErrStale when that attempt has ended, ErrPermission when it asks for no administrator.
func (c *Client) Confirm(ctx context.Context, r Request, voucher string) error {
	ae := netlink.NewAttributeEncoder()
	putString(ae, uapi.AttrCluster, r.Cluster)
	putU32(ae, uapi.AttrNode, r.Node)
	putU64(ae, uapi.AttrIncarnation, uint64(r.Incarnation))
	putU64(ae, uapi.AttrRequest, r.ID)
	putU32(ae, uapi.AttrAttempt, r.Attempt)
	putU32(ae, uapi.AttrErrno, 0)
	putString(ae, uapi.AttrErrmsg, voucher)
	return c.do(ctx, uapi.CmdFenced, ae)
}

// RegionAdd watches a heartbeat region through device, its disk opened for reading and writing. The
// error is ErrNotRegion when this node's own slot is not found there, and ErrUnknownCluster unless
// r.Nodes of its nodes have joined.
func (c *Client) RegionAdd(ctx context.Context, r Region, device *os.File) error {
	ae := netlink.NewAttributeEncoder()
	putString(ae, uapi.AttrCluster, r.Cluster)
	putString(ae, uapi.AttrRegion, r.UUID)
	putU32(ae, uapi.AttrFD, uint32(device.Fd()))
	putU64(ae, uapi.AttrStartBlock, r.StartBlock)
	putU32(ae, uapi.AttrBlockBytes, r.BlockBytes)
	putU32(ae, uapi.AttrBlocks, r.Blocks)
	putU32(ae, uapi.AttrNodes, r.Nodes)
	putU32(ae, uapi.AttrMissed, r.Missed)
	putU32(ae, uapi.AttrPeriodMS, r.PeriodMS)
	putU32(ae, uapi.AttrGateMS, r.GateMS)
	putU32(ae, uapi.AttrFenceDelayMS, r.FenceDelayMS)
	defer runtime.KeepAlive(device)
	return c.do(ctx, uapi.CmdRegionAdd, ae)
}

// RegionDel watches a region no longer. The error is ErrUnknownRegion when it was not watched.
func (c *Client) RegionDel(ctx context.Context, uuid string) error {
	ae := netlink.NewAttributeEncoder()
	putString(ae, uapi.AttrRegion, uuid)
	return c.do(ctx, uapi.CmdRegionDel, ae)
}

// Memalloc puts the calling thread into PF_MEMALLOC mode, for good (R20). The message is sent, and
// obeyed, on the thread of the caller, who must have locked the goroutine to it; see memsafe.Enter.
// It needs CAP_SYS_RESOURCE too.
func (c *Client) Memalloc(ctx context.Context) error {
	return c.do(ctx, uapi.CmdMemalloc, netlink.NewAttributeEncoder())
}

// MarkSocket lets what is received on a socket of the calling process take from the memory reserve, for as long as the
// socket lives (R20): so an answer gets through when there is no other memory. The error is ErrNotSocket for a descriptor of something else.
func (c *Client) MarkSocket(ctx context.Context, fd int) error {
	ae := netlink.NewAttributeEncoder()
	putU32(ae, uapi.AttrFD, uint32(fd))
	return c.do(ctx, uapi.CmdMemallocSocket, ae)
}

func (c *Client) do(ctx context.Context, cmd uapi.Cmd, ae *netlink.AttributeEncoder) error {
	_, err := c.execute(ctx, cmd, netlink.Acknowledge, ae)
	return err
}

func (c *Client) execute(ctx context.Context, cmd uapi.Cmd, flags netlink.HeaderFlags, ae *netlink.AttributeEncoder) ([]genetlink.Message, error) {
	attrs, err := ae.Encode()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", cmd, err)
	}
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	m := genetlink.Message{
		Header: genetlink.Header{Command: uint8(cmd), Version: uapi.GenlVersion},
		Data:   attrs,
	}
	replies, err := c.conn.Execute(m, c.family.ID, netlink.Request|flags)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("%v: %w", cmd, context.Cause(ctx))
	}
	if err != nil {
		return nil, explain(cmd, attrs, err)
	}
	return replies, nil
}

func putString(ae *netlink.AttributeEncoder, a uapi.Attr, s string) { ae.String(uint16(a), s) }

func putU32(ae *netlink.AttributeEncoder, a uapi.Attr, n uint32) { ae.Uint32(uint16(a), n) }

func putU64(ae *netlink.AttributeEncoder, a uapi.Attr, n uint64) { ae.Uint64(uint16(a), n) }
