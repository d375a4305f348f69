// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/uapi"
)

// Netlink's messages, without allocation: RFC 3549 section 2.2 and linux/netlink.h, linux/genetlink.h.
// Integers are in host byte order, attributes are padded to 4 bytes.
const (
	headerBytes = unix.NLMSG_HDRLEN + genlBytes
	genlBytes   = unix.GENL_HDRLEN
	attrBytes   = unix.SizeofNlAttr
	typeMask    = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
)

// ErrMalformed is what a Bridge returns for a message that is not as the protocol has it.
var ErrMalformed = errors.New("malformed message from the kernel")

var host = binary.NativeEndian

func aligned(n int) int { return (n + 3) &^ 3 }

// An attribute aliases the message that it was cut from.
type attribute struct {
	typ  uapi.Attr
	data []byte
}

// cutAttribute cuts the first attribute off b.
func cutAttribute(b []byte) (a attribute, rest []byte, ok bool) {
	if len(b) < attrBytes {
		return attribute{}, nil, false
	}
	size := int(host.Uint16(b))
	if size < attrBytes || size > len(b) {
		return attribute{}, nil, false
	}
	a = attribute{uapi.Attr(host.Uint16(b[2:]) & typeMask), b[attrBytes:size]}
	return a, b[min(aligned(size), len(b)):], true
}

// u32 is 0 when the attribute has another size, and u64 the same.
func (a attribute) u32() uint32 {
	if len(a.data) != 4 {
		return 0
	}
	return host.Uint32(a.data)
}

func (a attribute) u64() uint64 {
	if len(a.data) != 8 {
		return 0
	}
	return host.Uint64(a.data)
}

// text is a string without its NUL.
func (a attribute) text() []byte {
	if end := bytes.IndexByte(a.data, 0); end >= 0 {
		return a.data[:end]
	}
	return a.data
}

// isText tells whether there is a NUL at the end.
func (a attribute) isText() bool { return len(a.data) > 0 && a.data[len(a.data)-1] == 0 }

// A message is what the kernel sent, and aliases the receive buffer.
type message struct {
	typ      uint16
	flags    uint16
	sequence uint32
	data     []byte
}

// parseMessage reads the one message of a datagram: the kernel sends each in its own to a bridge.
func parseMessage(b []byte) (m message, ok bool) {
	if len(b) < unix.NLMSG_HDRLEN {
		return message{}, false
	}
	size := host.Uint32(b)
	if size < unix.NLMSG_HDRLEN || uint64(size) > uint64(len(b)) {
		return message{}, false
	}
	return message{
		typ:      host.Uint16(b[4:]),
		flags:    host.Uint16(b[6:]),
		sequence: host.Uint32(b[8:]),
		data:     b[unix.NLMSG_HDRLEN:size],
	}, true
}

// Decode reads an INITIATE or a CANCEL, from its generic netlink header on, and wants everything that
// the protocol promises; else the error is ErrMalformed. Bridge.Receive does this. Whoever fakes the
// kernel makes orders with it. It does not allocate.
func (in *Initiate) Decode(data []byte) (uapi.Cmd, error) {
	if len(data) < genlBytes {
		return 0, ErrMalformed
	}
	var seen uint64 // and so all of in is overwritten, but for what need not be there
	in.reasonLen, in.Silent = 0, time.Time{}
	for rest := data[genlBytes:]; len(rest) > 0; {
		a, after, ok := cutAttribute(rest)
		if !ok {
			return 0, ErrMalformed
		}
		rest = after
		switch a.typ {
		case uapi.AttrCluster:
			ok = a.isText() && in.Cluster.set(a.text())
		case uapi.AttrMethod:
			ok = a.isText() && in.Method.set(a.text())
		case uapi.AttrReason:
			in.reasonLen = copy(in.reason[:], a.text())
			ok = a.isText()
		case uapi.AttrAt:
			in.Silent = timeOf(a.data, uapi.EventSilent)
		case uapi.AttrParams:
			in.paramsLen = copy(in.params[:], a.text())
			ok = a.isText() && in.paramsLen == len(a.text())
		case uapi.AttrIncarnation:
			in.Incarnation = Incarnation(a.u64())
			ok = len(a.data) == 8
		case uapi.AttrRequest:
			in.Request = a.u64()
			ok = len(a.data) == 8
		case uapi.AttrNode:
			in.Node = a.u32()
			ok = len(a.data) == 4
		case uapi.AttrAttempt:
			in.Number = a.u32()
			ok = len(a.data) == 4
		case uapi.AttrTimeoutMS:
			in.Timeout = time.Duration(a.u32()) * time.Millisecond
			ok = len(a.data) == 4
		}
		if !ok {
			return 0, ErrMalformed
		}
		if a.typ < 64 {
			seen |= 1 << a.typ
		}
	}
	if seen&initiated != initiated {
		return 0, ErrMalformed
	}
	return uapi.Cmd(data[0]), nil
}

const initiated = 1<<uapi.AttrCluster | 1<<uapi.AttrNode | 1<<uapi.AttrIncarnation | 1<<uapi.AttrRequest |
	1<<uapi.AttrAttempt | 1<<uapi.AttrMethod | 1<<uapi.AttrTimeoutMS | 1<<uapi.AttrParams

// An acknowledgement is the kernel's answer to a message of ours.
type acknowledgement struct {
	errno  syscall.Errno // 0 when it was obeyed
	sent   []byte        // what it answers, from its generic netlink header on; empty when it was obeyed
	text   []byte
	offset int
}

// parseAck reads an NLMSG_ERROR: the errno, the header of our message, all of it when that was refused,
// and attributes.
func parseAck(m message) (ack acknowledgement, ok bool) {
	const fixed = 4 + unix.NLMSG_HDRLEN
	if len(m.data) < fixed {
		return acknowledgement{}, false
	}
	ack.errno = syscall.Errno(-int32(host.Uint32(m.data)))
	rest := m.data[fixed:]
	if m.flags&unix.NLM_F_CAPPED == 0 {
		size := uint64(host.Uint32(m.data[4:])) - unix.NLMSG_HDRLEN
		if size > uint64(len(rest)) {
			return acknowledgement{}, false
		}
		ack.sent, rest = rest[:size], rest[min(uint64(aligned(int(size))), uint64(len(rest))):]
	}
	if m.flags&unix.NLM_F_ACK_TLVS == 0 {
		return ack, true
	}
	for len(rest) > 0 {
		var a attribute
		if a, rest, ok = cutAttribute(rest); !ok {
			return acknowledgement{}, false
		}
		switch a.typ {
		case unix.NLMSGERR_ATTR_MSG:
			ack.text = a.text()
		case unix.NLMSGERR_ATTR_OFFS:
			ack.offset = int(a.u32())
		}
	}
	return ack, true
}

// err is the refusal of a message of ours, or nil.
func (ack acknowledgement) err() error {
	switch {
	case ack.errno == 0:
		return nil
	case len(ack.sent) < genlBytes:
		return ack.errno
	}
	return newRefusal(uapi.Cmd(ack.sent[0]), ack.sent[genlBytes:], ack.errno, string(ack.text), ack.offset)
}

// appendHeader begins a message, which finish ends.
func appendHeader(b []byte, family uint16, cmd uapi.Cmd, flags uint16) []byte {
	b = host.AppendUint32(b, 0)
	b = host.AppendUint16(b, family)
	b = host.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = host.AppendUint64(b, 0) // the sequence, and our port, which the kernel knows better
	return append(b, byte(cmd), uapi.GenlVersion, 0, 0)
}

func finish(b []byte, sequence uint32) {
	host.PutUint32(b, uint32(len(b)))
	host.PutUint32(b[8:], sequence)
}

func appendU32(b []byte, typ uapi.Attr, n uint32) []byte {
	b = appendAttribute(b, typ, 4)
	return host.AppendUint32(b, n)
}

func appendU64(b []byte, typ uapi.Attr, n uint64) []byte {
	b = appendAttribute(b, typ, 8)
	return host.AppendUint64(b, n)
}

func appendText[T string | []byte](b []byte, typ uapi.Attr, text T) []byte {
	b = appendAttribute(b, typ, len(text)+1)
	b = append(b, text...)
	b = append(b, 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func appendAttribute(b []byte, typ uapi.Attr, size int) []byte {
	b = host.AppendUint16(b, uint16(attrBytes+size))
	return host.AppendUint16(b, uint16(typ))
}
