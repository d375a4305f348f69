// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/mdlayher/netlink"

	"github.com/o2fence/o2fence/bridge/uapi"
)

// What the kernel refuses, for errors.Is.
var (
	ErrNotLoaded      = errors.New("module o2fence is not loaded")
	ErrPermission     = errors.New("not permitted") // a capability, or a rule of the bridge's
	ErrBusy           = errors.New("in use")        // a cluster that fences, a method that is carried
	ErrUnderWay       = errors.New("a fence of this node is under way")
	ErrExists         = errors.New("exists already") // a node of a cluster, a region
	ErrStale          = errors.New("answers nothing that is under way")
	ErrNotRegion      = errors.New("not a heartbeat region") // this node's own slot is not there
	ErrNotSocket      = errors.New("not a socket")
	ErrNoHeartbeat    = errors.New("no heartbeat is loaded") // module o2fence_o2cb
	ErrUnknownCluster = errors.New("cluster not joined")
	ErrUnknownNode    = errors.New("no such node")
	ErrUnknownMethod  = errors.New("method not registered")
	ErrUnknownRegion  = errors.New("region not watched")
)

// A Refusal is the kernel's no to a command, in its own words.
type Refusal struct {
	Command uapi.Cmd
	Errno   syscall.Errno
	Text    string // empty when the kernel gave none

	// Blamed is the attribute that the kernel blames, AttrUnspec for none, and Value what was sent
	// in it: a quoted string or a number, empty for what may be secret.
	Blamed uapi.Attr
	Value  string

	Node   string // the name of the node that the blamed method belongs to, if known
	number uint32 // and its number
	owned  bool   // it belongs to a node
}

// Error reads like: node add: method "impi" of node "web2": method not registered.
func (r *Refusal) Error() string {
	parts := []string{r.Command.String()}
	if subject := r.subject(); subject != "" {
		parts = append(parts, subject)
	}
	if r.Text != "" {
		return strings.Join(append(parts, r.Text), ": ")
	}
	return strings.Join(append(parts, r.Errno.Error()), ": ")
}

func (r *Refusal) subject() string {
	switch {
	case r.Blamed == uapi.AttrUnspec:
		return ""
	case r.Blamed == uapi.AttrNode && r.Node != "":
		return fmt.Sprintf("node %q", r.Node)
	}
	subject := strings.TrimSpace(r.Blamed.String() + " " + r.Value)
	if r.owned && r.Node != "" {
		return fmt.Sprintf("%s of node %q", subject, r.Node)
	}
	if r.owned {
		return fmt.Sprintf("%s of node %d", subject, r.number)
	}
	return subject
}

// Unwrap is the errno.
func (r *Refusal) Unwrap() error { return r.Errno }

// Is tells what the refusal means, by its errno and by what is blamed.
func (r *Refusal) Is(target error) bool {
	switch r.Errno {
	case syscall.EPERM, syscall.EACCES:
		return target == ErrPermission
	case syscall.EBUSY:
		return target == ErrBusy
	case syscall.EALREADY:
		return target == ErrUnderWay
	case syscall.EEXIST:
		return target == ErrExists
	case syscall.ESTALE:
		return target == ErrStale
	case syscall.EUCLEAN:
		return target == ErrNotRegion
	case syscall.ENOTSOCK, syscall.EBADF:
		return target == ErrNotSocket && r.Command == uapi.CmdMemallocSocket
	case syscall.ENODEV:
		return target == ErrNoHeartbeat
	case syscall.ENOENT:
		return target == r.missing()
	}
	return false
}

func (r *Refusal) missing() error {
	switch r.Blamed {
	case uapi.AttrCluster:
		return ErrUnknownCluster
	case uapi.AttrNode:
		return ErrUnknownNode
	case uapi.AttrMethod:
		return ErrUnknownMethod
	case uapi.AttrRegion:
		return ErrUnknownRegion
	}
	return nil
}

// explain gives the kernel's answer to a message with these attributes its meaning.
func explain(cmd uapi.Cmd, attrs []byte, err error) error {
	answer, ok := errors.AsType[*netlink.OpError](err)
	if !ok {
		return fmt.Errorf("%v: %w", cmd, err)
	}
	errno, ok := answer.Err.(syscall.Errno) // a system call's is wrapped once more
	if !ok {
		return fmt.Errorf("%v: %w", cmd, err)
	}
	return newRefusal(cmd, attrs, errno, answer.Message, answer.Offset)
}

// newRefusal resolves the offset, which counts from the message's first byte, within the attributes
// that were sent. Kernels before 6.2 cannot put a name into their text; the offset says it.
func newRefusal(cmd uapi.Cmd, attrs []byte, errno syscall.Errno, text string, offset int) error {
	if errno == syscall.ENOENT && text == "" {
		return fmt.Errorf("%v: %w", cmd, ErrNotLoaded) // generic netlink's own: no such family
	}
	r := &Refusal{Command: cmd, Errno: errno, Text: text}
	var node attribute
	for rest := attrs; len(rest) > 0; {
		at := headerBytes + len(attrs) - len(rest)
		var a attribute
		if a, rest, _ = cutAttribute(rest); a.typ == uapi.AttrNode {
			node = a
		}
		if at == offset {
			r.blame(a, node)
		}
	}
	return r
}

func (r *Refusal) blame(a, node attribute) {
	r.Blamed = a.typ
	r.number = node.u32()
	switch a.typ {
	case uapi.AttrMethod, uapi.AttrTimeoutMS, uapi.AttrParams:
		r.owned = node.typ == uapi.AttrNode
	}
	switch {
	case a.typ == uapi.AttrParams:
	case a.typ == uapi.AttrIncarnation:
		r.Value = Incarnation(a.u64()).String()
	case a.typ.Type() == uapi.TypeString:
		r.Value = fmt.Sprintf("%q", a.text())
	case a.typ.Type() == uapi.TypeU32:
		r.Value = fmt.Sprint(a.u32())
	case a.typ.Type() == uapi.TypeU64:
		r.Value = fmt.Sprint(a.u64())
	}
}
