// SPDX-License-Identifier: GPL-2.0-only

package qmp

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"syscall"

	"github.com/o2fence/o2fence/fencemethods"
)

// maxLine is the longest line that is read; QEMU's answers here have 2,000 bytes at most.
const maxLine = 16 << 10

// tries is how often a question is asked on one connection.
const tries = 4

// ask asks and returns the answer. It connects where needed. Whatever does not answer this very
// question is dropped: events, and what is old, foreign or damaged. To ask again is harmless: to
// stop, to reset and to continue twice is to do it once.
func (d *device) ask(ctx context.Context, command, arguments string) ([]byte, *failure) {
	if d.conn == nil {
		if f := d.connect(ctx); f != nil {
			d.hangUp()
			return nil, f
		}
	}
	f := failSilent
	for n := 0; n < tries && f == failSilent; n++ {
		until, cut := d.Until(d.patience)
		d.conn.Limit(until)
		answer, err := d.exchange(command, arguments)
		switch {
		case err != nil:
			f = linkFailure(err, cut)
		case answer.Error != nil:
			return nil, refused(command, answer.Error)
		default:
			return answer.Return, nil
		}
	}
	d.hangUp()
	return nil, f
}

// connect connects and makes sure that it is the right machine.
func (d *device) connect(ctx context.Context) *failure {
	until, cut := d.Until(d.patience)
	conn, err := d.socket.Connect(ctx, until)
	if err != nil {
		return linkFailure(err, cut)
	}
	d.conn = conn
	d.in.Reset(conn)
	d.count = 0
	_, _ = rand.Read(d.nonce[:]) // which never fails
	// QEMU's greeting is not waited for. That the capabilities are agreed on already is what it says
	// to who asks twice.
	if _, f := d.ask(ctx, "qmp_capabilities", ""); f != nil && f.Kind != fencemethods.ErrRefused {
		return f
	}
	if d.uuid == "" {
		return nil
	}
	answer, f := d.ask(ctx, "query-uuid", "")
	if f == nil && decodeUUID(answer) != d.uuid {
		return failOther
	}
	return f
}

func (d *device) hangUp() {
	if d.conn != nil {
		d.conn.Close()
		d.conn = nil
		d.in.Reset(nil)
	}
}

func (d *device) exchange(command, arguments string) (message, error) {
	d.count++
	d.id = hex.AppendEncode(d.id[:0], d.nonce[:])
	d.id = strconv.AppendUint(append(d.id, '-'), d.count, 10)
	b := append(append(d.out[:0], `{"execute":"`...), command...)
	if arguments != "" {
		b = append(append(b, `","arguments":`...), arguments...)
		b = append(b, `,"id":"`...)
	} else {
		b = append(b, `","id":"`...)
	}
	d.out = append(append(b, d.id...), "\"}\n"...)
	if _, err := d.conn.Write(d.out); err != nil {
		return message{}, err
	}
	for {
		m, err := d.receive()
		if err != nil {
			return message{}, err
		}
		if m.answers(d.id) {
			d.Heard = true
			return m, nil
		}
	}
}

// receive returns the next message. A line that is none is noted and passed over.
func (d *device) receive() (message, error) {
	for {
		line, err := d.in.ReadSlice('\n')
		if err != nil {
			return message{}, err
		}
		if m, ok := decodeMessage(line); ok {
			return m, nil
		}
		d.Ignored = true
	}
}

// linkFailure tells what an error of the connection means; cut says that time was up.
func linkFailure(err error, cut bool) *failure {
	if f := failures.Link(err, cut); f != nil {
		return f
	}
	switch {
	case errors.Is(err, syscall.EAGAIN): // the socket's queue is full: QEMU serves somebody else
		return failSilent
	case errors.Is(err, syscall.ENOENT):
		return failNoSocket
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return failDenied
	case errors.Is(err, bufio.ErrBufferFull):
		return failGarbage
	}
	return &failure{Kind: fencemethods.ErrUnreachable, Detail: err.Error(), Advice: "check monitor"}
}
