// SPDX-License-Identifier: GPL-2.0-only

package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SocketFile is where administrators' tools find the Desk of their machine. Who may open it may
// vouch: that is root.
const SocketFile = "/run/o2fence/desk"

const (
	maxMessage = 64 << 10         // bytes of a call: far more than any
	callTime   = 5 * time.Second  // for a call to be read or its reply to be written
	takenTime  = 10 * time.Second // for the cluster to take an answer: several repetitions
)

// What one line of JSON carries in each direction; then the connection is closed.
type call struct {
	Answer  bool   `json:"answer"` // else: tell the questions
	Request string `json:"request"`
	Node    string `json:"node"`
	Yes     bool   `json:"yes"`
	Who     string `json:"who"`
	Why     string `json:"why"`
}

type reply struct {
	Records []Record `json:"records"`
	Error   string   `json:"error"`
	Kind    int      `json:"kind"` // of the error, in kinds
}

// kinds are the errors that a caller may tell apart.
func kinds() []error { return []error{nil, ErrUnknown, ErrStale, ErrAnswered, ErrText} }

// A callError is an error from the other end of the socket.
type callError struct {
	text string
	kind error
}

func (e *callError) Error() string { return e.text }
func (e *callError) Unwrap() error { return e.kind }

// Listen makes the socket, for the owner only, in place of one that a Desk left which is gone.
func Listen(name string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	addr := &net.UnixAddr{Name: name, Net: "unix"}
	if conn, err := net.DialUnix("unix", nil, addr); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: another listener has it: %w", name, unix.EADDRINUSE)
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// The mode of the socket is that of the moment it is made.
	before := unix.Umask(0o177)
	defer unix.Umask(before)
	return net.ListenUnix("unix", addr)
}

// Serve takes administrators' calls until ctx is done or the listener is closed, which it is in the
// end.
func (d *Desk) Serve(ctx context.Context, l *net.UnixListener) error {
	var calls sync.WaitGroup
	defer calls.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		calls.Go(func() {
			defer conn.Close()
			d.serve(ctx, conn)
		})
	}
}

func (d *Desk) serve(ctx context.Context, conn *net.UnixConn) {
	var c call
	_ = conn.SetDeadline(time.Now().Add(callTime))
	var r reply
	decoder := json.NewDecoder(io.LimitReader(conn, maxMessage))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&c)
	if err == nil {
		r.Records, err = d.carryOut(ctx, conn, c)
	}
	if err != nil {
		r.Error = err.Error()
		for i, kind := range kinds() {
			if kind != nil && errors.Is(err, kind) {
				r.Kind = i
			}
		}
	}
	_ = conn.SetDeadline(time.Now().Add(callTime))
	_ = json.NewEncoder(conn).Encode(r)
}

func (d *Desk) carryOut(ctx context.Context, conn *net.UnixConn, c call) ([]Record, error) {
	if !c.Answer {
		return d.Records(), nil
	}
	who, err := caller(conn, c.Who)
	if err != nil {
		return nil, err
	}
	if _, err := d.Answer(c.Request, c.Node, c.Yes, who, c.Why); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, takenTime)
	defer cancel()
	return []Record{d.Await(ctx, c.Request)}, nil
}

// caller is who is at the other end, by the kernel's word. Root may say for whom it acts, as sudo does.
func caller(conn *net.UnixConn, says string) (string, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return "", err
	}
	var peer *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, failed); err != nil {
		return "", err
	}
	if peer.Uid == 0 {
		return says, nil
	}
	id := strconv.Itoa(int(peer.Uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username, nil
	}
	return "uid " + id, nil
}

// Questions asks the Desk of this machine what there is. The error wraps fs.ErrNotExist or
// ECONNREFUSED when there is no Desk.
func Questions(ctx context.Context, socket string) ([]Record, error) {
	return ask(ctx, socket, call{})
}

// Tell gives an answer to the Desk of this machine, see Desk.Answer. The Record says whether the
// cluster has taken it by now.
func Tell(ctx context.Context, socket, request, node string, yes bool, who, why string) (Record, error) {
	records, err := ask(ctx, socket, call{Answer: true, Request: request, Node: node, Yes: yes, Who: who, Why: why})
	if err != nil {
		return Record{}, err
	}
	if len(records) != 1 {
		return Record{}, fmt.Errorf("%s: tells %d questions, expected 1", socket, len(records))
	}
	return records[0], nil
}

func ask(ctx context.Context, socket string, c call) ([]Record, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(c); err != nil {
		return nil, err
	}
	var r reply
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return nil, fmt.Errorf("%s: %w", socket, err)
	}
	if r.Error != "" {
		var kind error
		if known := kinds(); r.Kind > 0 && r.Kind < len(known) {
			kind = known[r.Kind]
		}
		return nil, &callError{r.Error, kind}
	}
	return r.Records, nil
}
