// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
)

var attemptTests = []test{
	{"events tell every step of a fence", everyStep},
	{"the attempt's timer moves on to the next method", timerMovesOn},
	{"an initiate that fails moves on", initiateFails},
	{"a method that fails later moves on, and its words are kept", failsLater},
	{"when all methods fail the request has failed", allFail},
	{"a node is fenced once at a time", underWay},
	{"a node does not fence itself, nor a stranger", noSuchNode},
	{"watchdog with wait=ms succeeds after that time", watchdogWaits},
	{"watchdog without a heartbeat fails and does not pretend", watchdogUnknown},
	{"the history keeps the last 64, newest first", history},
}

func everyStep(s *suite) error {
	if err := s.fence(steps("core-fail", "core-ok")...); err != nil {
		return err
	}
	if err := s.sequence(uapi.EventStarted, uapi.EventInitiated, uapi.EventAttemptFailed, uapi.EventInitiated,
		uapi.EventFenced, uapi.EventNotice); err != nil {
		return err
	}
	r, err := s.node1()
	if err != nil {
		return err
	}
	if r.Incarnation != life || r.Reason != "it is a test" || r.Attempt != 2 || r.State != uapi.EventNotice ||
		r.Method != "core-ok" || r.Errno != 0 || r.Errmsg != "" {
		return fmt.Errorf("%+v", r)
	}
	last := r.At[uapi.EventStarted]
	for _, step := range []uapi.Event{uapi.EventAttemptFailed, uapi.EventInitiated, uapi.EventFenced, uapi.EventNotice} {
		if r.At[step].Before(last) || time.Since(r.At[step]) > time.Hour {
			return fmt.Errorf("times %v", r.At)
		}
		last = r.At[step]
	}
	return s.Leave(ctx, "c")
}

func timerMovesOn(s *suite) error {
	if err := s.fence(kernel.Step{Method: "core-never", TimeoutMS: 50}, steps("core-ok")[0]); err != nil {
		return err
	}
	failed, err := s.await(uapi.EventAttemptFailed)
	if err != nil {
		return err
	}
	took := failed.At[uapi.EventAttemptFailed].Sub(failed.At[uapi.EventInitiated])
	if failed.Errno != syscall.ETIMEDOUT || took < 45*time.Millisecond {
		return fmt.Errorf("after %v: %+v", took, failed)
	}
	return s.endsWith(uapi.EventNotice, "core-ok", 2)
}

// endsWith awaits the end of the request and leaves.
func (s *suite) endsWith(end uapi.Event, method string, attempt uint32) error {
	r, err := s.await(end)
	if err != nil {
		return err
	}
	if r.Method != method || r.Attempt != attempt {
		return fmt.Errorf("it ended with %+v", r)
	}
	return s.Leave(ctx, "c")
}

func initiateFails(s *suite) error {
	if err := s.fence(steps("core-fail", "core-ok")...); err != nil {
		return err
	}
	if r, err := s.await(uapi.EventAttemptFailed); err != nil || r.Errno != syscall.EIO || r.Method != "core-fail" {
		return fmt.Errorf("%+v, %w", r, err)
	}
	return s.endsWith(uapi.EventNotice, "core-ok", 2)
}

func failsLater(s *suite) error {
	if err := s.fence(steps("core-fail-later", "core-ok")...); err != nil {
		return err
	}
	r, err := s.await(uapi.EventAttemptFailed)
	if err != nil || r.Errno != syscall.EHOSTDOWN || r.Errmsg != "the device said no" {
		return fmt.Errorf("%+v, %w", r, err)
	}
	return s.endsWith(uapi.EventNotice, "core-ok", 2)
}

func allFail(s *suite) error {
	if err := s.fence(steps("core-fail-later", "core-fail")...); err != nil {
		return err
	}
	return s.endsWith(uapi.EventFailed, "core-fail", 2)
}

func underWay(s *suite) error {
	if err := s.fence(steps("manual")...); err != nil {
		return err
	}
	if err := expect(s.Fence(ctx, "c", 1, life, "again"), kernel.ErrUnderWay); err != nil {
		return err
	}
	r, err := s.await(uapi.EventInitiated)
	if err != nil {
		return err
	}
	if err := s.Confirm(ctx, r, "tester"); err != nil {
		return err
	}
	return s.endsWith(uapi.EventNotice, "manual", 1)
}

func noSuchNode(s *suite) error {
	if err := s.Join(ctx, cluster("c", steps("core-ok")...)); err != nil {
		return err
	}
	return errors.Join(
		expect(s.Fence(ctx, "c", 0, 0, "myself"), kernel.ErrUnknownNode),
		expect(s.Fence(ctx, "c", 2, 0, "unknown"), kernel.ErrUnknownNode),
		expect(s.Fence(ctx, "d", 1, 0, "unknown"), kernel.ErrUnknownNode),
		s.Leave(ctx, "c"),
	)
}

func watchdogWaits(s *suite) error {
	step := steps("watchdog")[0]
	step.Params = []byte("wait=300")
	if err := s.fence(step); err != nil {
		return err
	}
	r, err := s.await(uapi.EventFenced)
	if err != nil {
		return err
	}
	if took := r.At[uapi.EventFenced].Sub(r.At[uapi.EventInitiated]); took < 290*time.Millisecond {
		return fmt.Errorf("it waited %v", took)
	}
	return s.endsWith(uapi.EventNotice, "watchdog", 1)
}

func watchdogUnknown(s *suite) error {
	if err := s.fence(steps("watchdog")...); err != nil {
		return err
	}
	if r, err := s.await(uapi.EventFailed); err != nil || r.Errno != syscall.ENODATA {
		return fmt.Errorf("%+v, %w", r, err)
	}
	return s.Leave(ctx, "c")
}

func history(s *suite) error {
	if err := s.Join(ctx, cluster("c", steps("core-ok")...)); err != nil {
		return err
	}
	const more = uapi.History + 3
	for i := range more {
		if err := s.Fence(ctx, "c", 1, 0, fmt.Sprint("number ", i)); err != nil {
			return err
		}
		if _, err := s.await(uapi.EventNotice); err != nil {
			return err
		}
	}
	if err := s.Leave(ctx, "c"); err != nil {
		return err
	}
	requests, err := s.Requests(ctx) // they outlive the cluster
	if err != nil || len(requests) != uapi.History {
		return fmt.Errorf("%d requests, %w", len(requests), err)
	}
	for i, r := range requests {
		if want := fmt.Sprint("number ", more-1-i); r.Reason != want || r.State != uapi.EventNotice || r.Cluster != "c" {
			return fmt.Errorf("request %d: %+v, want %s", i, r, want)
		}
	}
	return nil
}
