// SPDX-License-Identifier: GPL-2.0-only

// Package verdict judges what package bpf has seen: whether a process could have waited for memory
// while a fence was under way, and which line of it is to blame.
package verdict

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/o2fence/o2fence/bpf"
	"github.com/o2fence/o2fence/bpf/symbol"
)

// A Site is all events of one kind that came from one place.
type Site struct {
	Class Class  `json:"class"`
	Why   string `json:"why"`
	Kind  string `json:"kind"`
	Blame string `json:"blame"` // the frame that has to answer for it
	Count uint64 `json:"count"`
	Bytes uint64 `json:"bytes"` // allocated or mapped

	Longest time.Duration `json:"longest_ns"` // of waits
	Comm    string        `json:"thread"`
	PID     int           `json:"pid"`
	Kernel  bool          `json:"kernel_thread"`
	Flagged bool          `json:"memalloc"` // the task was in PF_MEMALLOC mode
	GFP     string        `json:"gfp"`
	Syscall string        `json:"syscall"`
	Text    string        `json:"text"` // the file that was opened or executed

	Stack []symbol.Frame `json:"stack"` // innermost first: the kernel's, then the program's
}

// Place is file and line of the frame to blame, and where there is none the frame.
func (s *Site) Place() string {
	if i := strings.LastIndexByte(s.Blame, ' '); i >= 0 && strings.Contains(s.Blame[i:], ":") {
		return s.Blame[i+1:]
	}
	return s.Blame
}

// A Report is the outcome of an audit.
type Report struct {
	Verdict Class    `json:"verdict"`
	Reasons []string `json:"reasons"`

	Program  string            `json:"program"`
	PID      int               `json:"pid"`
	Windows  int               `json:"windows"` // that were watched to their end
	Watched  time.Duration     `json:"watched_ns"`
	Lost     uint64            `json:"lost"`
	ClaimKiB int               `json:"claim_kib"`
	TakenKiB int               `json:"taken_kib"` // from the reserve at most, in the window that took most
	Syscalls map[string]uint64 `json:"syscalls"`
	Sites    []*Site           `json:"sites"` // the worst first
}

// A Collector makes a report of events. Not safe for concurrent use.
type Collector struct {
	kernel   *symbol.Kernel
	gfp      *bpf.GFP
	images   *symbol.Cache
	program  *symbol.Process
	pid      int
	followed map[int]*symbol.Process // nil: nothing is known of it
	born     map[int]string          // who is to blame for a process
	sites    map[string]*Site
	taken    map[uint32]uint64 // bytes by window
}

// New is for the audit of one process.
func New(kernel *symbol.Kernel, gfp *bpf.GFP, images *symbol.Cache, program *symbol.Process, pid int) *Collector {
	return &Collector{
		kernel: kernel, gfp: gfp, images: images, program: program, pid: pid,
		followed: map[int]*symbol.Process{pid: program}, born: make(map[int]string),
		sites: make(map[string]*Site), taken: make(map[uint32]uint64),
	}
}

// Add takes the next event, in the order in which they came.
func (c *Collector) Add(e *bpf.Event) {
	switch e.Kind {
	case bpf.Born:
		c.followed[int(e.Value)] = c.followed[e.PID] // it has what its parent had mapped
		return
	case bpf.Replaced:
		c.replace(e.PID)
		return
	case bpf.Exited:
		delete(c.followed, e.PID)
		return
	}
	if p := c.followed[e.PID]; p != nil && e.Kind == bpf.Map {
		p.Changed()
	}
	key := keyOf(e)
	s := c.sites[key]
	if s == nil {
		s = c.site(e)
		c.sites[key] = s
	}
	c.count(s, e)
	if e.Kind == bpf.Fork {
		c.born[int(e.Value)] = s.Blame
	}
}

// Process is what is known of a followed process, nil for nothing.
func (c *Collector) Process(pid int) *symbol.Process { return c.followed[pid] }

// replace forgets what a process had mapped. It may have ended already: then nothing is known of it.
func (c *Collector) replace(pid int) {
	p, err := c.images.Process(pid)
	if err != nil {
		p = nil
	}
	c.followed[pid] = p
	if pid == c.pid && p != nil {
		c.program = p
	}
}

func (c *Collector) count(s *Site, e *bpf.Event) {
	s.Count++
	switch e.Kind {
	case bpf.Pages, bpf.Slab:
		s.Bytes += e.Value
		// Also those that decline the reserve: the network tries like that first, and only when memory is
		// short a second time with it.
		if s.Class == Bounded {
			c.taken[e.Window] += e.Value
		}
	case bpf.Map:
		if s.Syscall != "brk" {
			s.Bytes += e.Value
		}
	case bpf.Wait:
		s.Longest = max(s.Longest, time.Duration(e.Value))
	}
}

func keyOf(e *bpf.Event) string {
	b := fmt.Appendf(nil, "%d %d %d %d %d %d %s %s", e.Kind, e.PID, e.Syscall, e.GFP, e.State, e.Flags&bpf.FlagMemalloc, e.Comm, e.Text)
	for _, stack := range [][]uint64{e.Kernel, e.User, e.Go} {
		b = append(b, 0)
		for _, address := range stack {
			b = binary.NativeEndian.AppendUint64(b, address)
		}
	}
	return string(b)
}

func (c *Collector) site(e *bpf.Event) *Site {
	s := &Site{
		Kind: kinds[e.Kind], Comm: e.Comm, PID: e.PID, Kernel: e.Flags&bpf.FlagKernelThread != 0,
		Flagged: e.Flags&bpf.FlagMemalloc != 0, Text: e.Text, Syscall: syscallName(e.Syscall),
	}
	if e.Kind == bpf.Pages || e.Kind == bpf.Slab || e.Kind == bpf.Reclaim {
		s.GFP = c.gfp.String(e.GFP)
	}
	kernel := c.kernelStack(e.Kernel)
	s.Class, s.Why = judge(e, kernel, c.gfp)
	user := c.userStack(e)
	s.Stack = append(kernel, user...)
	s.Blame = c.blame(e, s.Stack)
	return s
}

// kernelStack leaves out what is this audit's own: the program, and who called it.
func (c *Collector) kernelStack(addresses []uint64) []symbol.Frame {
	var all []symbol.Frame
	for i, address := range addresses {
		f := c.kernel.Frame(address)
		if i < 5 && tracing(f.Func) {
			all = all[:0]
			continue
		}
		all = append(all, f)
	}
	return all
}

// tracing tells the functions by which a tracepoint calls a program.
func tracing(name string) bool {
	return strings.HasPrefix(name, "bpf_trace_run") || strings.HasPrefix(name, "__bpf_trace_") ||
		strings.HasPrefix(name, "__traceiter_")
}

// userStack appends the goroutine's stack where the thread's own has ended in the runtime.
func (c *Collector) userStack(e *bpf.Event) []symbol.Frame {
	p := c.followed[e.PID]
	if p == nil || e.Kind == bpf.Exec {
		return nil
	}
	var all []symbol.Frame
	for i, address := range e.User {
		all = append(all, p.Frame(address, i == 0 && e.Kind == bpf.Fault))
	}
	if len(all) == 0 || len(e.Go) < 2 {
		return all
	}
	rest := e.Go[2:]
	switch all[len(all)-1].Func {
	case "runtime.newstack", "runtime.morestack", "runtime.morestack_noctxt":
		rest = e.Go[1:] // the function has not yet made its frame: its return address is the next word
	case "runtime.mcall":
	default:
		return all
	}
	all = append(all, p.Frame(e.Go[0], false))
	for _, address := range rest {
		all = append(all, p.Frame(address, false))
	}
	return all
}

// blame names the line that did it. For what another program does, whoever started that.
func (c *Collector) blame(e *bpf.Event, stack []symbol.Frame) string {
	if p := c.followed[e.PID]; p != c.program || e.Kind == bpf.Exec {
		if born, ok := c.born[e.PID]; ok {
			return born
		}
	}
	i := symbol.Blame(stack, c.program.Name)
	if i < 0 {
		return cmp.Or(e.Text, e.Comm)
	}
	return stack[i].String()
}

// An Outcome is what an audit's report needs to know beyond the events.
type Outcome struct {
	ClaimKiB int
	Windows  int // that were watched to their end
	Watched  time.Duration
	Lost     uint64
	Syscalls map[int]uint64
	Ongoing  bool // the audit: no window needs to have come to its end
	// Incomplete says why something may not have been seen; nil: nothing.
	Incomplete error
}

// Report judges all that was added.
func (c *Collector) Report(o Outcome) *Report {
	r := &Report{
		Program: c.program.Name, PID: c.pid, Windows: o.Windows, Watched: o.Watched,
		Lost: o.Lost, ClaimKiB: o.ClaimKiB, Syscalls: make(map[string]uint64),
	}
	for number, n := range o.Syscalls {
		r.Syscalls[syscallName(number)] = n
	}
	for _, s := range c.sites {
		r.Sites = append(r.Sites, s)
	}
	slices.SortFunc(r.Sites, func(a, b *Site) int {
		return cmp.Or(cmp.Compare(b.Class, a.Class), cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Count, a.Count),
			cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Blame, b.Blame))
	})
	for _, bytes := range c.taken {
		r.TakenKiB = max(r.TakenKiB, int((bytes+1023)/1024))
	}
	r.judge(o)
	return r
}

var errNoWindow = errors.New("no window was watched to its end")

func (r *Report) judge(o Outcome) {
	raise := func(to Class, format string, args ...any) {
		r.Verdict = max(r.Verdict, to)
		r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...))
	}
	total := make(map[Class]uint64)
	for _, s := range r.Sites {
		total[s.Class] += s.Count
	}
	if n := total[Forbidden]; n > 0 {
		raise(Forbidden, "%d forbidden events", n)
	}
	if r.TakenKiB > r.ClaimKiB {
		raise(Forbidden, "%d KiB taken from the reserve, %d KiB claimed", r.TakenKiB, r.ClaimKiB)
	}
	if r.Lost > 0 {
		raise(Unknown, "%d events were lost", r.Lost)
	}
	if o.Incomplete == nil && r.Windows == 0 && !o.Ongoing {
		o.Incomplete = errNoWindow
	}
	if o.Incomplete != nil {
		raise(Unknown, "%v", o.Incomplete)
	}
	if n := total[Bounded]; n > 0 && r.TakenKiB <= r.ClaimKiB {
		raise(Bounded, "%d allocations that cannot wait: %d KiB of %d KiB claimed", n, r.TakenKiB, r.ClaimKiB)
	}
	if r.Verdict == None {
		raise(None, "nothing was asked of the kernel's memory")
	}
}
