// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// rrPriority is the lowest of all real-time priorities: before every ordinary process, behind
	// everything that somebody found more urgent, the kernel's own interrupt threads (50) included.
	rrPriority = 1

	// rrMicroseconds is how long one thread may run without ever sleeping. The longest honest thing
	// is a collection, of some milliseconds for each 10 MiB.
	rrMicroseconds = 2_000_000
)

// RealTime puts all threads of the process, and so all that they start, into SCHED_RR at the lowest
// priority. The daemon cannot wait for memory by way of the processor, because it need not queue behind
// the many who are busy with reclaim: when memory is short all processors are.
//
// It cannot starve the machine. RLIMIT_RTTIME bounds a thread that does not sleep to 2 s: then the
// kernel sends SIGXCPU, all threads become ordinary ones, for good, and overrun is called if it is not
// nil. There is no hard limit, which would kill the daemon that is needed; late is better than
// never. A thread that loops but sleeps a little is not seen by it: that one is bounded by
// kernel.sched_rt_runtime_us, or from Linux 6.12 on by the fair server, which keep a twentieth of the
// time for the others. That alone would not do: it is the machine's setting and not ours to rely on,
// it throttles all real-time processes together, also heartbeats, and leaves a loop 95 % of the time.
//
// SCHED_RR and not SCHED_FIFO, because Go's threads sometimes spin for one another, and in FIFO the
// one that is waited for would never run on a single processor. SCHED_RESET_ON_FORK is not possible:
// it would leave new threads out. A process that the daemon starts inherits the priority, so start
// none. Nothing is to be restored at exit: policy and limit end with the process.
//
// It needs CAP_SYS_NICE. The error is ErrScheduler.
func RealTime(overrun func()) error {
	return realTime(rrMicroseconds, overrun)
}

func realTime(microseconds uint64, overrun func()) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGXCPU)
	if err := enterRealTime(microseconds); err != nil {
		signal.Stop(signals)
		return step(ErrScheduler, "run it as root, with CAP_SYS_NICE, in a cgroup with real-time bandwidth if the kernel has CONFIG_RT_GROUP_SCHED", err)
	}
	go func() {
		<-signals
		// That fails only for what it was given. The signal comes again every second.
		_ = setScheduler(unix.SCHED_NORMAL, 0)
		if overrun != nil {
			overrun()
		}
	}()
	return nil
}

func enterRealTime(microseconds uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_RTTIME, &limit); err != nil {
		return fmt.Errorf("RLIMIT_RTTIME: %w", err)
	}
	limit.Cur = min(microseconds, limit.Max)
	if err := unix.Setrlimit(unix.RLIMIT_RTTIME, &limit); err != nil {
		return fmt.Errorf("RLIMIT_RTTIME: %w", err)
	}
	return setScheduler(unix.SCHED_RR, rrPriority)
}

// setScheduler sets all threads. One that is started meanwhile by one that is not yet set has to be
// found too, so it looks until it finds none.
func setScheduler(policy, priority uint32) error {
	for found := true; found; {
		found = false
		tasks, err := filepath.Glob("/proc/self/task/*")
		if err != nil || len(tasks) == 0 {
			return fmt.Errorf("no threads in /proc/self/task: %w", os.ErrNotExist)
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(filepath.Base(task))
			if err != nil {
				return err
			}
			changed, err := setThread(tid, policy, priority)
			if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
				return err
			}
			found = found || changed
		}
	}
	return nil
}

func setThread(tid int, policy, priority uint32) (changed bool, err error) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return false, fmt.Errorf("sched_getattr: %w", err)
	}
	if attr.Policy == policy && attr.Priority == priority {
		return false, nil
	}
	attr = &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority}
	if err := unix.SchedSetAttr(tid, attr, 0); err != nil {
		return false, fmt.Errorf("sched_setattr: %w", err)
	}
	return true, nil
}
