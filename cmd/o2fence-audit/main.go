// SPDX-License-Identifier: GPL-2.0-only

// O2fence-audit watches what a process, and o2fence's threads in the kernel, ask of the kernel while a
// fence is under way, and says whether any of it could wait for memory.
//
// Exit codes: 0 nothing was asked for; 10 only what cannot wait, inside the claim; 11 something
// forbidden; 12 unknown, because something may have been missed; 1 it failed; 2 the command line is
// wrong; 3 this kernel lacks BTF or a tracepoint, or o2fence is not loaded; 4 no permission.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/bpf"
	"github.com/o2fence/o2fence/bpf/symbol"
	"github.com/o2fence/o2fence/bpf/verdict"
)

// The exit codes beyond 0.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNoTrace     = 3
	exitPermission  = 4
	exitBounded     = 10
	exitForbidden   = 11
	exitUnknown     = 12
	exitCodesInHelp = `
Exit codes:
   0  none: nothing was asked of the kernel's memory
  10  bounded: only allocations that cannot wait, inside the claim
  11  forbidden: something may wait for memory, or cannot be bounded
  12  unknown: events were lost, the process ended, or no fence was seen
   1  it failed
   2  the command line is wrong
   3  this kernel lacks BTF or a tracepoint, or o2fence is not loaded
   4  no permission
`
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	t := &tool{out: os.Stdout, errs: os.Stderr}
	err := newRoot(t).ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "o2fence-audit:", err)
	}
	return exitCode(t.verdict, err)
}

// A usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func exitCode(v verdict.Class, err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, bpf.ErrNoBTF), errors.Is(err, bpf.ErrNoTracepoint):
		return exitNoTrace
	case errors.Is(err, bpf.ErrPermission), errors.Is(err, symbol.ErrHidden), errors.Is(err, fs.ErrPermission):
		return exitPermission
	case err != nil:
		return exitFailed
	}
	switch v {
	case verdict.Bounded:
		return exitBounded
	case verdict.Forbidden:
		return exitForbidden
	case verdict.Unknown:
		return exitUnknown
	}
	return 0
}

// A tool is the command line, and the outcome.
type tool struct {
	pid       int
	comm      string
	command   []string
	duration  time.Duration // 0: fences open and close the windows
	after     time.Duration
	within    time.Duration
	fences    int
	claimKiB  int
	waitBound time.Duration
	bufferKiB int
	json      bool
	live      bool
	stacks    bool
	svg       string

	out, errs io.Writer
	verdict   verdict.Class
}

const examples = `  o2fence-audit --comm o2fenced                      the next fence
  o2fence-audit --comm o2fenced --claim 64 --svg fence.svg
  o2fence-audit --pid 812 --for 10s --json
  o2fence-audit --after 2s --for 10s -- ./daemon -f   a program that it starts`

func newRoot(t *tool) *cobra.Command {
	root := &cobra.Command{
		Use:   "o2fence-audit {--pid PID | --comm NAME | -- COMMAND [ARGS]}",
		Short: "Prove that a process does not wait for memory while it fences",
		Long: "Watches a process and what it starts, and o2fence's threads in the kernel, from INITIATE to FENCED,\n" +
			"or for a given time: each allocation of pages and slab objects, page fault, mmap and brk, direct\n" +
			"reclaim, long wait, new thread, fork and exec, and who has asked for it.",
		Example:       examples,
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			t.command = args
			if err := t.check(cmd); err != nil {
				return usageError{err}
			}
			return t.audit(cmd.Context())
		},
	}
	root.SetHelpTemplate(root.HelpTemplate() + exitCodesInHelp)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())}
	})
	root.CompletionOptions.DisableDefaultCmd = true
	f := root.Flags()
	f.SortFlags = false
	f.IntVar(&t.pid, "pid", 0, "audit this process")
	f.StringVar(&t.comm, "comm", "", "audit the one process of this name, as ps -o comm has it")
	f.DurationVar(&t.duration, "for", 0, "watch all of this time, and not fences")
	f.DurationVar(&t.after, "after", 0, "begin that much later, with --for")
	f.IntVar(&t.fences, "fences", 1, "end after this many fences; those under way at the same time count as one")
	f.DurationVar(&t.within, "within", 0, "give up when the fences take longer; 0 waits for ever")
	f.IntVar(&t.claimKiB, "claim", 0, "`KiB` that the process may take from the reserve in a fence")
	f.DurationVar(&t.waitBound, "wait", 100*time.Millisecond, "how long a sleep may be that is not there to wait")
	f.IntVar(&t.bufferKiB, "buffer", 8192, "`KiB` for events not yet read, a power of two; what does not fit is lost")
	f.BoolVar(&t.json, "json", false, "print JSON")
	f.BoolVar(&t.stacks, "stacks", false, "print the stacks too")
	f.StringVar(&t.svg, "svg", "", "write a flame graph of who allocated to `FILE`")
	f.BoolVar(&t.live, "live", false, "show what is seen while it goes on, on a terminal")
	return root
}

// check says what would be right where the command line is wrong.
func (t *tool) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	targets := 0
	for _, is := range []bool{given("pid"), given("comm"), len(t.command) > 0} {
		if is {
			targets++
		}
	}
	switch {
	case targets != 1:
		return errors.New("what is to be audited? one of --pid PID, --comm NAME and -- COMMAND")
	case given("pid") && t.pid < 1:
		return fmt.Errorf("--pid %d: a process has a number above 0", t.pid)
	case given("for") && t.duration <= 0:
		return fmt.Errorf("--for %v: expected a time such as 10s", t.duration)
	case given("for") && (given("fences") || given("within")):
		return errors.New("--fences and --within are for audits of fences, without --for")
	case given("after") && (!given("for") || t.after < 0):
		return errors.New("--after TIME goes with --for TIME")
	case t.fences < 1:
		return fmt.Errorf("--fences %d: expected 1 or more", t.fences)
	case t.within < 0 || t.waitBound <= 0:
		return errors.New("--within and --wait take a time such as 100ms")
	case t.claimKiB < 0:
		return fmt.Errorf("--claim %d: expected KiB, 0 or more", t.claimKiB)
	case t.bufferKiB < 4 || t.bufferKiB > 1<<20 || t.bufferKiB&(t.bufferKiB-1) != 0:
		return fmt.Errorf("--buffer %d: expected a power of two, from 4 to %d", t.bufferKiB, 1<<20)
	case t.live && t.json:
		return errors.New("--live is for a terminal, --json for programs: choose one")
	}
	return nil
}
