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
// comes in the acknowledgement that Bind waits for. Any number of others may call Fenced.
type Bridge struct {
	socket socket
	family uint16
	in     [receiveBytes]byte

	binding sync.Mutex // one Bind at a time
	bound   chan error // holds one: the kernel's answer to its message

	mu       sync.Mutex
	sequence uint32 // of the last message of a Bind
	awaited  uint32 // whose answer is awaited; 0: none
}

const (
	// The kernel allocates a message to a bridge within a page, of which its own bookkeeping
	// takes a part (NLMSG_DEFAULT_SIZE); twice that for architectures with larger pages.
	receiveBytes = 8 << 10

	// A FENCED has 20 bytes of headers, and at most 72 for the cluster, 8 for each of node,
	// attempt and errno, 12 for each of incarnation and request, 260 for the text.
	fencedBytes = 512

	// What the kernel charges a socket for: the message as it allocated it and its sk_buff. For
	// each node there can be an INITIATE, the CANCEL after it (a page and 256 bytes each at most) and
	// the refusal of a FENCED (1024 and 256) unread at a time. With less, an INITIATE fails with EAGAIN
	// and the next method is tried.
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
	return &Bridge{socket: socket{fd: fd}, family: family, bound: make(chan error, 1)}
}

// Close ends all bindings: the kernel moves what was asked on to the next methods as soon as nobody is
// in Receive any more. Receive and Bind return os.ErrClosed.
func (b *Bridge) Close() error {
	err := b.socket.close()
	b.settle(os.ErrClosed)
	return err
}

// Bind offers to carry the methods. The error is ErrPermission, with the rule that is broken, when
// the process does not keep the memory rules (see memsafe), and ErrBusy when a method is carried by
// another bridge or a module. Some may be bound after an error: close the Bridge.
func (b *Bridge) Bind(ctx context.Context, methods []string) error {
	b.binding.Lock()
	defer b.binding.Unlock()
	for _, method := range methods {
		m := appendHeader(nil, b.family, uapi.CmdBind, unix.NLM_F_ACK)
		if err := b.call(ctx, appendText(m, uapi.AttrMethod, method)); err != nil {
			return err
		}
	}
	return nil
}

// call sends a message and waits for its acknowledgement. The caller holds Bridge.binding.
func (b *Bridge) call(ctx context.Context, message []byte) error {
	finish(message, b.await())
	if err := b.socket.send(message); err != nil {
		b.forget()
		return err
	}
	select {
	case err := <-b.bound:
		return err
	case <-ctx.Done():
		b.forget()
		return context.Cause(ctx)
	}
}

// await returns the sequence of the message whose acknowledgement is awaited from now on.
func (b *Bridge) await() uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sequence++
	if b.sequence == 0 {
		b.sequence++ // 0 has what nobody waits for
	}
	b.awaited = b.sequence
	return b.awaited
}

// forget makes a late acknowledgement a stranger's.
func (b *Bridge) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.awaited = 0
	select {
	case <-b.bound:
	default:
	}
}

// settle ends the wait for an acknowledgement, if there is one.
func (b *Bridge) settle(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settleLocked(err)
}

func (b *Bridge) settleLocked(err error) {
	if b.awaited != 0 {
		b.awaited = 0
		b.bound <- err
	}
}

// Fenced gives the answer to an attempt. When it returns nil the kernel has taken the answer, or has
// refused it, which Receive tells: the kernel obeys in the system call, and acknowledges nothing that
// it has obeyed, for whoever fences many nodes at once would spend a third of the time on that. After
// an error the kernel has not had the answer, and it may be given again.
func (b *Bridge) Fenced(a *Answer) error {
	var room [fencedBytes]byte
	m := appendHeader(room[:0], b.family, uapi.CmdFenced, 0)
	m = appendText(m, uapi.AttrCluster, a.Cluster.text[:a.Cluster.size])
	m = appendU32(m, uapi.AttrNode, a.Node)
	m = appendU64(m, uapi.AttrIncarnation, uint64(a.Incarnation))
	m = appendU64(m, uapi.AttrRequest, a.Request)
	m = appendU32(m, uapi.AttrAttempt, a.Number)
	m = appendU32(m, uapi.AttrErrno, uint32(a.Errno))
	m = appendText(m, uapi.AttrErrmsg, shorten(a.Errmsg))
	finish(m, 0)
	return b.socket.send(m)
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

// Receive waits for the next CmdInitiate or CmdCancel. The Attempt of a CANCEL equals that of its
// INITIATE, and an answer to it would be stale.
//
// After these errors Receive may be called again: a Refusal, of an answer, which is ErrStale for
// anything but the attempt under way and ErrPermission when this Bridge was not asked; ErrMalformed;
// and ENOBUFS, which says that the kernel could not deliver something. Any other is the end, as
// os.ErrClosed is after Close.
func (b *Bridge) Receive(in *Initiate) (uapi.Cmd, error) {
	for {
		n, err := b.socket.receive(b.in[:])
		if err != nil {
			b.settle(err) // an acknowledgement may be what was lost
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

// acknowledge gives the kernel's answer to whom it is for. Of those with sequence 0, which nobody waits
// for, it returns the refusals.
func (b *Bridge) acknowledge(m message) error {
	ack, ok := parseAck(m)
	if !ok {
		return ErrMalformed
	}
	if m.sequence == 0 {
		return ack.err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.sequence == b.awaited {
		b.settleLocked(ack.err())
	}
	return nil
}
