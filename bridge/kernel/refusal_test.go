// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/uapi"
)

// dialRefusing is a Client whose kernel answers like netlink_ack of Linux: the errno, the request,
// and the text and the offset as attributes.
func dialRefusing(t *testing.T, errno syscall.Errno, text string, offset func(sent []byte) int) *Client {
	t.Helper()
	conn := nltest.Dial(func(reqs []netlink.Message) ([]netlink.Message, error) {
		req := reqs[0]
		sent, err := req.MarshalBinary()
		if err != nil {
			return nil, err
		}
		tlvs := netlink.NewAttributeEncoder()
		if text != "" {
			tlvs.String(unix.NLMSGERR_ATTR_MSG, text)
		}
		if n := offset(sent); n != 0 {
			tlvs.Uint32(unix.NLMSGERR_ATTR_OFFS, uint32(n))
		}
		attrs, err := tlvs.Encode()
		data := append(nlenc.Int32Bytes(-int32(errno)), sent...)
		header := req.Header
		header.Type, header.Flags = netlink.Error, netlink.AcknowledgeTLVs
		return []netlink.Message{{Header: header, Data: append(data, attrs...)}}, err
	})
	return &Client{conn: genetlink.NewConn(conn), family: family}
}

func offsetOf(attr uapi.Attr, value string) func([]byte) int {
	return func(sent []byte) int {
		for at := headerBytes; at < len(sent); {
			size := int(host.Uint16(sent[at:]))
			if uapi.Attr(host.Uint16(sent[at+2:])) == attr && strings.Contains(string(sent[at:at+size]), value) {
				return at
			}
			at += aligned(size)
		}
		return 0
	}
}

func nowhere([]byte) int { return 0 }

func TestRefusalsNameWhatTheKernelBlames(t *testing.T) {
	tests := []struct {
		errno  syscall.Errno
		text   string
		offset func([]byte) int
		want   string
		is     error
	}{
		{
			unix.ENOENT, "method not registered", offsetOf(uapi.AttrMethod, "impi"),
			`node add: method "impi" of node "web2": method not registered`, ErrUnknownMethod,
		},
		{
			unix.ERANGE, "integer out of range", offsetOf(uapi.AttrTimeoutMS, "\x01\x00\x00\x00"),
			`node add: timeout ms 1 of node "web2": integer out of range`, unix.ERANGE,
		},
		{
			unix.EINVAL, "too long", offsetOf(uapi.AttrParams, "addr"),
			`node add: params of node "web2": too long`, unix.EINVAL,
		},
		{
			unix.EEXIST, "already joined", offsetOf(uapi.AttrNode, "\x02"),
			`node add: node "web2": already joined`, ErrExists,
		},
		{unix.EPERM, "", nowhere, "node add: operation not permitted", ErrPermission},
		{unix.ENOENT, "", nowhere, "node add: module o2fence is not loaded", ErrNotLoaded},
		{unix.EINVAL, "cut short", func([]byte) int { return 9999 }, "node add: cut short", unix.EINVAL},
	}
	for _, test := range tests {
		err := dialRefusing(t, test.errno, test.text, test.offset).Join(t.Context(), join)
		if err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %v", err, test.want)
		}
		if !errors.Is(err, test.is) {
			t.Errorf("%v is not %v", err, test.is)
		}
	}
}

func TestRefusalsAreToldApart(t *testing.T) {
	tests := []struct {
		refusal Refusal
		is      error
	}{
		{Refusal{Errno: unix.EBUSY}, ErrBusy},
		{Refusal{Errno: unix.EALREADY}, ErrUnderWay},
		{Refusal{Errno: unix.ESTALE}, ErrStale},
		{Refusal{Errno: unix.EUCLEAN}, ErrNotRegion},
		{Refusal{Errno: unix.ENODEV}, ErrNoHeartbeat},
		{Refusal{Errno: unix.ENOENT, Blamed: uapi.AttrCluster}, ErrUnknownCluster},
		{Refusal{Errno: unix.ENOENT, Blamed: uapi.AttrNode}, ErrUnknownNode},
		{Refusal{Errno: unix.ENOENT, Blamed: uapi.AttrRegion}, ErrUnknownRegion},
	}
	for _, test := range tests {
		for _, other := range tests {
			if got := errors.Is(&test.refusal, other.is); got != (test.is == other.is) {
				t.Errorf("%v is %v: %v", &test.refusal, other.is, got)
			}
		}
	}
}
