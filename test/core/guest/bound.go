// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
)

var bridgeTests = []test{
	{"a bind of a process that is not flagged is refused", unflagged},
	{"a bind of a process whose memory is not locked is refused", unlocked},
	{"a bound method is listed, and carried by one bridge", carriedOnce},
	{"a bridge cannot take a module's method", stealsMethod},
	{"a bridge is asked with all it needs, and answers", asked},
	{"who vouches for what a bridge answers is kept", vouched},
	{"a bridge's failure moves on", bridgeFails},
	{"the timer cancels what a bridge was asked", timerCancels},
	{"the death of a bridge moves on at once, and it may bind again", bridgeDies},
	{"a bridge that has ended and left its socket to a child is passed over", bridgeBequeathes},
	{"a bridge that unlocks its memory after its bind is passed over", bridgeUnlocks},
	{"a bridge is asked in full, however long the texts are", askedAtLength},
	{"what is no socket is not marked, and a socket is", marksSockets},
	{"a join with a method whose bridge is gone is refused", joinWithoutBridge},
	{"a fence with a method whose bridge is gone moves on", fenceWithoutBridge},
}

func unflagged(s *suite) error { return s.bindRefused("PF_MEMALLOC", "unflagged", "core-bound") }

func unlocked(s *suite) error { return s.bindRefused("lock", "unlocked", "core-bound") }

// bindRefused fails unless the bind is refused with a text that says so.
func (s *suite) bindRefused(because string, args ...string) error {
	_, err := s.bridge(args...)
	if err == nil || !strings.Contains(err.Error(), because) {
		return fmt.Errorf("got %w", orNone(err))
	}
	return nil
}

// The kernel looks at the rules again before it asks: the socket alone is no bridge.
func bridgeBequeathes(s *suite) error {
	b, err := s.bridge("bequeath", "core-bound")
	if err != nil {
		return err
	}
	defer unix.Kill(b.heir, unix.SIGKILL)
	if err := s.Join(ctx, cluster("c", steps("core-bound", "core-ok")...)); err != nil {
		return err
	}
	b.kill()
	if err := s.Fence(ctx, "c", 1, life, "it is a test"); err != nil {
		return err
	}
	return s.passedOver()
}

// passedOver fails unless the kernel does not ask the bridge and goes on to core-ok.
func (s *suite) passedOver() error {
	if r, err := s.await(uapi.EventAttemptFailed); err != nil || r.Errno != syscall.EPERM {
		return fmt.Errorf("%+v, %w", r, err)
	}
	return s.endsWith(uapi.EventNotice, "core-ok", 2)
}

func bridgeUnlocks(s *suite) error {
	if _, err := s.bridge("unlocks", "core-bound"); err != nil {
		return err
	}
	if err := s.fence(steps("core-bound", "core-ok")...); err != nil {
		return err
	}
	return s.passedOver()
}

// The kernel allocates a message as large as its texts: so there must be room for all of it, whatever
// their lengths.
func askedAtLength(s *suite) error {
	name := strings.Repeat("n", uapi.NameMax)
	b, err := s.bridge(name)
	if err != nil {
		return err
	}
	step := steps(name)[0]
	for length := 0; length <= uapi.ParamsMax; length += 16 {
		step.Params = []byte(strings.Repeat("p", length))
		if err := s.Join(ctx, cluster(name, step, steps("core-ok")[0])); err != nil {
			return err
		}
		if err := s.Fence(ctx, name, 1, life, strings.Repeat("r", uapi.TextMax)); err != nil {
			return err
		}
		w, err := b.next("initiate")
		if err != nil || w.Method != name || len(w.Params) != length {
			return fmt.Errorf("with %d bytes of parameters: %+v, %w", length, w, err)
		}
		if err := b.answer(w, 0, ""); err != nil {
			return err
		}
		if _, err := s.await(uapi.EventNotice); err != nil {
			return err
		}
		if err := s.Leave(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func marksSockets(s *suite) error {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer conn.Close()
	file, err := conn.(*net.UDPConn).File()
	if err != nil {
		return err
	}
	defer file.Close()
	return errors.Join(
		s.MarkSocket(ctx, int(file.Fd())),
		expect(s.MarkSocket(ctx, 0), kernel.ErrNotSocket),
		expect(s.MarkSocket(ctx, 9999), kernel.ErrNotSocket),
	)
}

func carriedOnce(s *suite) error {
	if _, err := s.bridge("core-bound", "core-bound-too"); err != nil {
		return err
	}
	for _, name := range []string{"core-bound", "core-bound-too"} {
		if m, err := s.method(name); err != nil || m.Module != "o2fence" || m.PortID == 0 {
			return fmt.Errorf("%+v, %w", m, err)
		}
	}
	return s.bindRefused("another", "core-bound")
}

func stealsMethod(s *suite) error { return s.bindRefused("module", "watchdog") }

func asked(s *suite) error {
	b, err := s.bridge("core-bound")
	if err != nil {
		return err
	}
	step := steps("core-bound")[0]
	step.Params = []byte(strings.Repeat("p", uapi.ParamsMax))
	if err := s.fence(step, steps("core-ok")[0]); err != nil {
		return err
	}
	w, err := b.next("initiate")
	if err != nil {
		return err
	}
	if w.Method != "core-bound" || w.Params != string(step.Params) || w.Timeout.Milliseconds() != 60_000 {
		return fmt.Errorf("it was asked %+v", w)
	}
	if err := b.answer(w, 0, ""); err != nil {
		return err
	}
	if err := s.endsWith(uapi.EventNotice, "core-bound", 1); err != nil {
		return err
	}
	return b.refused(w, syscall.ENOENT) // the second answer: the node has left
}

// A method may have nothing but somebody's word.
func vouched(s *suite) error {
	b, err := s.bridge("core-bound")
	if err != nil {
		return err
	}
	if err := s.fence(steps("core-bound", "core-ok")...); err != nil {
		return err
	}
	w, err := b.next("initiate")
	if err != nil {
		return err
	}
	const voucher = "ann@admin: pulled both cords"
	if err := b.answer(w, 0, voucher); err != nil {
		return err
	}
	if r, err := s.await(uapi.EventNotice); err != nil || r.Errno != 0 || r.Errmsg != voucher {
		return fmt.Errorf("%+v, %w", r, err)
	}
	return s.Leave(ctx, "c")
}

func bridgeFails(s *suite) error {
	b, err := s.bridge("core-bound")
	if err != nil {
		return err
	}
	if err := s.fence(steps("core-bound", "core-ok")...); err != nil {
		return err
	}
	w, err := b.next("initiate")
	if err != nil {
		return err
	}
	if err := b.answer(w, syscall.EHOSTUNREACH, "no route to the device"); err != nil {
		return err
	}
	r, err := s.await(uapi.EventAttemptFailed)
	if err != nil || r.Errno != syscall.EHOSTUNREACH || r.Errmsg != "no route to the device" {
		return fmt.Errorf("%+v, %w", r, err)
	}
	return s.endsWith(uapi.EventNotice, "core-ok", 2)
}

func timerCancels(s *suite) error {
	b, err := s.bridge("core-bound")
	if err != nil {
		return err
	}
	if err := s.fence(kernel.Step{Method: "core-bound", TimeoutMS: 100}, steps("core-ok")[0]); err != nil {
		return err
	}
	w, err := b.next("initiate")
	if err != nil {
		return err
	}
	if _, err := b.next("cancel"); err != nil {
		return err
	}
	if _, err := s.await(uapi.EventNotice); err != nil {
		return err
	}
	return errors.Join(b.refused(w, syscall.ESTALE), s.Leave(ctx, "c"))
}

func bridgeDies(s *suite) error {
	b, err := s.bridge("core-bound")
	if err != nil {
		return err
	}
	if err := s.fence(steps("core-bound", "core-ok")...); err != nil {
		return err
	}
	if _, err := b.next("initiate"); err != nil {
		return err
	}
	b.kill()
	if r, err := s.await(uapi.EventAttemptFailed); err != nil || r.Errno != syscall.ECONNRESET {
		return fmt.Errorf("%+v, %w", r, err)
	}
	if _, err := s.await(uapi.EventNotice); err != nil {
		return err
	}
	if m, err := s.method("core-bound"); err != nil || m.PortID != 0 {
		return fmt.Errorf("without a bridge: %+v, %w", m, err)
	}
	if b, err = s.bridge("core-bound"); err != nil {
		return err
	}
	if err := s.Fence(ctx, "c", 1, life, "once more"); err != nil {
		return err
	}
	w, err := b.next("initiate")
	if err != nil {
		return err
	}
	if err := b.answer(w, 0, ""); err != nil {
		return err
	}
	return s.endsWith(uapi.EventNotice, "core-bound", 1)
}

func joinWithoutBridge(s *suite) error {
	b, err := s.bridge("core-bound")
	if err != nil {
		return err
	}
	b.kill()
	if err := expect(s.Join(ctx, cluster("c", steps("core-bound", "core-ok")...)), kernel.ErrUnknownMethod); err != nil {
		return err
	}
	return s.nothingJoined()
}

func fenceWithoutBridge(s *suite) error {
	b, err := s.bridge("core-bound")
	if err != nil {
		return err
	}
	if err := s.Join(ctx, cluster("c", steps("core-bound", "core-ok")...)); err != nil {
		return err
	}
	b.kill()
	if err := s.Fence(ctx, "c", 1, life, "nobody is there"); err != nil {
		return err
	}
	return s.endsWith(uapi.EventNotice, "core-ok", 2)
}
