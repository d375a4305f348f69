// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/uapi"
)

// A fakeKernel is the other end of a bridge's socket.
type fakeKernel struct {
	t  *testing.T
	fd int
	in [4096]byte
}

func openFake(t *testing.T) (*Bridge, *fakeKernel) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := newBridge(fds[0], family.ID)
	t.Cleanup(func() { b.Close(); unix.Close(fds[1]) })
	return b, &fakeKernel{t: t, fd: fds[1]}
}

func (k *fakeKernel) send(message []byte) {
	if _, err := unix.Write(k.fd, message); err != nil {
		k.t.Error(err)
	}
}

// next is the next message of the bridge, in a buffer that the one after it overwrites.
func (k *fakeKernel) next() []byte {
	n, err := unix.Read(k.fd, k.in[:])
	if err != nil {
		k.t.Error(err)
	}
	return k.in[:n]
}

// ackTo makes an acknowledgement as netlink_ack does: of what it refuses it sends all back.
func ackTo(t testing.TB, sent []byte, errno unix.Errno, tlvs ...any) []byte {
	t.Helper()
	var flags netlink.HeaderFlags
	if len(tlvs) > 0 {
		flags |= unix.NLM_F_ACK_TLVS
	}
	if errno == 0 {
		flags |= unix.NLM_F_CAPPED
		sent = sent[:unix.NLMSG_HDRLEN]
	}
	sequence := host.Uint32(sent[8:])
	data := host.AppendUint32(nil, uint32(-int32(errno)))
	data = append(data, sent...)
	return datagram(t, netlink.Error, flags, sequence, append(data, encode(t, tlvs...)...))
}

func datagram(t testing.TB, typ netlink.HeaderType, flags netlink.HeaderFlags, sequence uint32, data []byte) []byte {
	t.Helper()
	m := netlink.Message{Header: netlink.Header{Type: typ, Flags: flags, Sequence: sequence}, Data: data}
	m.Header.Length = uint32(unix.NLMSG_HDRLEN + len(data))
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// asked is an INITIATE or a CANCEL with all that the kernel puts into it.
func asked(t testing.TB, cmd uapi.Cmd, pairs ...any) []byte {
	t.Helper()
	if pairs == nil {
		pairs = append(record(t), uapi.AttrTimeoutMS, 20000, uapi.AttrParams, "addr=10.0.0.2\n")
	}
	m := genetlink.Message{Header: genetlink.Header{Command: uint8(cmd), Version: 1}, Data: encode(t, pairs...)}
	data, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return datagram(t, netlink.HeaderType(family.ID), 0, 0, data)
}

func name(s string) (n Name) {
	n.set([]byte(s))
	return n
}

var attempt = Attempt{Cluster: name("web"), Node: 2, Incarnation: 0xfeed, Request: 9, Number: 1}

// receive hands what the bridge receives on, as a daemon does.
func receive(b *Bridge) <-chan Attempt {
	attempts := make(chan Attempt)
	go func() {
		defer close(attempts)
		var in Initiate
		for {
			if _, err := b.Receive(&in); err != nil {
				return
			}
			attempts <- in.Attempt
		}
	}()
	return attempts
}

func TestABridgeReceivesWhatTheKernelAsks(t *testing.T) {
	b, kernel := openFake(t)
	kernel.send(asked(t, uapi.CmdInitiate))
	kernel.send(asked(t, uapi.CmdCancel))
	var in Initiate
	if cmd, err := b.Receive(&in); cmd != uapi.CmdInitiate || err != nil {
		t.Fatal(cmd, err)
	}
	if !in.Method.Is("ipmi") || in.Timeout != 20*time.Second || string(in.Params()) != "addr=10.0.0.2\n" {
		t.Errorf("%v, %v, %q", in.Method, in.Timeout, in.Params())
	}
	if in.Attempt != attempt {
		t.Errorf("%+v, want %+v", in.Attempt, attempt)
	}
	if string(in.Reason()) != "silent" || in.Silent.UnixNano() != 1_000_000_000 {
		t.Errorf("%q, %v", in.Reason(), in.Silent)
	}
	if cmd, err := b.Receive(&in); cmd != uapi.CmdCancel || err != nil || in.Attempt != attempt {
		t.Errorf("%v, %v, %+v", cmd, err, in.Attempt)
	}
}

func TestAnAnswerIsSentAsTheProtocolHasIt(t *testing.T) {
	b, kernel := openFake(t)
	answer := Answer{attempt, unix.ETIMEDOUT, "no answer" + strings.Repeat("é", 200)}
	if err := b.Fenced(&answer); err != nil {
		t.Fatal(err)
	}
	sent := kernel.next()
	if cmd := uapi.Cmd(sent[16]); cmd != uapi.CmdFenced || host.Uint16(sent[4:]) != family.ID {
		t.Errorf("sent %v", cmd)
	}
	if flags := host.Uint16(sent[6:]); flags != unix.NLM_F_REQUEST {
		t.Errorf("with flags %#x: to be acknowledged costs time that others wait for", flags)
	}
	want := []string{
		`cluster "web"`, "node 2", "incarnation 65261", "request 9", "attempt 1", "errno 110",
		fmt.Sprintf("errmsg %q", "no answer"+strings.Repeat("é", 123)),
	}
	if diff := cmp.Diff(want, spell(t, sent[headerBytes:])); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestARefusedAnswerIsReceived(t *testing.T) {
	b, kernel := openFake(t)
	if err := b.Fenced(&Answer{Attempt: attempt}); err != nil {
		t.Fatal(err)
	}
	sent := kernel.next()
	at := offsetOf(uapi.AttrRequest, "")(sent)
	kernel.send(ackTo(t, sent, unix.ESTALE, unix.NLMSGERR_ATTR_MSG, "stale request", unix.NLMSGERR_ATTR_OFFS, at))
	kernel.send(asked(t, uapi.CmdInitiate))
	var in Initiate
	if _, err := b.Receive(&in); !errors.Is(err, ErrStale) || err.Error() != "fenced: request 9: stale request" {
		t.Error(err)
	}
	if cmd, err := b.Receive(&in); cmd != uapi.CmdInitiate || err != nil {
		t.Errorf("after it: %v, %v", cmd, err)
	}
}

func TestAMethodThatCannotBeBoundIsNamed(t *testing.T) {
	b, kernel := openFake(t)
	receive(b)
	bound := make(chan error)
	go func() { bound <- b.Bind(t.Context(), []string{"ipmi", "snmp"}) }()
	kernel.send(ackTo(t, kernel.next(), 0))
	sent := kernel.next()
	kernel.send(ackTo(t, sent, unix.EBUSY, unix.NLMSGERR_ATTR_MSG, "another bridge or a module carries it",
		unix.NLMSGERR_ATTR_OFFS, headerBytes))
	err := <-bound
	if !errors.Is(err, ErrBusy) || err.Error() != `bind: method "snmp": another bridge or a module carries it` {
		t.Error(err)
	}
}

func TestALateAcknowledgementIsNotTakenForTheNext(t *testing.T) {
	b, kernel := openFake(t)
	receive(b)
	ctx, cancel := context.WithCancel(t.Context())
	bound := make(chan error)
	go func() { bound <- b.Bind(ctx, []string{"ipmi"}) }()
	late := ackTo(t, kernel.next(), unix.EBUSY, unix.NLMSGERR_ATTR_MSG, "another bridge or a module carries it")
	cancel()
	if err := <-bound; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go func() { bound <- b.Bind(t.Context(), []string{"ipmi"}) }()
	sent := kernel.next()
	kernel.send(late)
	kernel.send(ackTo(t, sent, 0))
	if err := <-bound; err != nil {
		t.Error(err)
	}
}

func TestCloseEndsWhateverWaits(t *testing.T) {
	b, kernel := openFake(t)
	attempts := receive(b)
	bound := make(chan error)
	go func() { bound <- b.Bind(t.Context(), []string{"ipmi"}) }()
	kernel.next()
	b.Close()
	kernel.send(ackTo(t, kernel.next(), 0))
	if err := <-bound; !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if _, more := <-attempts; more {
		t.Error("something was received from a closed bridge")
	}
}

func TestNothingIsAllocatedBetweenInitiateAndFenced(t *testing.T) {
	b, kernel := openFake(t)
	initiate := asked(t, uapi.CmdInitiate)
	var in Initiate
	var answer Answer
	allocated := testing.AllocsPerRun(200, func() {
		kernel.send(initiate)
		if _, err := b.Receive(&in); err != nil {
			t.Error(err)
		}
		answer.Attempt = in.Attempt
		if err := b.Fenced(&answer); err != nil {
			t.Error(err)
		}
		kernel.next()
	})
	if allocated != 0 {
		t.Errorf("%v allocations per fence", allocated)
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	good := asked(t, uapi.CmdInitiate)
	long := strings.Repeat("x", 2000)
	tests := map[string][]byte{
		"empty header":         good[:3],
		"cut short":            good[:len(good)-8],
		"no command":           datagram(t, netlink.HeaderType(family.ID), 0, 0, nil),
		"nothing said":         asked(t, uapi.CmdInitiate, uapi.AttrPortID, 1),
		"number of other size": asked(t, uapi.CmdInitiate, append(record(t), uapi.AttrNode, uint64(1))...),
		"name too long":        asked(t, uapi.CmdInitiate, append(record(t), uapi.AttrMethod, long[:65])...),
		"parameters too long":  asked(t, uapi.CmdInitiate, append(record(t), uapi.AttrParams, long)...),
		"text without end":     asked(t, uapi.CmdInitiate, append(record(t), uapi.AttrCluster, []byte("web"))...),
		"ack without errno":    datagram(t, netlink.Error, 0, 1, nil),
		"ack cut short":        datagram(t, netlink.Error, unix.NLM_F_ACK_TLVS, 1, append([]byte{1, 0, 0, 0}, good[:24]...)),
	}
	for what, message := range tests {
		b, kernel := openFake(t)
		kernel.send(message)
		var in Initiate
		if cmd, err := b.Receive(&in); err != ErrMalformed {
			t.Errorf("%s: %v, %v", what, cmd, err)
		}
	}
}

func FuzzReceive(f *testing.F) {
	initiate := asked(f, uapi.CmdInitiate)
	f.Add(initiate)
	f.Add(asked(f, uapi.CmdCancel))
	f.Add(ackTo(f, initiate, unix.ESTALE, unix.NLMSGERR_ATTR_MSG, "stale", unix.NLMSGERR_ATTR_OFFS, 20))
	f.Add(datagram(f, netlink.Error, unix.NLM_F_ACK_TLVS, 1, append(make([]byte, 4), initiate...)))
	var in Initiate
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parseMessage(b)
		if !ok {
			return
		}
		if ack, ok := parseAck(m); ok && ack.errno != 0 {
			_ = ack.err().Error()
		}
		if _, err := in.Decode(m.data); err != nil {
			return
		}
		// What was understood can be answered, and the answer has room.
		b = appendText(appendHeader(make([]byte, 0, fencedBytes), m.typ, uapi.CmdFenced, 0), uapi.AttrCluster, in.Cluster.String())
		if a, _, ok := cutAttribute(b[headerBytes:]); !ok || string(a.text()) != in.Cluster.String() {
			t.Errorf("%q comes back as %q", in.Cluster, a.text())
		}
	})
}

// The rest is done with the real kernel, whose family of families is always there.

func TestTheKernelsOwnAcknowledgementIsUnderstood(t *testing.T) {
	socket, err := openSocket()
	if err != nil {
		t.Fatal(err)
	}
	b := newBridge(socket, unix.GENL_ID_CTRL)
	defer b.Close()
	receive(b)
	m := appendHeader(nil, b.family, uapi.Cmd(unix.CTRL_CMD_GETFAMILY), unix.NLM_F_ACK)
	m = appendText(m, unix.CTRL_ATTR_FAMILY_NAME, strings.Repeat("x", 99))
	refusal, ok := errors.AsType[*Refusal](b.call(t.Context(), m))
	if !ok || refusal.Errno != unix.EINVAL || refusal.Text == "" || refusal.Blamed != unix.CTRL_ATTR_FAMILY_NAME {
		t.Errorf("%+v", refusal)
	}
}

// The kernel's bindings end when the last one has let go of the socket.
func TestCloseWakesWhoReceivesFromTheKernel(t *testing.T) {
	fd, err := openSocket()
	if err != nil {
		t.Fatal(err)
	}
	b := newBridge(fd, unix.GENL_ID_CTRL)
	attempts := receive(b)
	for entered := false; !entered; time.Sleep(time.Millisecond) {
		b.socket.mu.Lock()
		entered = b.socket.users > 0
		b.socket.mu.Unlock()
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	<-attempts
	if _, err := unix.Getsockname(fd); err != unix.EBADF {
		t.Errorf("the socket is still there: %v", err)
	}
	if err := b.Close(); err != os.ErrClosed {
		t.Errorf("closed once more: %v", err)
	}
	if err := b.Fenced(new(Answer)); err != os.ErrClosed {
		t.Errorf("an answer to nobody: %v", err)
	}
}

func TestNobodyButTheKernelCanSendToABridge(t *testing.T) {
	socket, err := openSocket()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	bridge, err := unix.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stranger)
	if err := unix.Sendto(stranger, asked(t, uapi.CmdInitiate), 0, bridge); err != unix.ECONNREFUSED {
		t.Error(err)
	}
}

func TestAMessageForEveryNodeHasRoomInTheSocket(t *testing.T) {
	socket, err := openSocket()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	room, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if room < waitingBytes || err != nil {
		t.Errorf("%d bytes, %v, want %d", room, err, waitingBytes)
	}
}
