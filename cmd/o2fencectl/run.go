// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/bridge/memsafe/launch"
)

// The exit codes of run that are not the command's: what env(1), nohup(1) and timeout(1) use.
const (
	exitNotStarted = 125
	exitCannotRun  = 126
	exitNoCommand  = 127
	exitSignaled   = 128 // and the signal's number
)

// A statusError is the exit code of run. There may be an error beside it, or the command has said it all.
type statusError struct {
	error
	code int
}

func (e statusError) Unwrap() error { return e.error }

// A launcher is what run needs to know, and to hold.
type launcher struct {
	budget   int // KiB
	unlocked bool
	command  []string

	reserve memsafe.Reserve
	warn    func(format string, args ...any)
}

func (t *tool) runCommand() *cobra.Command {
	var budget string
	l := &launcher{reserve: memsafe.SystemReserve(), warn: t.warn}
	cmd := &cobra.Command{
		Use:   "run --budget KIB -- COMMAND [ARGUMENT...]",
		Short: "Run a program under the memory rules: an iSCSI, multipath, NBD or FUSE daemon",
		Long: `Starts the command so that it need not wait for memory that only it can help to free, and stays with
it until it and all that it has started have ended:

  - vm.min_free_kbytes is raised by the budget, and lowered again at the end;
  - every thread and child may use that reserve (PF_MEMALLOC), and never starts I/O to get memory;
  - its memory is locked, now and in future, from its first instruction on; a program that does that
    itself may be given --unlocked;
  - the OOM killer leaves it alone;
  - its sockets receive with the reserve, from a second after they were opened at the latest.

What is not guaranteed: children that the command forks are not locked, and a command that executes
another, as a shell script does, is not locked any more. Nobody bounds what the command asks for: the
budget is yours to know. It must not write file data back (fsync) nor wait for other parts of the kernel
that may need memory; of some of that the kernel warns, so do not set kernel.panic_on_warn. When this
process is killed, the command goes on; the reserve is given back after the command's end by the next
that raises it.

Exit codes: the command's, 128 and the number of the signal that ended it, 125 when it could not be
brought under the rules, 126 when it cannot be executed, 127 when it was not found, 2 when this command
line is wrong. Signals are passed on.`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			if l.budget, err = parseBudget(budget); err != nil {
				return usageError{err}
			}
			l.command = args
			return l.run()
		},
	}
	cmd.Flags().StringVar(&budget, "budget", "", "`KiB` that the kernel may have to allocate for the command at a time; required")
	cmd.Flags().BoolVar(&l.unlocked, "unlocked", false, "the command locks its memory by itself")
	cmd.Flags().SetInterspersed(false) // what follows the command is the command's
	return cmd
}

func parseBudget(text string) (int, error) {
	kib, err := strconv.ParseUint(text, 10, 31)
	if err != nil || kib == 0 {
		return 0, fmt.Errorf("--budget %q: expected a number of KiB from 1 to %d", text, math.MaxInt32)
	}
	return int(kib), nil
}

// run returns a statusError. What is cheap to find wrong comes before what changes the machine.
func (l *launcher) run() error {
	path, err := exec.LookPath(l.command[0])
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return statusError{err, exitNoCommand}
	case err != nil:
		return statusError{err, exitCannotRun}
	}
	status, err := l.under(path)
	switch {
	case errors.Is(err, launch.ErrExec):
		return statusError{err, exitCannotRun}
	case err != nil:
		return statusError{err, exitNotStarted}
	case status.Signaled():
		return statusError{errSaid, exitSignaled + int(status.Signal())}
	case status.ExitStatus() != 0:
		return statusError{errSaid, status.ExitStatus()}
	}
	return nil
}

// under runs the command under the rules. The order is that of memsafe.Prepare.
func (l *launcher) under(path string) (unix.WaitStatus, error) {
	ctx := context.Background() // a signal is the command's: it decides when to end
	signals := catch()
	defer signal.Stop(signals)
	client, err := kernel.Dial()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	if err := errors.Join(launch.Adopt(), memsafe.SpareFromOOM()); err != nil {
		return 0, err
	}
	name := filepath.Base(path)
	if err := l.reserve.Raise(ctx, name, l.budget); err != nil {
		return 0, err
	}
	// What the command has left behind counts as ended by now, or is still a holder.
	defer func() {
		if err := l.reserve.Release(ctx); err != nil {
			l.warn("%v", err)
		}
	}()
	p, err := launch.Start(launch.Program{Path: path, Args: l.command, Flag: flagThread, Unlocked: l.unlocked})
	if err != nil {
		return 0, err
	}
	// It must not be without its reserve should we be killed.
	if err := l.reserve.Share(ctx, p.PID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.warn("%v", err)
	}
	go l.attend(ctx, p, client, signals)
	return p.Wait()
}

// flagThread asks the kernel to put the calling thread into PF_MEMALLOC mode.
func flagThread() error {
	client, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Memalloc(context.Background())
}

// lookAgain is how long a socket of the command may be open before it is marked, and what the command
// has undone stays undone.
const lookAgain = time.Second

// attend passes signals on and tends the program, until it ends.
func (l *launcher) attend(ctx context.Context, p *launch.Process, m memsafe.Marker, signals <-chan os.Signal) {
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	marked, failed := map[string]bool{}, false
	for {
		select {
		case s := <-signals:
			if err := p.Signal(s.(unix.Signal)); err != nil {
				l.warn("%v is not passed on: %v", s, err)
			}
		case <-look.C:
			err := p.SpareFromOOM()
			if err == nil {
				err = l.markSockets(ctx, p, m, marked)
			}
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				look.Stop() // it has ended, and what it has left behind is not looked at
			} else if err != nil && !failed {
				l.warn("%v", err)
				failed = true // said once
			}
		}
	}
}

// markSockets marks those that are new, and notes how many there are.
func (l *launcher) markSockets(ctx context.Context, p *launch.Process, m memsafe.Marker, marked map[string]bool) error {
	before := len(marked)
	if err := p.MarkSockets(ctx, m, marked); err != nil || len(marked) == before {
		return err
	}
	return l.reserve.NoteSockets(ctx, len(marked))
}

// catch returns the signals that are passed on. Those that a terminal sends to all of its foreground, the
// command included, need not be; for us they must not be the end either.
func catch() chan os.Signal {
	signals := make(chan os.Signal, 8)
	byTerminal := []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGWINCH, unix.SIGCONT}
	if inForeground() {
		signal.Notify(make(chan os.Signal, 1), byTerminal...) // to ignore them would be inherited
	} else {
		signal.Notify(signals, byTerminal...)
	}
	signal.Notify(signals, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	return signals
}

func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
