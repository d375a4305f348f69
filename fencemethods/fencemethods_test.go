// SPDX-License-Identifier: GPL-2.0-only

package fencemethods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A stub is a method's own Device that does what a test wants.
type stub struct {
	off func(context.Context) error
}

func (s *stub) Off(ctx context.Context) error       { return s.off(ctx) }
func (*stub) On(context.Context) error              { return ErrUnsupported }
func (*stub) Status(context.Context) (State, error) { return Off, nil }
func (*stub) Check(context.Context) error           { return nil }
func (*stub) Close() error                          { return nil }

func openStub(t *testing.T, off func(context.Context) error) Device {
	t.Helper()
	m := Method{Name: "stub", New: func(Target, Values) (Device, error) { return &stub{off: off}, nil }}
	d, err := m.Open(Target{Name: "node1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func minute(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestTheZeroStateIsUnknown(t *testing.T) {
	var s State
	if got := fmt.Sprint(s, Off, On); got != "unknown off on" {
		t.Errorf("states print as %q", got)
	}
}

func TestOperationsWaitForEachOther(t *testing.T) {
	inside, goOn := make(chan bool), make(chan bool)
	d := openStub(t, func(context.Context) error { inside <- true; <-goOn; return nil })
	done := make(chan error, 1)
	go func() { done <- d.Off(minute(t)) }()
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := d.Check(ctx); !errors.Is(err, ErrTimeout) {
		t.Errorf("Check while Off runs: %v, want %v", err, ErrTimeout)
	}
	close(goOn)
	if err := errors.Join(<-done, d.Check(minute(t))); err != nil {
		t.Error(err)
	}
}

func TestAnOperationNeedsADeadline(t *testing.T) {
	d := openStub(t, nil)
	if err := d.Off(t.Context()); !errors.Is(err, ErrNoDeadline) {
		t.Errorf("Off: %v, want %v", err, ErrNoDeadline)
	}
	past, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if err := d.Off(past); !errors.Is(err, ErrTimeout) {
		t.Errorf("Off: %v, want %v", err, ErrTimeout)
	}
}

func TestAClosedDeviceFails(t *testing.T) {
	d := openStub(t, nil)
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if err := d.Off(minute(t)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Off: %v, want %v", err, os.ErrClosed)
	}
}

func TestAnErrorSaysWhoFailedWhyAndWhatToDo(t *testing.T) {
	d := openStub(t, func(context.Context) error {
		return &Error{Kind: ErrRefused, Code: 0xd5, Detail: "not now", Advice: "wait"}
	})
	err := d.Off(minute(t))
	if want := "stub node1: off: command refused: not now (code 0xd5); wait"; err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
	if !errors.Is(err, ErrRefused) {
		t.Errorf("%v is not %v", err, ErrRefused)
	}
}

func TestNoErrorHasErrnoZero(t *testing.T) {
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{ErrUnreachable, syscall.EHOSTUNREACH},
		{ErrAuth, syscall.EACCES},
		{ErrRefused, syscall.EREMOTEIO},
		{ErrProtocol, syscall.EPROTO},
		{ErrBusy, syscall.EAGAIN},
		{ErrNotOff, syscall.EBUSY},
		{ErrTimeout, syscall.ETIMEDOUT},
		{ErrUnsupported, syscall.EOPNOTSUPP},
		{ErrNoDeadline, syscall.EINVAL},
		{context.Canceled, syscall.ECANCELED},
		{context.DeadlineExceeded, syscall.ETIMEDOUT},
		{&Error{Kind: ErrAuth}, syscall.EACCES},
		{&os.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}, syscall.ENOENT},
		{syscall.Errno(0), syscall.EIO},
		{errors.New("news"), syscall.EIO},
	} {
		if got := Errno(c.err); got != c.want {
			t.Errorf("Errno(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestAnErrorsTextAndErrnoDoNotAllocate(t *testing.T) {
	err := error(&Error{Method: "stub", Node: "node1", Op: "off", Kind: ErrNotOff, Code: 1, Detail: "on", Advice: "look"})
	b := make([]byte, 0, 255)
	if n := testing.AllocsPerRun(100, func() {
		if e, ok := errors.AsType[*Error](err); ok {
			b, _ = e.AppendText(b[:0])
		}
		Errno(err)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if !strings.HasPrefix(string(b), "stub node1: off: still on") {
		t.Errorf("text %q", b)
	}
}
