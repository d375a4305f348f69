// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/uapi"
)

// A Name is a cluster's or a method's name, in place.
type Name struct {
	size uint8
	text [uapi.NameMax]byte
}

// String is the name. It allocates.
func (n Name) String() string { return string(n.text[:n.size]) }

// Is tells whether the name is s, and does not allocate.
func (n *Name) Is(s string) bool { return string(n.text[:n.size]) == s }

// set overwrites all of it, so that equal names are equal.
func (n *Name) set(text []byte) bool {
	n.size = uint8(copy(n.text[:], text))
	clear(n.text[n.size:])
	return int(n.size) == len(text)
}

// An Attempt names one try to fence one node: all that an answer must name to be taken (R9). Equal
// ones are the same try.
type Attempt struct {
	Cluster     Name
	Node        uint32
	Incarnation Incarnation
	Request     uint64
	Number      uint32 // counts from 1 within its request
}

// An Initiate is what the kernel asks of a bridge, or no longer wants. It has room for all there
// can be, so that one can be used again and again.
type Initiate struct {
	Attempt
	Method    Name
	Timeout   time.Duration // after which the kernel goes on to the next method
	Silent    time.Time     // when the node was found silent; zero: it was not
	reason    [uapi.TextMax]byte
	reasonLen int
	params    [uapi.ParamsMax]byte
	paramsLen int
}

// Reason says for people why the request was made. It aliases in, and is empty where the kernel says
// none.
func (in *Initiate) Reason() []byte { return in.reason[:in.reasonLen] }

// Params are the method's parameters, as the configuration was digested. They alias in.
func (in *Initiate) Params() []byte { return in.params[:in.paramsLen] }

// An Answer says how an attempt has ended. Errno 0 says that the node is proven off, or cut off from
// the disks, and nothing less: unknown is not off.
type Answer struct {
	Attempt
	Errno  syscall.Errno
	Errmsg string // for the history, up to 255 bytes; the rest is cut off
}

// A Bridge carries fence methods that live in user space (R18). Between Receive and the return of
// Fenced nothing is allocated, but for the error when there is one.
//
// One goroutine at a time calls Receive, and there always is one, from before Bind until Close: there
// come in the acknowledgements that Bind and Fenced wait for. Any number of others may call Fenced.
type Bridge struct {
	socket socket
	family uint16
	in     [receiveBytes]byte

	idle chan *call

	mu       sync.Mutex
	sequence uint32
	calls    [uapi.NodesMax]call
}

// A call is a message of ours that waits for its acknowledgement. There are as many as nodes, so
// there is one for every request that can be under way.
type call struct {
	message  []byte
	sequence uint32     // 0 when nothing is awaited; Bridge.mu
	answered chan error // holds one
}

const (
	// The kernel allocates a message to a bridge within a page, of which its own bookkeeping
	// takes a part (NLMSG_DEFAULT_SIZE); twice that for architectures with larger pages.
	receiveBytes = 8 << 10

	// A FENCED has 20 bytes of headers, and at most 72 for the cluster, 8 for each of node,
	// attempt and errno, 12 for each of incarnation and request, 260 for the text.
	fencedBytes = 512

	// What the kernel charges a socket for: the message as it allocated it and its sk_buff. For
	// each node there can be an INITIATE, the CANCEL after it (a page and 256 bytes each) and the
	// acknowledgement of the FENCED (1024 and 256) unread at a time. With less, an INITIATE fails
	// with EAGAIN and the next method is tried.
	waitingBytes = uapi.NodesMax * (2*(4096+256) + 1024 + 256)
)

// OpenBridge opens the socket that methods can be bound to. It needs CAP_NET_ADMIN in the initial
// user namespace. The error is ErrNotLoaded when there is no module to serve.
func OpenBridge() (*Bridge, error) {
	client, err := Dial()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	fd, err := openSocket()
	if err != nil {
		return nil, err
	}
	return newBridge(fd, client.family.ID), nil
}

// newBridge takes the file descriptor over.
func newBridge(fd int, family uint16) *Bridge {
	b := &Bridge{socket: socket{fd: fd}, family: family, idle: make(chan *call, uapi.NodesMax)}
	for i := range b.calls {
		b.calls[i].message = make([]byte, 0, fencedBytes)
		b.calls[i].answered = make(chan error, 1)
		b.idle <- &b.calls[i]
	}
	return b
}

// Close ends all bindings: the kernel moves what was asked on to the next methods as soon as nobody is
// in Receive any more. Receive and whatever waits in Fenced return os.ErrClosed.
func (b *Bridge) Close() error {
	err := b.socket.close()
	b.failAll(os.ErrClosed)
	return err
}

// Bind offers to carry the methods. The error is ErrPermission, with the rule that is broken, when
// the process does not keep the memory rules (see memsafe), and ErrBusy when a method is carried by
// another bridge or a module. Some may be bound after an error: close the Bridge.
func (b *Bridge) Bind(ctx context.Context, methods []string) error {
	for _, method := range methods {
		c, err := b.begin(ctx, uapi.CmdBind)
		if err != nil {
			return err
		}
		c.message = appendText(c.message, uapi.AttrMethod, method)
		if err := b.finish(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// Fenced gives the answer to an attempt, and waits until the kernel has taken or refused it. The
// error is ErrStale for anything but the attempt under way, ErrPermission when this Bridge was not
// asked. After any other error it is not known whether the answer was taken: it may be given again,
// for an answer that was taken makes the second stale.
func (b *Bridge) Fenced(ctx context.Context, a *Answer) error {
	c, err := b.begin(ctx, uapi.CmdFenced)
	if err != nil {
		return err
	}
	m := c.message
	m = appendText(m, uapi.AttrCluster, a.Cluster.text[:a.Cluster.size])
	m = appendU32(m, uapi.AttrNode, a.Node)
	m = appendU64(m, uapi.AttrIncarnation, uint64(a.Incarnation))
	m = appendU64(m, uapi.AttrRequest, a.Request)
	m = appendU32(m, uapi.AttrAttempt, a.Number)
	m = appendU32(m, uapi.AttrErrno, uint32(a.Errno))
	c.message = appendText(m, uapi.AttrErrmsg, shorten(a.Errmsg))
	return b.finish(ctx, c)
}

// shorten cuts a text to what the protocol carries, between two characters.
func shorten(text string) string {
	if i := strings.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	if len(text) <= uapi.TextMax {
		return text
	}
	end := uapi.TextMax
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// begin touches ctx.Done, which may have to start a timer, only when all calls wait.
func (b *Bridge) begin(ctx context.Context, cmd uapi.Cmd) (*call, error) {
	var c *call
	select {
	case c = <-b.idle:
	default:
		select {
		case c = <-b.idle:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	c.message = appendHeader(c.message[:0], b.family, cmd)
	return c, nil
}

// finish sends a call and waits for its acknowledgement.
func (b *Bridge) finish(ctx context.Context, c *call) error {
	defer func() { b.idle <- c }()
	b.expect(c)
	if err := b.socket.send(c.message); err != nil {
		b.forget(c)
		return err
	}
	select {
	case err := <-c.answered:
		return err
	case <-ctx.Done():
		b.forget(c)
		return context.Cause(ctx)
	}
}

func (b *Bridge) expect(c *call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sequence++
	if b.sequence == 0 {
		b.sequence++ // 0 is what the kernel sends unasked
	}
	c.sequence = b.sequence
	finish(c.message, c.sequence)
}

// forget makes a late acknowledgement of the call a stranger's.
func (b *Bridge) forget(c *call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.sequence = 0
	select {
	case <-c.answered:
	default:
	}
}

// Receive waits for the next CmdInitiate or CmdCancel. The Attempt of a CANCEL equals that of its
// INITIATE, and an answer to it would be stale.
//
// After ErrMalformed, and after ENOBUFS, which says that the kernel could not deliver something,
// Receive may be called again. Any other error is the end, as os.ErrClosed is after Close.
func (b *Bridge) Receive(in *Initiate) (uapi.Cmd, error) {
	for {
		n, err := b.socket.receive(b.in[:])
		if err != nil {
			b.failAll(err) // an acknowledgement may be what was lost
			return 0, err
		}
		m, ok := parseMessage(b.in[:n])
		switch {
		case !ok:
			return 0, ErrMalformed
		case m.typ == unix.NLMSG_ERROR:
			if err := b.acknowledge(m); err != nil {
				return 0, err
			}
			// Who waited for it goes on first: while this goroutine blocks in the system call it keeps
			// its processor from the others, until the runtime notices.
			runtime.Gosched()
		case m.typ == b.family:
			return in.Decode(m.data)
		}
	}
}

func (b *Bridge) acknowledge(m message) error {
	ack, ok := parseAck(m)
	if !ok {
		return ErrMalformed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.calls {
		if c := &b.calls[i]; c.sequence == m.sequence {
			c.answer(ack.err(c.message))
		}
	}
	return nil
}

func (b *Bridge) failAll(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.calls {
		b.calls[i].answer(err)
	}
}

// answer ends the wait, if there is one. Caller holds Bridge.mu.
func (c *call) answer(err error) {
	if c.sequence != 0 {
		c.sequence = 0
		c.answered <- err
	}
}
