// SPDX-License-Identifier: GPL-2.0-only

// Package bpf sees what a process, and the threads of o2fence in the kernel, ask of the kernel while a
// fence is under way: pages, slab objects, faults, changes of the address space, reclaim, long waits,
// threads, processes and programs (R19, R30). It watches the kernel's own tracepoints from eBPF; what
// it means is judged in package verdict.
//
// It needs amd64, Linux 6.1 or newer with BTF, and root.
package bpf

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bpf/symbol"
	"github.com/o2fence/o2fence/bridge/uapi"
)

// What errors wrap, for errors.Is.
var (
	ErrPermission   = errors.New("no permission: it needs root, with CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE")
	ErrNoBTF        = errors.New("this kernel has no BTF (/sys/kernel/btf/vmlinux): it must be built with CONFIG_DEBUG_INFO_BTF")
	ErrNoTracepoint = errors.New("a tracepoint is missing")
)

// Options are what an audit needs to know beforehand.
type Options struct {
	// WaitBound is how long a thread may sleep without it being an event.
	WaitBound time.Duration
	// BufferBytes is the room for events that were not read yet, a power of two and of at least a page;
	// 0 is 8 MiB. What does not fit is counted as lost.
	BufferBytes int
	// Fences has o2fence's tracepoint open and close windows. Its module must be loaded.
	Fences bool
}

// A Probe is the attached programs. Nothing is recorded before Follow, and outside of windows.
type Probe struct {
	objects auditObjects
	links   []link.Link
	reader  *ringbuf.Reader
	record  ringbuf.Record
}

// Open loads and attaches everything. The error wraps one of those above where they apply.
func Open(o Options) (*Probe, error) {
	spec, err := prepare(o)
	if err != nil {
		return nil, fmt.Errorf("bpf: %w", err)
	}
	p := new(Probe)
	if err := p.open(spec, o); err != nil {
		p.Close()
		return nil, fmt.Errorf("bpf: %w", meaning(err))
	}
	return p, nil
}

// prepare fills in what the programs have to know before they are loaded.
func prepare(o Options) (*ebpf.CollectionSpec, error) {
	if err := checkKernel(); err != nil {
		return nil, err
	}
	spec, err := loadAudit()
	if err != nil {
		return nil, err
	}
	values := map[string]any{auditVarWaitBoundNs: uint64(o.WaitBound)}
	if o.Fences {
		at, err := fenceFormat("event", "request")
		if err != nil {
			return nil, err
		}
		values[auditVarEventOffset], values[auditVarRequestOffset] = at[0], at[1]
		values[auditVarOpens], values[auditVarCloses] = bits(opening), bits(closing)
	}
	events := spec.Maps[auditMapEvents]
	if o.BufferBytes != 0 {
		events.MaxEntries = uint32(o.BufferBytes)
	}
	values[auditVarWakeBytes] = uint64(events.MaxEntries / 4)
	for name, value := range values {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, err
		}
	}
	return spec, nil
}

// A window is open while an attempt is under way: what ends one, ends it for whatever reason.
var (
	opening = []uapi.Event{uapi.EventInitiated}
	closing = []uapi.Event{
		uapi.EventAttemptFailed, uapi.EventFenced, uapi.EventNotice, uapi.EventFailed, uapi.EventObsolete,
	}
)

func bits(events []uapi.Event) (mask uint64) {
	for _, e := range events {
		mask |= 1 << e
	}
	return mask
}

func (p *Probe) open(spec *ebpf.CollectionSpec, o Options) error {
	if err := spec.LoadAndAssign(&p.objects, nil); err != nil {
		return err
	}
	var err error
	if p.reader, err = ringbuf.NewReader(p.objects.Events); err != nil {
		return err
	}
	for _, program := range p.programs() {
		l, err := link.AttachTracing(link.TracingOptions{Program: program})
		if err != nil {
			return err
		}
		p.links = append(p.links, l)
	}
	if !o.Fences {
		return nil
	}
	// The last one: no window opens before all programs are there.
	l, err := link.Tracepoint(fenceGroup, fenceName, p.objects.OnFence, nil)
	p.links = append(p.links, l)
	return err
}

// programs are those on tracepoints with BTF.
func (p *Probe) programs() []*ebpf.Program {
	o := &p.objects
	return []*ebpf.Program{
		o.OnPages, o.OnKmalloc, o.OnCache, o.OnUserFault, o.OnKernelFault, o.OnReclaim, o.OnCompaction,
		o.OnSyscall, o.OnSwitch, o.OnWakeup, o.OnFork, o.OnExec, o.OnExit,
	}
}

// Detach ends the recording. What was recorded can still be read.
func (p *Probe) Detach() error {
	var errs []error
	for _, l := range p.links {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	p.links = nil
	return errors.Join(errs...)
}

// Close detaches everything.
func (p *Probe) Close() error {
	errs := []error{p.Detach()}
	if p.reader != nil {
		errs = append(errs, p.reader.Close())
	}
	return errors.Join(append(errs, p.objects.Close())...)
}

// Follow audits a process and all processes that it starts from now on. Layout is where the runtime of
// a Go program keeps its goroutines, nil where that is not known. It is forgotten when the process
// executes another program. A sleep that has begun before is not seen.
func (p *Probe) Follow(pid int, layout *symbol.GoLayout) error {
	t := auditTarget{}
	if layout != nil {
		t.HasGo = 1
		t.Go = auditGoLayout{
			Tls: layout.TLS, G_m: layout.GM, M_curg: layout.MCurg,
			G_schedSp: layout.SchedSP, G_schedPc: layout.SchedPC, G_schedBp: layout.SchedBP,
		}
	}
	if err := p.objects.Targets.Put(uint32(pid), t); err != nil {
		return fmt.Errorf("bpf: following %d: %w", pid, err)
	}
	return nil
}

// Begin opens a window by hand, End closes it.
func (p *Probe) Begin() error {
	return p.set(p.objects.OpenedAt, p.objects.Forced, 1)
}

// End closes the window that Begin has opened. Windows of fences stay open.
func (p *Probe) End() error {
	return p.set(p.objects.ClosedAt, p.objects.Forced, 0)
}

func (p *Probe) set(at, forced *ebpf.Variable, value uint32) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("bpf: %w", err)
	}
	if err := errors.Join(at.Set(uint64(now.Nano())), forced.Set(value)); err != nil {
		return fmt.Errorf("bpf: %w", err)
	}
	return nil
}

// Windows are those that fences have opened.
type Windows struct {
	Closed   int           // and so were watched to their end
	Watched  time.Duration // how long these were
	UnderWay int           // attempts that keep the present one open
}

// Windows counts them in the kernel: also where events were lost it is right.
func (p *Probe) Windows() (Windows, error) {
	var closed, underWay uint32
	var ns uint64
	err := errors.Join(p.objects.Closed.Get(&closed), p.objects.UnderWay.Get(&underWay), p.objects.WatchedNs.Get(&ns))
	if err != nil {
		return Windows{}, fmt.Errorf("bpf: %w", err)
	}
	return Windows{Closed: int(closed), Watched: time.Duration(ns), UnderWay: int(underWay)}, nil
}

// Read waits for the next event, until a deadline. It may come late: while the buffer is not filling
// up it comes with the deadline only. The error wraps os.ErrDeadlineExceeded when there is
// none left then. e is valid after nil only.
func (p *Probe) Read(e *Event, deadline time.Time) error {
	p.reader.SetDeadline(deadline)
	if err := p.reader.ReadInto(&p.record); err != nil {
		return fmt.Errorf("bpf: %w", err)
	}
	if err := e.decode(p.record.RawSample); err != nil {
		return fmt.Errorf("bpf: %w", err)
	}
	return nil
}

// Lost is how many events could not be recorded so far: those without room, and those that a program
// missed because it was running on the same CPU already. Of the latter some may be no business of the
// audit; nobody knows.
//
// The faults of the kernel's own accesses are the exception: reading a stack that is not in memory
// makes one inside the program that records one. Programs run with preemption off and interrupts do
// not touch the memory of processes, so the others never are; with a real-time kernel they may be.
func (p *Probe) Lost() (uint64, error) {
	var lost uint64
	if err := p.objects.Lost.Get(&lost); err != nil {
		return 0, fmt.Errorf("bpf: %w", err)
	}
	_, err := os.Stat("/sys/kernel/realtime")
	realtime := err == nil
	for _, program := range append(p.programs(), p.objects.OnFence) {
		if program == p.objects.OnKernelFault && !realtime {
			continue
		}
		stats, err := program.Stats()
		if err != nil {
			return 0, fmt.Errorf("bpf: %w", err)
		}
		lost += stats.RecursionMisses
	}
	return lost, nil
}

// Waiting are the sleeps that have not ended, and of which more than the bound fell into the last
// window.
func (p *Probe) Waiting(bound time.Duration) ([]Event, error) {
	var ts unix.Timespec
	var from, to uint64
	var opened uint32
	err := errors.Join(unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts),
		p.objects.OpenedAt.Get(&from), p.objects.ClosedAt.Get(&to), p.objects.Opened.Get(&opened))
	if err != nil {
		return nil, fmt.Errorf("bpf: %w", err)
	}
	if to < from { // it is open
		to = uint64(ts.Nano())
	}
	var all []Event
	var tid uint32
	var raw auditEvent
	waits := p.objects.Waits.Iterate()
	for waits.Next(&tid, &raw) {
		began := max(raw.At, from)
		if opened-raw.Window > 1-raw.Inside { // it reaches over more than one: see overlap in audit.c
			began = raw.At
		}
		if to > began && time.Duration(to-began) > bound {
			e := raw.event()
			e.Value = to - began
			all = append(all, e)
		}
	}
	if err := waits.Err(); err != nil {
		return nil, fmt.Errorf("bpf: %w", err)
	}
	return all, nil
}

// Syscalls are how often each system call was made inside the windows, by number.
func (p *Probe) Syscalls() (map[int]uint64, error) {
	calls := make(map[int]uint64)
	var number uint32
	var perCPU []uint64
	all := p.objects.Syscalls.Iterate()
	for all.Next(&number, &perCPU) {
		for _, n := range perCPU {
			if n != 0 {
				calls[int(number)] += n
			}
		}
	}
	if err := all.Err(); err != nil {
		return nil, fmt.Errorf("bpf: %w", err)
	}
	return calls, nil
}

// meaning maps what the kernel says to this package's errors.
func meaning(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w (%w)", ErrPermission, err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %w", ErrNoTracepoint, err)
	}
	return err
}
