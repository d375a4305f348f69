// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/o2fence/o2fence/bridge/uapi"
)

// Nodes are those of all clusters but for this one, each with its methods and its last request.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	return dump(ctx, c, uapi.CmdNodeGet, decodeNode)
}

// Methods are those that are registered. A bound one whose bridge is gone stays, with PortID 0.
func (c *Client) Methods(ctx context.Context) ([]Method, error) {
	return dump(ctx, c, uapi.CmdMethodGet, decodeMethod)
}

// Regions are those that are watched.
func (c *Client) Regions(ctx context.Context) ([]Region, error) {
	return dump(ctx, c, uapi.CmdRegionGet, decodeRegion)
}

// Requests are the last 64 that ended, newest first. Those under way are with their Nodes.
func (c *Client) Requests(ctx context.Context) ([]Request, error) {
	return dump(ctx, c, uapi.CmdRequestGet, decodeRequest)
}

func dump[T any](ctx context.Context, c *Client, cmd uapi.Cmd, decode func(*netlink.AttributeDecoder) T) ([]T, error) {
	replies, err := c.execute(ctx, cmd, netlink.Dump, netlink.NewAttributeEncoder())
	if err != nil {
		return nil, err
	}
	all := make([]T, 0, len(replies))
	for _, reply := range replies {
		ad, err := netlink.NewAttributeDecoder(reply.Data)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", cmd, err)
		}
		all = append(all, decode(ad))
		if err := ad.Err(); err != nil {
			return nil, fmt.Errorf("%v: %w", cmd, err)
		}
	}
	return all, nil
}

// decodeNode reads a request, which ends with its times, and then the steps.
func decodeNode(ad *netlink.AttributeDecoder) Node {
	var r Request
	n := Node{Steps: []Step{}}
	for ad.Next() {
		switch uapi.Attr(ad.Type()) {
		case uapi.AttrMethod:
			if r.At == nil {
				r.decode(ad)
			} else {
				n.Steps = append(n.Steps, Step{Method: ad.String()})
			}
		case uapi.AttrTimeoutMS:
			if len(n.Steps) > 0 {
				n.Steps[len(n.Steps)-1].TimeoutMS = ad.Uint32()
			}
		default:
			r.decode(ad)
		}
	}
	n.Cluster, n.Number = r.Cluster, r.Node
	if r.ID != 0 || len(r.At) > 0 {
		n.Last = &r
	}
	return n
}

func decodeMethod(ad *netlink.AttributeDecoder) (m Method) {
	for ad.Next() {
		switch uapi.Attr(ad.Type()) {
		case uapi.AttrMethod:
			m.Name = ad.String()
		case uapi.AttrModule:
			m.Module = ad.String()
		case uapi.AttrPortID:
			m.PortID = ad.Uint32()
		}
	}
	return m
}

func decodeRegion(ad *netlink.AttributeDecoder) Region {
	r := Region{Live: []uint32{}, Silent: []uint32{}}
	for ad.Next() {
		switch uapi.Attr(ad.Type()) {
		case uapi.AttrCluster:
			r.Cluster = ad.String()
		case uapi.AttrRegion:
			r.UUID = ad.String()
		case uapi.AttrBlockBytes:
			r.BlockBytes = ad.Uint32()
		case uapi.AttrBlocks:
			r.Blocks = ad.Uint32()
		case uapi.AttrNodes:
			r.Nodes = ad.Uint32()
		case uapi.AttrMissed:
			r.Missed = ad.Uint32()
		case uapi.AttrPeriodMS:
			r.PeriodMS = ad.Uint32()
		case uapi.AttrGateMS:
			r.GateMS = ad.Uint32()
		case uapi.AttrFenceDelayMS:
			r.FenceDelayMS = ad.Uint32()
		case uapi.AttrLive:
			r.Live = append(r.Live, ad.Uint32())
		case uapi.AttrSilent:
			r.Silent = append(r.Silent, ad.Uint32())
		}
	}
	return r
}

func decodeRequest(ad *netlink.AttributeDecoder) (r Request) {
	for ad.Next() {
		r.decode(ad)
	}
	return r
}

func (r *Request) decode(ad *netlink.AttributeDecoder) {
	switch uapi.Attr(ad.Type()) {
	case uapi.AttrCluster:
		r.Cluster = ad.String()
	case uapi.AttrNode:
		r.Node = ad.Uint32()
	case uapi.AttrIncarnation:
		r.Incarnation = Incarnation(ad.Uint64())
	case uapi.AttrRequest:
		r.ID = ad.Uint64()
	case uapi.AttrAttempt:
		r.Attempt = ad.Uint32()
	case uapi.AttrState:
		r.State = uapi.Event(ad.Uint32())
	case uapi.AttrMethod:
		r.Method = ad.String()
	case uapi.AttrErrno:
		r.Errno = syscall.Errno(ad.Uint32())
	case uapi.AttrErrmsg:
		r.Errmsg = ad.String()
	case uapi.AttrReason:
		r.Reason = ad.String()
	case uapi.AttrAt:
		r.At = decodeTimes(ad.Bytes())
	}
}

// decodeTimes reads the times by event.
func decodeTimes(b []byte) map[uapi.Event]time.Time {
	at := make(map[uapi.Event]time.Time)
	for event := range uapi.Event(len(b) / 8) {
		if t := timeOf(b, event); !t.IsZero() {
			at[event] = t
		}
	}
	return at
}

// timeOf reads one of them, in ns of CLOCK_REALTIME; 0 is never.
func timeOf(b []byte, event uapi.Event) time.Time {
	if uint64(len(b)) < 8*(uint64(event)+1) {
		return time.Time{}
	}
	ns := host.Uint64(b[8*event:])
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(ns)).UTC()
}
