// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"syscall"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"github.com/o2fence/o2fence/bridge/uapi"
)

// listenBytes is what may wait in the socket for a slow reader: some 500 events.
const listenBytes = 2 << 20

// A Listener has subscribed to the events: none after Listen is missed without being told. A reader
// that wants the state and then every change listens first, and asks for the state after that.
type Listener struct {
	conn   *genetlink.Conn
	family uint16
}

// Listen subscribes to the events. It needs CAP_NET_ADMIN in the initial user namespace. The error is
// ErrNotLoaded when there is no module to listen to. When the module is unloaded later, the
// events just cease.
func Listen() (*Listener, error) {
	client, err := Dial()
	if err != nil {
		return nil, err
	}
	if err := subscribe(client); err != nil {
		client.Close()
		return nil, fmt.Errorf("events: %w", err)
	}
	return &Listener{conn: client.conn, family: client.family.ID}, nil
}

func subscribe(c *Client) error {
	for _, group := range c.family.Groups {
		if group.Name == uapi.McgrpEvents {
			return errors.Join(c.conn.SetReadBuffer(listenBytes), c.conn.JoinGroup(group.ID))
		}
	}
	return fmt.Errorf("the module has no group %q", uapi.McgrpEvents)
}

// Close ends the subscription and any Events.
func (l *Listener) Close() error { return l.conn.Close() }

// Events gives each event as it comes. Events that were lost are told by one whose Lost is set. It
// ends with an error: that of the context, which closes the Listener, or the socket's.
func (l *Listener) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		stop := context.AfterFunc(ctx, func() { l.conn.Close() })
		defer stop()
		for {
			events, err := l.next()
			if err != nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				yield(Event{}, fmt.Errorf("events: %w", err))
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

func (l *Listener) next() ([]Event, error) {
	messages, headers, err := l.conn.Receive()
	if errors.Is(err, syscall.ENOBUFS) {
		return []Event{{Lost: true}}, nil
	}
	if err != nil {
		return nil, err
	}
	var events []Event
	for i, m := range messages {
		if headers[i].Header.Type != netlink.HeaderType(l.family) || uapi.Cmd(m.Header.Command) != uapi.CmdEvent {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data)
		if err != nil {
			return nil, err
		}
		events = append(events, decodeEvent(ad))
		if err := ad.Err(); err != nil {
			return nil, err
		}
	}
	return events, nil
}

func decodeEvent(ad *netlink.AttributeDecoder) (e Event) {
	for ad.Next() {
		if uapi.Attr(ad.Type()) == uapi.AttrEvent {
			e.Event = uapi.Event(ad.Uint32())
		} else {
			e.Request.decode(ad)
		}
	}
	return e
}
