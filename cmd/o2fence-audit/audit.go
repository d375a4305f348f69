// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/bpf"
	"github.com/o2fence/o2fence/bpf/flame"
	"github.com/o2fence/o2fence/bpf/symbol"
	"github.com/o2fence/o2fence/bpf/verdict"
)

// A session is one audit.
type session struct {
	*tool
	target    *target
	probe     *bpf.Probe
	collector *verdict.Collector
	show      func(*verdict.Report) // the live view
	forced    bpf.Windows           // with --for: the one that was opened by hand
}

// How often it looks whether it is at its end, and the live view is told of what is new.
const (
	look      = 50 * time.Millisecond
	showEvery = 200 * time.Millisecond
)

var (
	errInterrupted = errors.New("it was interrupted")
	errNoFence     = errors.New("the fences did not come in time")
	errOpen        = errors.New("a fence was still under way")
)

func (t *tool) audit(ctx context.Context) error {
	probe, err := bpf.Open(bpf.Options{
		WaitBound: t.waitBound, BufferBytes: t.bufferKiB << 10, Fences: t.duration == 0,
	})
	if err != nil {
		return err
	}
	defer probe.Close()
	s := &session{tool: t, probe: probe}
	if err := s.attach(); err != nil {
		return err
	}
	defer s.target.finish()
	fmt.Fprintf(t.errs, "o2fence-audit: watching %s (%d)\n", s.collector.Process(s.target.pid).Name, s.target.pid)
	var incomplete error
	watch := func(ctx context.Context, show func(*verdict.Report)) (err error) {
		s.show = show
		incomplete, err = s.watch(ctx)
		return err
	}
	if t.live {
		err = live(ctx, watch)
	} else {
		err = watch(ctx, nil)
	}
	if err != nil {
		return err
	}
	if err := s.takeWaits(); err != nil {
		return err
	}
	report, err := s.report(incomplete, false)
	if err != nil {
		return err
	}
	t.verdict = report.Verdict
	if t.svg != "" {
		if err := os.WriteFile(t.svg, flame.Draw(report), 0o644); err != nil {
			return err
		}
	}
	return t.print(report)
}

// attach finds or starts the process, and lets it go on.
func (s *session) attach() (err error) {
	kernel, err := symbol.ReadKernel()
	if err != nil {
		return err
	}
	gfp, err := bpf.ReadGFP()
	if err != nil {
		return err
	}
	if s.target, err = s.tool.target(); err != nil {
		return err
	}
	images := symbol.NewCache()
	program, err := images.Process(s.target.pid)
	if err == nil {
		s.collector = verdict.New(kernel, gfp, images, program, s.target.pid)
		err = s.follow(s.target.pid)
	}
	if err == nil {
		err = s.target.release()
	}
	if err != nil {
		s.target.finish()
		return s.gone(err)
	}
	return nil
}

// gone makes an error about a process that is not there any more a clear one.
func (s *session) gone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("process %d has ended, or is a thread of the kernel: %w", s.target.pid, err)
	}
	return err
}

// follow has a process watched, and its goroutines found when it is a Go program that was not
// stripped.
func (s *session) follow(pid int) error {
	var layout *symbol.GoLayout
	if p := s.collector.Process(pid); p != nil {
		if l, err := p.GoLayout(); err == nil {
			layout = &l
		}
	}
	return s.probe.Follow(pid, layout)
}

// watch takes all events until the audit is over. Incomplete says why something may not have been seen.
func (s *session) watch(ctx context.Context) (incomplete, err error) {
	if s.duration > 0 {
		incomplete, err = s.watchFor(ctx)
	} else {
		incomplete, err = s.watchFences(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := s.probe.Detach(); err != nil {
		return nil, err
	}
	// What is left in the buffer.
	for err == nil {
		err = s.take(time.Now())
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, err
	}
	return incomplete, nil
}

func (s *session) watchFor(ctx context.Context) (incomplete, err error) {
	if incomplete, err := s.until(ctx, time.Now().Add(s.after), nil); incomplete != nil || err != nil {
		return incomplete, err
	}
	if err := s.probe.Begin(); err != nil {
		return nil, err
	}
	began := time.Now()
	incomplete, err = s.until(ctx, began.Add(s.duration), nil)
	s.forced = bpf.Windows{Closed: 1, Watched: time.Since(began)}
	if s.target.started && errors.Is(incomplete, errEnded) {
		incomplete = nil // the whole of it was seen
	}
	return incomplete, errors.Join(err, s.probe.End())
}

func (s *session) watchFences(ctx context.Context) (incomplete, err error) {
	var end time.Time
	if s.within > 0 {
		end = time.Now().Add(s.within)
	}
	windows := bpf.Windows{}
	enough := func() (bool, error) {
		windows, err = s.probe.Windows()
		return windows.Closed >= s.fences, err
	}
	incomplete, err = s.until(ctx, end, enough)
	switch {
	case err != nil:
		return nil, err
	case windows.Closed >= s.fences:
		return s.ended(), nil
	case windows.UnderWay > 0:
		return errOpen, nil
	case incomplete == nil:
		return errNoFence, nil
	}
	return incomplete, nil
}

// until takes events until a time (zero: for ever), until it is enough, until the process ends or ctx.
// Incomplete says which of the last two it was.
func (s *session) until(ctx context.Context, end time.Time, enough func() (bool, error)) (incomplete, err error) {
	shown := time.Now()
	for {
		if enough != nil {
			if is, err := enough(); is || err != nil {
				return nil, err
			}
		}
		now := time.Now()
		if !end.IsZero() && !now.Before(end) {
			return nil, nil
		}
		if ctx.Err() != nil {
			return errInterrupted, nil
		}
		if err := s.ended(); err != nil {
			return err, nil
		}
		if s.show != nil && now.Sub(shown) > showEvery {
			shown = now
			report, err := s.report(nil, true)
			if err != nil {
				return nil, err
			}
			s.show(report)
		}
		next := now.Add(look)
		if !end.IsZero() && end.Before(next) {
			next = end
		}
		if err := s.take(next); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
	}
}

// ended is an error when the process has ended. Another may have fenced in its place by then.
func (s *session) ended() error {
	select {
	case <-s.target.ended:
		return fmt.Errorf("process %d: %w", s.target.pid, errEnded)
	default:
		return nil
	}
}

// take takes one event.
func (s *session) take(deadline time.Time) error {
	var e bpf.Event
	if err := s.probe.Read(&e, deadline); err != nil {
		return err
	}
	s.collector.Add(&e)
	if e.Kind == bpf.Replaced {
		return s.follow(e.PID)
	}
	return nil
}

// takeWaits adds the sleeps that have not ended.
func (s *session) takeWaits() error {
	waits, err := s.probe.Waiting(s.waitBound)
	for _, e := range waits {
		s.collector.Add(&e)
	}
	return err
}

// report is what can be said by now. Incomplete as for watch.
func (s *session) report(incomplete error, ongoing bool) (*verdict.Report, error) {
	o := verdict.Outcome{ClaimKiB: s.claimKiB, Incomplete: incomplete, Ongoing: ongoing}
	windows, err := s.probe.Windows()
	if err != nil {
		return nil, err
	}
	o.Windows, o.Watched = windows.Closed+s.forced.Closed, windows.Watched+s.forced.Watched
	if o.Lost, err = s.probe.Lost(); err != nil {
		return nil, err
	}
	if o.Syscalls, err = s.probe.Syscalls(); err != nil {
		return nil, err
	}
	return s.collector.Report(o), nil
}
