// SPDX-License-Identifier: GPL-2.0-only

package pressure

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/o2fence/o2fence/test/ktap"
	"github.com/o2fence/o2fence/test/pressure/wire"
	"github.com/o2fence/o2fence/test/vm"
)

// The survivor's load.
const (
	writers   = 2
	writerMiB = 40
	hogs      = 6
)

// Work has the survivor write its own files and swap to the OCFS2, and both nodes append to one file.
func (s *Scenario) Work(ctx context.Context) error {
	if s.cfg.Swap > 0 {
		file := filepath.Join(vm.MountPoint, "swap")
		err := s.sh(ctx, s.Survivor, fmt.Sprintf("dd if=/dev/zero of=%s bs=1M count=%d status=none; chmod 600 %[1]s; mkswap %[1]s >/dev/null; swapon %[1]s", file, s.cfg.Swap))
		if err != nil {
			return err
		}
	}
	for i := range writers {
		file := filepath.Join(vm.MountPoint, fmt.Sprintf("dirty%d", i))
		if _, err := s.start(ctx, s.Survivor, "write", file, fmt.Sprint(writerMiB)); err != nil {
			return err
		}
	}
	_, err := s.Control.Await(ctx, "the writers", func(m wire.Sample) bool { return m.Dirty+m.Writeback > 1<<10 })
	if err != nil {
		return err
	}
	s.appends = newLines()
	_, err = s.Survivor.Start(ctx, vm.Command{Args: []string{s.Program("workload"), journal}, Stdout: s.appends})
	if err != nil {
		return err
	}
	return s.appends.await(ctx, 0)
}

// journal is the file that both nodes append to.
const journal = vm.MountPoint + "/journal"

// Freeze freezes the victim while it holds the lock of the file, and takes the survivor's memory.
func (s *Scenario) Freeze(ctx context.Context) error {
	appends := newLines()
	p, err := s.Victim.Start(ctx, vm.Command{Args: []string{s.Program("workload"), "-hold", journal}, Stdout: appends})
	if err != nil {
		return err
	}
	if err := appends.await(ctx, 0); err != nil { // until then the signal would end it
		return err
	}
	if err := p.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	if _, _, err := s.Victim.Console().Await(ctx, 0, regexp.MustCompile("holding the lock")); err != nil {
		return err
	}
	if err := s.Victim.Pause(ctx); err != nil {
		return err
	}
	s.before = s.appends.count()
	load := slices.Repeat([]string{"hog"}, hogs)
	if s.cfg.Pressed > 0 {
		load = append(load, "eat")
	}
	for _, what := range load {
		if _, err := s.start(ctx, s.Survivor, what); err != nil {
			return err
		}
	}
	return nil
}

// AwaitStuck waits until the machine is deadlocked.
//
// kswapd waits in a shrinker for the frozen node, and so do several of those who want memory.
func (s *Scenario) AwaitStuck(ctx context.Context) (wire.Sample, error) {
	return s.Control.Await(ctx, "reclaim to be stuck", func(m wire.Sample) bool {
		return m.Kswapd && m.Stuck > 3 && m.Stalls > 0
	})
}

// AwaitFree waits until the fence has ended the deadlock: nobody is stuck, and the writer goes on.
func (s *Scenario) AwaitFree(ctx context.Context) error {
	if _, err := s.Control.Await(ctx, "reclaim to go on", func(m wire.Sample) bool { return m.Stuck == 0 }); err != nil {
		return err
	}
	return s.appends.await(ctx, s.before)
}

// lines counts what a program prints.
type lines struct {
	mu   sync.Mutex
	n    int
	more chan struct{} // closed and replaced with each
}

func newLines() *lines { return &lines{more: make(chan struct{})} }

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n += bytes.Count(b, []byte("\n"))
	close(l.more)
	l.more = make(chan struct{})
	return len(b), nil
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// await waits until there are more than so many.
func (l *lines) await(ctx context.Context, than int) error {
	for {
		l.mu.Lock()
		n, more := l.n, l.more
		l.mu.Unlock()
		if n > than {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("the writer did not go on: %w", context.Cause(ctx))
		}
	}
}

// Faults are what the survivor's kernel has complained of, without the OOM killer's reports: they have a
// call trace, and are what such a machine is expected to say.
func Faults(m *vm.VM) []string {
	var faults []string
	oom := 0
	for _, l := range m.Console().Lines(0) {
		oom--
		if strings.Contains(l.Text, "invoked oom-killer") {
			oom = 4
		}
		if ktap.Fault(l.Text) && oom < 0 {
			faults = append(faults, l.Text)
		}
	}
	return faults
}
