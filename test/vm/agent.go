// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/o2fence/o2fence/test/guest/wire"
)

// An agent is the host's end of the line to the program in a guest (test/guest), for one boot. The
// line is a virtio serial port and not the network, so that commands get through while a test cuts
// the network or fills it. Safe for concurrent use.
type agent struct {
	conn net.Conn
	up   chan struct{} // closed by the guest's first word

	sending sync.Mutex
	port    *json.Encoder

	mu     sync.Mutex
	gone   bool
	lastID uint64
	calls  map[uint64]*call
}

// A call is a request that is being carried out.
type call struct {
	id             uint64
	stdout, stderr io.Writer
	done           chan struct{}
	reply          wire.Reply // valid when done is closed
	err            error      // likewise
}

func newAgent(conn net.Conn) *agent {
	a := &agent{
		conn: conn, port: json.NewEncoder(conn),
		up: make(chan struct{}), calls: make(map[uint64]*call),
	}
	go a.read()
	return a
}

func (a *agent) read() {
	defer a.hangUp()
	replies := json.NewDecoder(a.conn)
	var hello wire.Reply
	if replies.Decode(&hello) != nil {
		return
	}
	close(a.up)
	for {
		var r wire.Reply
		if replies.Decode(&r) != nil {
			return
		}
		a.take(r)
	}
}

// hangUp ends all calls: nobody is there any more to answer them.
func (a *agent) hangUp() {
	a.conn.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = true
	for id, c := range a.calls {
		delete(a.calls, id)
		c.err = ErrOff
		close(c.done)
	}
}

func (a *agent) take(r wire.Reply) {
	a.mu.Lock()
	// A call stays known until its end, also when nobody waits for it any more: its output must not
	// be taken for another's.
	c, ok := a.calls[r.ID]
	if ok && r.Done {
		delete(a.calls, r.ID)
	}
	a.mu.Unlock()
	if !ok {
		return
	}
	// What a writer does not take is lost to it alone.
	if len(r.Stdout) > 0 {
		_, _ = c.stdout.Write(r.Stdout)
	}
	if len(r.Stderr) > 0 {
		_, _ = c.stderr.Write(r.Stderr)
	}
	if r.Done {
		if r.Error != "" {
			c.err = errors.New(r.Error)
		}
		c.reply = r
		close(c.done)
	}
}

// begin sends a request whose end is to be awaited.
func (a *agent) begin(r wire.Request, stdout, stderr io.Writer) (*call, error) {
	// Known before it is sent: the answer may be faster than this goroutine.
	c := &call{stdout: stdout, stderr: stderr, done: make(chan struct{})}
	a.mu.Lock()
	if a.gone {
		a.mu.Unlock()
		return nil, ErrOff
	}
	a.lastID++
	c.id, r.ID = a.lastID, a.lastID
	a.calls[c.id] = c
	a.mu.Unlock()
	return c, a.send(r)
}

func (a *agent) send(r wire.Request) error {
	a.sending.Lock()
	defer a.sending.Unlock()
	if err := a.port.Encode(r); err != nil {
		return fmt.Errorf("%w: %w", ErrOff, err)
	}
	return nil
}

// do carries out a request that has no output.
func (a *agent) do(ctx context.Context, r wire.Request) error {
	c, err := a.begin(r, io.Discard, io.Discard)
	if err != nil {
		return err
	}
	return c.wait(ctx)
}

// wait waits for the call's end. When ctx ends first the call goes on.
func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
