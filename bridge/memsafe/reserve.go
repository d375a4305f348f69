// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Reserve is the machine's memory that only PF_MEMALLOC tasks may take: what lies below the
// watermark that vm.min_free_kbytes sets. It is one number for all, so those who raise it keep a
// ledger of who has raised it by how much. (R21)
type Reserve struct {
	Sysctl string // the file of vm.min_free_kbytes
	Ledger string // a file in a directory that does not outlive a boot; it is made when missing

	// MachineKiB is how much memory there is; 0: ask the kernel.
	MachineKiB int
}

// SystemReserve is that of this machine.
func SystemReserve() Reserve {
	return Reserve{Sysctl: "/proc/sys/vm/min_free_kbytes", Ledger: "/run/o2fence/reserve.json"}
}

// share is the part of the machine that the reserve may become: what is in it nobody else can use,
// and a machine with too much of it kills processes at once.
const share = 4

// A Claim is a budget that the reserve was raised by.
type Claim struct {
	Name    string    `json:"name"`
	KiB     int       `json:"kib"`
	Holders []Process `json:"holders"` // it lasts as long as one of them lives
	Sockets int       `json:"sockets"` // that were marked, see NoteSockets
}

const remedyReserve = "run it as root where /proc/sys and /run can be written, not in a container of its own"

// Raise raises the reserve by kib KiB on behalf of the calling process, until Release or its end. It
// is not added to what the process has raised before but replaces it: the process is the same after
// an exec.
//
// With it, what the kernel takes on a flagged task's behalf cannot wait for memory because that much
// is kept free for such tasks: ordinary ones start reclaim before, and wait for it, at a watermark
// that is higher by kib. It is not instantaneous. The watermark counts at once, but a machine that
// is short of memory now frees it in the course of its next allocations.
//
// Others may change the sysctl meanwhile. A value that no holder of the ledger has written is taken
// for what an administrator wants beside all claims: it is never lowered, and the claims are
// added to it by whoever changes the ledger next.
//
// A process that was killed could not give back its part. The next call of any method, by whomever,
// does it for all that are gone.
//
// The error is ErrReserve, and ErrBudget too when kib is not positive or would make the reserve
// more than a quarter of the machine.
func (r Reserve) Raise(ctx context.Context, name string, kib int) error {
	self, err := processOf(os.Getpid())
	if err != nil {
		return step(ErrReserve, remedyReserve, err)
	}
	return r.update(ctx, func(l *ledger) error {
		l.drop(self)
		if err := r.admit(l, kib); err != nil {
			return err
		}
		l.Claims = append(l.Claims, Claim{Name: name, KiB: kib, Holders: []Process{self}})
		return nil
	})
}

// Share makes pid another holder of the calling process's claim: it lasts until both are gone.
// The error is ErrReserve, and fs.ErrNotExist too when there is no such process or claim.
func (r Reserve) Share(ctx context.Context, pid int) error {
	self, err1 := processOf(os.Getpid())
	other, err2 := processOf(pid)
	if err := errors.Join(err1, err2); err != nil {
		return step(ErrReserve, remedyReserve, err)
	}
	return r.update(ctx, func(l *ledger) error {
		i := l.find(self)
		if i < 0 {
			return step(ErrReserve, "raise the reserve first", fs.ErrNotExist)
		}
		l.Claims[i].Holders = append(l.Claims[i].Holders, other)
		return nil
	})
}

// NoteSockets writes down beside the calling process's claim how many sockets were marked for it, for whoever
// looks at the Account. The error is ErrReserve, and fs.ErrNotExist too when there is no such claim.
func (r Reserve) NoteSockets(ctx context.Context, sockets int) error {
	self, err := processOf(os.Getpid())
	if err != nil {
		return step(ErrReserve, remedyReserve, err)
	}
	return r.update(ctx, func(l *ledger) error {
		i := l.find(self)
		if i < 0 {
			return step(ErrReserve, "raise the reserve first", fs.ErrNotExist)
		}
		l.Claims[i].Sockets = sockets
		return nil
	})
}

// Release gives back what the calling process has raised; a claim that is shared lasts until its
// other holders are gone, and somebody calls Settle. No claim is no error.
func (r Reserve) Release(ctx context.Context) error {
	self, err := processOf(os.Getpid())
	if err != nil {
		return step(ErrReserve, remedyReserve, err)
	}
	return r.update(ctx, func(l *ledger) error { l.drop(self); return nil })
}

// Settle gives back what processes that are gone have left raised, and returns what is left.
func (r Reserve) Settle(ctx context.Context) (claims []Claim, err error) {
	err = r.update(ctx, func(l *ledger) error { claims = l.Claims; return nil })
	return claims, err
}

// admit refuses what would be no reserve, and what would leave too little beside it.
func (r Reserve) admit(l *ledger, kib int) error {
	if kib <= 0 {
		return step(ErrReserve, "declare how many KiB are needed, at least 1",
			fmt.Errorf("%w: %d KiB", ErrBudget, kib))
	}
	left, err := r.left(l)
	if err != nil {
		return step(ErrReserve, remedyReserve, err)
	}
	if kib > left {
		return step(ErrReserve, fmt.Sprintf("at most %d KiB are left: declare less, or add memory", max(left, 0)),
			fmt.Errorf("%w: %d KiB beside the %d KiB that are reserved already are %d KiB more than a quarter of the machine",
				ErrBudget, kib, l.want(), kib-left))
	}
	return nil
}

// left is how much more may be claimed.
func (r Reserve) left(l *ledger) (kib int, err error) {
	machine := r.MachineKiB
	if machine == 0 {
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			return 0, fmt.Errorf("sysinfo: %w", err)
		}
		machine = int(info.Totalram * uint64(info.Unit) >> 10)
	}
	return machine/share - l.want(), nil
}

// update changes the ledger, and the sysctl to what it says then. The ledger is written first, with
// the values before and after: whoever is killed in between leaves one of the two behind, and the
// next knows it for ours.
func (r Reserve) update(ctx context.Context, change func(*ledger) error) error {
	unlock, err := r.lock(ctx)
	if err != nil {
		return step(ErrReserve, remedyReserve, err)
	}
	defer unlock()
	l, err := readLedger(r.Ledger)
	if err != nil {
		return step(ErrReserve, "remove the file and set vm.min_free_kbytes to what it should be", err)
	}
	now, err := r.read()
	if err != nil {
		return step(ErrReserve, remedyReserve, err)
	}
	l.reconcile(now)
	if err := change(&l); err != nil {
		return err
	}
	return step(ErrReserve, remedyReserve, r.apply(l, now))
}

func (r Reserve) apply(l ledger, now int) error {
	l.Before, l.After = now, l.want()
	if l.After == now {
		return l.done(r.Ledger)
	}
	if err := l.write(r.Ledger); err != nil {
		return err
	}
	if err := r.write(l.After); err != nil {
		// Nothing was raised, so nothing must be given back for the claim that is new.
		return errors.Join(err, l.forget(r.Ledger))
	}
	return l.done(r.Ledger)
}

// lock keeps others out. What is done under it is short; a context is for one that was stopped there.
func (r Reserve) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(r.Ledger), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(r.Ledger+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { file.Close() }, nil
		case err != unix.EWOULDBLOCK && err != unix.EINTR:
			file.Close()
			return nil, fmt.Errorf("%s: flock: %w", file.Name(), err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("%s is held by another process: %w", r.Ledger, ctx.Err())
		case <-time.After(lockAgain):
		}
	}
}

const lockAgain = 10 * time.Millisecond

func (r Reserve) read() (int, error) {
	text, err := os.ReadFile(r.Sysctl)
	if err != nil {
		return 0, err
	}
	kib, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", r.Sysctl, err)
	}
	return kib, nil
}

// write believes the sysctl only when it reads back: some containers take what is written and drop it.
func (r Reserve) write(kib int) error {
	if kib > math.MaxInt32 {
		return fmt.Errorf("%s: %d: %w", r.Sysctl, kib, unix.ERANGE)
	}
	file, err := os.OpenFile(r.Sysctl, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, kib)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if got, err := r.read(); err != nil || got != kib {
		return errors.Join(fmt.Errorf("%s: wrote %d, read back %d", r.Sysctl, kib, got), err)
	}
	return nil
}
