// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An Account is who may take how much from the reserve. (R20, R21)
type Account struct {
	ReserveKiB int `json:"reserve_kib"` // vm.min_free_kbytes
	OwnKiB     int `json:"own_kib"`     // of it without any claim: what the kernel or an administrator wants
	ClaimedKiB int `json:"claimed_kib"`
	LeftKiB    int `json:"left_kib"` // that a new claim may have

	Grants []Grant `json:"grants"`
}

// A Grant is a claim with the processes that hold it, or a process that is in PF_MEMALLOC mode and has
// claimed nothing.
type Grant struct {
	Name      string         `json:"name"`
	BudgetKiB int            `json:"budget_kib"` // 0: nothing was claimed
	Sockets   int            `json:"sockets"`    // that may receive with the reserve, as its holder has noted
	Processes []ProcessState `json:"processes"`
}

// A ProcessState is how far a process keeps the rules, as /proc shows it.
type ProcessState struct {
	PID       int `json:"pid"`
	Threads   int `json:"threads"`
	Flagged   int `json:"flagged_threads"` // in PF_MEMALLOC mode
	LockedKiB int `json:"locked_kib"`
}

// Account shows the claims that are held and the processes in PF_MEMALLOC mode. It changes nothing: what
// processes that are gone have left is not shown, and given back by whoever calls Settle. Without root
// it shows the same, where /proc is not mounted to hide other people's processes.
func (r Reserve) Account() (Account, error) {
	l, err := readLedger(r.Ledger)
	if err != nil {
		return Account{}, err
	}
	now, err := r.read()
	if err != nil {
		return Account{}, err
	}
	l.reconcile(now)
	left, err := r.left(&l)
	if err != nil {
		return Account{}, err
	}
	a := Account{ReserveKiB: now, OwnKiB: l.Base, ClaimedKiB: l.want() - l.Base, LeftKiB: max(left, 0), Grants: []Grant{}}
	known := map[int]bool{}
	for _, c := range l.Claims {
		g := Grant{Name: c.Name, BudgetKiB: c.KiB, Sockets: c.Sockets}
		for _, p := range c.Holders {
			known[p.PID] = true
			if state, _, err := stateOf(p.PID); err == nil {
				g.Processes = append(g.Processes, state)
			}
		}
		a.Grants = append(a.Grants, g)
	}
	unclaimed, err := unclaimed(known)
	a.Grants = append(a.Grants, unclaimed...)
	return a, err
}

// unclaimed finds the processes that were brought into the mode by Enter or by o2fencectl run, children of
// theirs for example, and have no claim of their own.
func unclaimed(known map[int]bool) (grants []Grant, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || known[pid] {
			continue
		}
		state, name, err := stateOf(pid)
		if err != nil || state.Flagged == 0 {
			continue // ended meanwhile, or not one of these
		}
		grants = append(grants, Grant{Name: name, Processes: []ProcessState{state}})
	}
	slices.SortFunc(grants, func(a, b Grant) int { return a.Processes[0].PID - b.Processes[0].PID })
	return grants, nil
}

// The mode is told from the moments in which any task that reclaims memory has the flag by
// PR_SET_IO_FLUSHER's, which Enter sets as well; kernel threads are no process's.
const (
	pfLocalThrottle = 0x100000
	pfKthread       = 0x200000
	inMode          = pfMemalloc | pfLocalThrottle
)

func stateOf(pid int) (s ProcessState, name string, err error) {
	s.PID = pid
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return s, "", err
	}
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return s, "", err
		}
		flags, err := taskFlags(text)
		if err != nil {
			return s, "", fmt.Errorf("%s: %w", file, err)
		}
		s.Threads++
		if flags&(inMode|pfKthread) == inMode {
			s.Flagged++
		}
	}
	name, s.LockedKiB, err = readStatus(fmt.Sprintf("/proc/%d/status", pid))
	return s, name, err
}

// readStatus reads a process's name and how much of its memory is locked.
func readStatus(file string) (name string, lockedKiB int, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", 0, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Name":
			name = strings.TrimSpace(value)
		case "VmLck":
			lockedKiB, err = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		}
	}
	return name, lockedKiB, err
}
