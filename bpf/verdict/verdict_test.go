// SPDX-License-Identifier: GPL-2.0-only

package verdict

import (
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/bpf"
	"github.com/o2fence/o2fence/bpf/symbol"
)

const (
	gfpTable = `{( unsigned long)(( gfp_t)0x400u), "__GFP_DIRECT_RECLAIM"}, ` +
		`{( unsigned long)(( gfp_t)0x20000u), "__GFP_MEMALLOC"}, {( unsigned long)(( gfp_t)0x80000u), "__GFP_NOMEMALLOC"}`
	gfpKernel     = 0x400
	gfpNoMemalloc = 0x80000

	kallsyms = `ffffffff81000000 t kmalloc
ffffffff81001000 t asm_sysvec_apic_timer_interrupt
ffffffff81002000 T bpf_trace_run4
ffffffffc0000000 t o2fence_tell	[o2fence]
`
	inKmalloc   = 0xffffffff81000010
	inInterrupt = 0xffffffff81001010
	inTrace     = 0xffffffff81002010
	inO2fence   = 0xffffffffc0000010
)

// newCollector is for this very process, whose own addresses events can have.
func newCollector(t *testing.T) *Collector {
	t.Helper()
	kernel, err1 := symbol.ParseKernel(strings.NewReader(kallsyms))
	gfp, err2 := bpf.ParseGFP(gfpTable)
	images := symbol.NewCache()
	program, err3 := images.Process(os.Getpid())
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return New(kernel, gfp, images, program, os.Getpid())
}

// allocation is one of this process, from the line that calls it.
func allocation(flags uint32) bpf.Event {
	pc, _, _, _ := runtime.Caller(1)
	return bpf.Event{
		Kind: bpf.Slab, Value: 512, Window: 1, PID: os.Getpid(), Comm: "bridge", Flags: flags, GFP: gfpKernel, Syscall: 46,
		Kernel: []uint64{inTrace, inKmalloc}, User: []uint64{uint64(pc)},
	}
}

func TestEachEventHasItsClass(t *testing.T) {
	gfp, err := bpf.ParseGFP(gfpTable)
	if err != nil {
		t.Fatal(err)
	}
	interrupt := []symbol.Frame{{Func: "kmalloc", Kernel: true}, {Func: "asm_sysvec_apic_timer_interrupt", Kernel: true}}
	softirq := func(poll string) []symbol.Frame {
		return []symbol.Frame{{Func: "kmalloc", Kernel: true}, {Func: poll, Kernel: true}, {Func: "net_rx_action", Kernel: true}}
	}
	const flagged, kthread = bpf.FlagMemalloc, bpf.FlagKernelThread
	for _, test := range []struct {
		name   string
		event  bpf.Event
		kernel []symbol.Frame
		want   Class
	}{
		{"pages of a flagged task", bpf.Event{Kind: bpf.Pages, Flags: flagged, GFP: gfpKernel}, nil, Bounded},
		{"pages of one that is not", bpf.Event{Kind: bpf.Pages, GFP: gfpKernel}, nil, Forbidden},
		{"atomic, not flagged", bpf.Event{Kind: bpf.Slab}, nil, Forbidden},
		{"flagged, without the reserve", bpf.Event{Kind: bpf.Slab, Flags: flagged, GFP: gfpNoMemalloc}, nil, Bounded},
		{"in an interrupt", bpf.Event{Kind: bpf.Slab}, interrupt, Aside},
		{"of a network card's driver", bpf.Event{Kind: bpf.Slab}, softirq("virtnet_poll"), Aside},
		{"of what it has sent to itself", bpf.Event{Kind: bpf.Slab}, softirq("process_backlog"), Forbidden},
		{"a fault of a flagged task", bpf.Event{Kind: bpf.Fault, Flags: flagged}, nil, Forbidden},
		{"mmap", bpf.Event{Kind: bpf.Map, Flags: flagged}, nil, Forbidden},
		{"a file", bpf.Event{Kind: bpf.File, Flags: flagged}, nil, Forbidden},
		{"reclaim", bpf.Event{Kind: bpf.Reclaim}, nil, Forbidden},
		{"a thread", bpf.Event{Kind: bpf.Thread, Flags: flagged}, nil, Forbidden},
		{"a process", bpf.Event{Kind: bpf.Fork, Flags: flagged}, nil, Forbidden},
		{"a program", bpf.Event{Kind: bpf.Exec, Flags: flagged}, nil, Forbidden},
		{"a wait for an answer", bpf.Event{Kind: bpf.Wait, State: 1, Syscall: 281}, nil, Aside},
		{"a wait for room to write", bpf.Event{Kind: bpf.Wait, State: 1, Syscall: 1}, nil, Forbidden},
		{"a wait for a disk", bpf.Event{Kind: bpf.Wait, State: bpf.StateUninterruptible, Syscall: 281}, nil, Forbidden},
		{"a kernel thread without work", bpf.Event{
			Kind: bpf.Wait, Flags: kthread, State: bpf.StateUninterruptible | bpf.StateIdle, Syscall: -1,
		}, nil, Aside},
		{"a kernel thread that waits for a disk", bpf.Event{
			Kind: bpf.Wait, Flags: kthread, State: bpf.StateUninterruptible, Syscall: -1,
		}, nil, Forbidden},
	} {
		if got, why := judge(&test.event, test.kernel, gfp); got != test.want || why == "" {
			t.Errorf("%s: %v, %q", test.name, got, why)
		}
	}
}

func TestTheVerdictIsThatOfTheWorst(t *testing.T) {
	flagged, unflagged := allocation(bpf.FlagMemalloc), allocation(0)
	for _, test := range []struct {
		name    string
		events  []bpf.Event
		windows int
		outcome Outcome
		want    Class
	}{
		{"nothing", nil, 1, Outcome{}, None},
		{"inside the claim", []bpf.Event{flagged, flagged}, 1, Outcome{ClaimKiB: 1}, Bounded},
		{"beyond the claim", []bpf.Event{flagged, flagged, flagged}, 1, Outcome{ClaimKiB: 1}, Forbidden},
		{"without a claim", []bpf.Event{flagged}, 1, Outcome{}, Forbidden},
		{"not flagged", []bpf.Event{unflagged}, 1, Outcome{ClaimKiB: 1}, Forbidden},
		{"lost events", nil, 1, Outcome{Lost: 1}, Unknown},
		{"lost events, and allocations", []bpf.Event{flagged}, 1, Outcome{ClaimKiB: 1, Lost: 1}, Unknown},
		{"lost events, and forbidden ones", []bpf.Event{unflagged}, 1, Outcome{ClaimKiB: 1, Lost: 1}, Forbidden},
		{"a process that ended", nil, 1, Outcome{Incomplete: errors.New("it ended")}, Unknown},
		{"no window", nil, 0, Outcome{}, Unknown},
		{"no window yet", nil, 0, Outcome{Ongoing: true}, None},
	} {
		c := newCollector(t)
		for _, e := range test.events {
			c.Add(&e)
		}
		test.outcome.Windows = test.windows
		if r := c.Report(test.outcome); r.Verdict != test.want || len(r.Reasons) == 0 {
			t.Errorf("%s: %v, %q", test.name, r.Verdict, r.Reasons)
		}
	}
}

func TestTheClaimIsForEachWindow(t *testing.T) {
	c := newCollector(t)
	for window := range uint32(10) {
		e := allocation(bpf.FlagMemalloc)
		e.Window = window
		c.Add(&e)
	}
	if r := c.Report(Outcome{ClaimKiB: 1, Windows: 10}); r.TakenKiB != 1 || r.Verdict != Bounded {
		t.Errorf("%d KiB, %v", r.TakenKiB, r.Verdict)
	}
}

func TestTheSameFromTheSamePlaceIsOneSite(t *testing.T) {
	c := newCollector(t)
	var line int
	for range 3 {
		e := allocation(bpf.FlagMemalloc)
		_, _, line, _ = runtime.Caller(0)
		c.Add(&e)
	}
	r := c.Report(Outcome{})
	if len(r.Sites) != 1 || r.Sites[0].Count != 3 || r.Sites[0].Bytes != 3*512 {
		t.Fatalf("%+v", r.Sites)
	}
	s := r.Sites[0]
	if want := fmt.Sprintf("verdict_test.go:%d", line-1); !strings.HasSuffix(s.Place(), want) {
		t.Errorf("%s is to blame, want %s", s.Place(), want)
	}
	if first := s.Stack[0].Func; first != "kmalloc" {
		t.Errorf("the stack begins with %s", first)
	}
	if s.Syscall != "sendmsg" || s.GFP != "__GFP_DIRECT_RECLAIM" || !s.Flagged {
		t.Errorf("%+v", s)
	}
}

func TestWhatAProgramDoesIsBlamedOnWhoeverStartedIt(t *testing.T) {
	const child, grandchild = 1 << 30, 1<<30 + 1 // no such processes
	c := newCollector(t)
	fork := allocation(0)
	fork.Kind, fork.Value = bpf.Fork, child
	_, _, line, _ := runtime.Caller(0)
	for _, e := range []bpf.Event{
		{Kind: bpf.Born, PID: os.Getpid(), Value: child},
		fork,
		{Kind: bpf.Replaced, PID: child},
		{Kind: bpf.Exec, PID: child, Text: "/bin/sh"},
		{Kind: bpf.Born, PID: child, Value: grandchild},
		{Kind: bpf.Fork, PID: child, Value: grandchild},
		{Kind: bpf.Replaced, PID: grandchild},
		{Kind: bpf.Slab, PID: grandchild, Value: 64},
	} {
		c.Add(&e)
	}
	want := fmt.Sprintf("verdict_test.go:%d", line-2)
	for _, s := range c.Report(Outcome{}).Sites {
		if !strings.HasSuffix(s.Blame, want) {
			t.Errorf("%s: %q is to blame, want %s", s.Kind, s.Blame, want)
		}
	}
}

// A goroutine's stack goes on where the thread's own ends in the runtime.
func TestAStackThatGrowsIsBlamedOnTheFunctionThatNeedsIt(t *testing.T) {
	c := newCollector(t)
	e := allocation(0)
	own := e.User[0]
	e.Kind, e.User, e.Go = bpf.Map, []uint64{inMorestack(t)}, []uint64{own, own}
	c.Add(&e)
	s := c.Report(Outcome{}).Sites[0]
	if !strings.HasPrefix(s.Blame, "github.com/o2fence/o2fence/bpf/verdict.TestAStackThatGrows") {
		t.Errorf("%s is to blame", s.Blame)
	}
}

// inMorestack is an address in the code that grows stacks, as this program's own table has it.
func inMorestack(t *testing.T) uint64 {
	t.Helper()
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := f.Section(".gopclntab").Data()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, f.Section(".text").Addr))
	if err != nil {
		t.Fatal(err)
	}
	return table.LookupFunc("runtime.morestack").Entry + 2
}

func TestAWaitThatIsRepeatedShowsItsLongest(t *testing.T) {
	c := newCollector(t)
	for _, ns := range []uint64{5, 9, 7} {
		c.Add(&bpf.Event{Kind: bpf.Wait, PID: os.Getpid(), Value: ns, State: 2, Syscall: -1})
	}
	if s := c.Report(Outcome{}).Sites; len(s) != 1 || s[0].Longest != 9 {
		t.Errorf("%+v", s)
	}
}

func TestTheWorstComesFirst(t *testing.T) {
	c := newCollector(t)
	aside := allocation(0)
	aside.Kernel = []uint64{inKmalloc, inInterrupt}
	kernel := bpf.Event{
		Kind: bpf.Slab, Value: 4096, Flags: bpf.FlagMemalloc | bpf.FlagKernelThread, Comm: "o2fence/1", PID: 7,
		Kernel: []uint64{inKmalloc, inO2fence},
	}
	bounded, forbidden := allocation(bpf.FlagMemalloc), allocation(0)
	for _, e := range []bpf.Event{aside, bounded, kernel, forbidden} {
		c.Add(&e)
	}
	var got []Class
	r := c.Report(Outcome{})
	for _, s := range r.Sites {
		got = append(got, s.Class)
	}
	if diff := cmp.Diff([]Class{Forbidden, Bounded, Bounded, Aside}, got); diff != "" {
		t.Error(diff)
	}
	if !slices.ContainsFunc(r.Sites, func(s *Site) bool { return s.Kernel && s.Blame == "o2fence_tell [o2fence]" }) {
		t.Error("the kernel's thread is not blamed on o2fence")
	}
}
