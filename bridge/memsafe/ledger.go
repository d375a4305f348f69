// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A ledger is who has raised the reserve by how much. Whoever changes it holds its lock.
type ledger struct {
	Base   int     `json:"base"`   // KiB that the sysctl had, or would have, without any claim
	Before int     `json:"before"` // the sysctl before the last change, as long as that is not done
	After  int     `json:"after"`  // and after it
	Claims []Claim `json:"claims"`
}

// reconcile takes in what has happened since the last change: claims whose holders are gone, and
// a value that is not of our making.
func (l *ledger) reconcile(now int) {
	if now != l.Before && now != l.After {
		l.Base = now
	}
	for i := range l.Claims {
		c := &l.Claims[i]
		c.Holders = slices.DeleteFunc(c.Holders, func(p Process) bool { return !p.alive() })
	}
	l.Claims = slices.DeleteFunc(l.Claims, func(c Claim) bool { return len(c.Holders) == 0 })
}

// want is what the sysctl should be.
func (l *ledger) want() int {
	kib := l.Base
	for _, c := range l.Claims {
		kib += c.KiB
	}
	return kib
}

func (l *ledger) find(p Process) int {
	return slices.IndexFunc(l.Claims, func(c Claim) bool { return slices.Contains(c.Holders, p) })
}

// drop removes a holder, and its claim when it was the last.
func (l *ledger) drop(p Process) {
	i := l.find(p)
	if i < 0 {
		return
	}
	l.Claims[i].Holders = slices.DeleteFunc(l.Claims[i].Holders, func(h Process) bool { return h == p })
	if len(l.Claims[i].Holders) == 0 {
		l.Claims = slices.Delete(l.Claims, i, i+1)
	}
}

func readLedger(file string) (l ledger, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&l); err != nil {
		return l, fmt.Errorf("%s: %w", file, err)
	}
	return l, nil
}

// done says that the sysctl is what the ledger says. Nothing claimed is nothing to remember.
func (l *ledger) done(file string) error {
	if len(l.Claims) == 0 {
		err := os.Remove(file)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	l.Before = l.After
	return l.write(file)
}

// write replaces the file as a whole, so that a reader never sees half of it.
func (l *ledger) write(file string) error {
	text, err := json.MarshalIndent(l, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// forget leaves the ledger as if the calling process had never claimed.
func (l *ledger) forget(file string) error {
	self, err := processOf(os.Getpid())
	if err != nil {
		return err
	}
	l.drop(self)
	return l.write(file)
}

// A Process names one process of this boot: a number alone is used again.
type Process struct {
	PID     int    `json:"pid"`
	Started uint64 `json:"started"` // in clock ticks since boot, field 22 of /proc/PID/stat
}

// processOf names a process. The error is fs.ErrNotExist when there is none, or only a zombie, which
// holds no memory.
func processOf(pid int) (Process, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, unix.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	// Field 3, the state, is the first one behind the name.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return Process{}, fmt.Errorf("process %d: too few fields in its stat", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return Process{}, fmt.Errorf("process %d has ended: %w", pid, fs.ErrNotExist)
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return Process{PID: pid, Started: started}, nil
}

// alive is true also when that cannot be found out: what is in doubt is not given back.
func (p Process) alive() bool {
	now, err := processOf(p.PID)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return err != nil || now == p
}
