// SPDX-License-Identifier: GPL-2.0-only

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// look is how late it may be noticed that a context was canceled: waiting for its Done would need a
// goroutine.
const look = 50 * time.Millisecond

// spare is left of a deadline for the server's answer after it has killed.
const spare = 100 * time.Millisecond

// openTime bounds the making of a jail.
const openTime = 10 * time.Second

// A Jail is the client's side: one program's jail, in which it can be run again and again. It is for
// one goroutine at a time. After Open it needs its buffers and one connection; should the server
// have been started anew, it connects once more.
type Jail struct {
	socket  string
	program string
	limits  Limits
	conn    *net.UnixConn // nil: lost
	seq     uint64
	out, in []byte
}

// Open makes a jail for the program of that absolute path. The error is ErrNoServer or ErrRefused,
// and then says why.
func Open(socket, program string, limits Limits) (*Jail, error) {
	j := &Jail{
		socket: socket, program: program, limits: limits,
		out: make([]byte, 0, packetMax), in: make([]byte, packetMax),
	}
	if err := j.connect(time.Now().Add(openTime)); err != nil {
		return nil, err
	}
	return j, nil
}

// connect makes the connection and the jail.
func (j *Jail) connect(deadline time.Time) error {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: j.socket, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoServer, err)
	}
	j.conn = conn
	j.seq++
	m := message{verb: verbOpen, seq: j.seq, args: [3]int{j.limits.MinKiB, j.limits.MaxKiB, j.limits.Processes}, body: []byte(j.program)}
	err = j.send(m)
	if err == nil {
		m, err = j.receive(context.Background(), deadline)
	}
	if err == nil && m.verb != verbOpened {
		err = fmt.Errorf("%w: %s", ErrRefused, m.body)
	}
	if err != nil {
		j.lose()
	}
	return err
}

// Run runs the program once, with this standard input. It ends by the context's deadline, which is
// the program's, and with the context; the program is dead by then, or about to be. The result's
// bytes are good until the next call.
func (j *Jail) Run(ctx context.Context, stdin []byte) (Result, error) {
	deadline, ok := ctx.Deadline()
	if !ok || len(stdin) > InputMax {
		return Result{}, os.ErrInvalid
	}
	err := j.ask(deadline, stdin)
	if err != nil {
		// The server may have been started anew.
		j.lose()
		if err = j.connect(deadline); err == nil {
			err = j.ask(deadline, stdin)
		}
	}
	if err != nil {
		j.lose()
		return Result{}, err
	}
	m, err := j.receive(ctx, deadline)
	if ctx.Err() != nil && err != nil {
		// Even if nobody listens: the jail ends with the connection.
		_ = j.send(message{verb: verbStop, seq: j.seq})
		return Result{}, err
	}
	if err == nil && m.verb != verbEnded {
		err = fmt.Errorf("%w: %s", ErrRefused, m.body)
	}
	if err != nil {
		j.lose()
		return Result{}, err
	}
	return Result{End: m.end, Code: m.args[0], Stdout: m.body[:m.args[1]], Stderr: m.body[m.args[1]:]}, nil
}

func (j *Jail) ask(deadline time.Time, stdin []byte) error {
	if j.conn == nil {
		return ErrNoServer
	}
	j.seq++
	left := time.Until(deadline)
	left -= min(spare, left/10)
	return j.send(message{verb: verbRun, seq: j.seq, args: [3]int{int(left.Milliseconds())}, body: stdin})
}

func (j *Jail) send(m message) error {
	j.out = m.append(j.out[:0])
	_, err := j.conn.Write(j.out)
	clear(j.out) // there was a secret in it
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoServer, err)
	}
	return nil
}

// receive waits for the answer to the last question.
func (j *Jail) receive(ctx context.Context, deadline time.Time) (message, error) {
	for {
		if err := ctx.Err(); err != nil {
			return message{}, err
		}
		now := time.Now()
		if !now.Before(deadline) {
			return message{}, context.DeadlineExceeded
		}
		next := now.Add(look)
		if deadline.Before(next) {
			next = deadline
		}
		if err := j.conn.SetReadDeadline(next); err != nil {
			return message{}, fmt.Errorf("%w: %w", ErrNoServer, err)
		}
		n, err := j.conn.Read(j.in)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err == nil && n == 0 {
			err = syscall.ECONNRESET // the end of a connection of packets
		}
		if err != nil {
			return message{}, fmt.Errorf("%w: %w", ErrNoServer, err)
		}
		m, err := parse(j.in[:n])
		if err != nil {
			return message{}, err
		}
		if m.seq == j.seq {
			return m, nil
		}
	}
}

func (j *Jail) lose() {
	if j.conn != nil {
		j.conn.Close()
	}
	j.conn = nil
}

// Close ends the jail and what runs in it.
func (j *Jail) Close() error {
	j.lose()
	return nil
}
