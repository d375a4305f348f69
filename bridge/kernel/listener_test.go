// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/uapi"
)

// event is a multicast message of a family.
func event(t *testing.T, family uint16, pairs ...any) netlink.Message {
	t.Helper()
	m := genetlink.Message{Header: genetlink.Header{Command: uint8(uapi.CmdEvent)}, Data: encode(t, pairs...)}
	data, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(family)}, Data: data}
}

func TestLostEventsAreTold(t *testing.T) {
	queue := []struct {
		message netlink.Message
		err     error
	}{
		{message: event(t, family.ID, append(record(t), uapi.AttrEvent, int(uapi.EventStarted))...)},
		{message: event(t, 16)}, // somebody else's
		{err: unix.ENOBUFS},
		{message: event(t, family.ID, append(record(t), uapi.AttrEvent, int(uapi.EventFailed))...)},
		{err: unix.EBADF},
	}
	conn := genetlink.NewConn(nltest.Dial(func([]netlink.Message) ([]netlink.Message, error) {
		next := queue[0]
		queue = queue[1:]
		if next.err != nil {
			return nil, next.err
		}
		return []netlink.Message{next.message}, nil
	}))
	var got []Event
	var end error
	for e, err := range (&Listener{conn: conn, family: family.ID}).Events(t.Context()) {
		if end = err; err == nil {
			got = append(got, e)
		}
	}
	want := []Event{
		{Event: uapi.EventStarted, Request: recorded},
		{Lost: true},
		{Event: uapi.EventFailed, Request: recorded},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !errors.Is(end, unix.EBADF) {
		t.Error(end)
	}
}

func TestALostEventIsNothingElseInJSON(t *testing.T) {
	text, err := json.Marshal(Event{Lost: true})
	if string(text) != `{"lost":true}` || err != nil {
		t.Errorf("%s, %v", text, err)
	}
}

func TestFollowingEventsEndsWithTheContext(t *testing.T) {
	conn, err := genetlink.Dial(nil) // a real socket, on which nothing comes
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		for _, err := range (&Listener{conn: conn}).Events(ctx) {
			ended <- err
		}
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
