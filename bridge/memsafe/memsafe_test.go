// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// What is tested here changes a process for good, so it happens in one of its own: this test binary
// again, told by role what to do, which prints what became of it.
const role = "MEMSAFE_TEST_ROLE"

var roles = map[string]func() (any, error){
	"enter":       enterAgain,
	"enter-loose": func() (any, error) { return nil, enter(pfMCEProcess, func() error { return nil }) },
	"owner":       ownReserve,
	"stay":        stayGrown,
	"overrun":     overrun,
	"lock":        func() (any, error) { return nil, limitedLock() },
	"shield":      shielded,
	"occupy":      allocateLocked,
}

func TestMain(m *testing.M) {
	play, ok := roles[os.Getenv(role)]
	if !ok {
		os.Exit(m.Run())
	}
	result, err := play()
	if err != nil {
		fmt.Fprint(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		panic(err)
	}
	os.Exit(0)
}

func run(t *testing.T, binary, part string, result any, args ...string) {
	t.Helper()
	out, err := start(binary, part, args...).Output()
	if exit, ok := err.(*exec.ExitError); ok {
		t.Fatalf("%v: %s", exit, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, result); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
}

func start(binary, part string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), role+"="+part)
	return cmd
}

// pfMCEProcess stands in for PF_MEMALLOC: prctl(2) can set it, on the calling thread alone, and it
// is inherited by clone and kept by execve just the same.
const pfMCEProcess = 0x80

type entry struct {
	AllFlagged bool
	Marker     string
	Debug      string
	Args       []string
	Name       string
}

func enterAgain() (any, error) {
	err := enter(pfMCEProcess, func() error {
		return unix.Prctl(unix.PR_MCE_KILL, unix.PR_MCE_KILL_SET, unix.PR_MCE_KILL_EARLY, 0, 0)
	})
	if err != nil {
		return nil, err
	}
	flagged, err := allFlagged(pfMCEProcess)
	if err != nil {
		return nil, err
	}
	name, err := os.ReadFile("/proc/self/comm")
	return entry{flagged, os.Getenv(entered), os.Getenv(debugEnv), os.Args[1:], strings.TrimSpace(string(name))}, err
}

func TestEveryThreadIsFlaggedAfterEnter(t *testing.T) {
	if flagged, err := allFlagged(pfMCEProcess); err != nil || flagged {
		t.Fatalf("flagged beforehand: %v, %v", flagged, err)
	}
	binary := filepath.Join(t.TempDir(), "daemon")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, binary); err != nil {
		t.Fatal(err)
	}
	t.Setenv(debugEnv, "madvdontneed=1")
	var got entry
	run(t, binary, "enter", &got, "-a", "b c")
	want := entry{AllFlagged: true, Debug: "madvdontneed=1," + stacksStay, Args: []string{"-a", "b c"}, Name: "daemon"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAFlagThatIsNotKeptEndsInAnErrorAndNotInALoop(t *testing.T) {
	out, err := start(os.Args[0], "enter-loose").CombinedOutput()
	if err == nil || string(out) != errNotKept.Error() {
		t.Errorf("%v: %q, want %q", err, out, errNotKept)
	}
}

func TestTaskFlagsAreFoundBehindAnyName(t *testing.T) {
	got, err := taskFlags([]byte("12 (a) b 9 (c) S 1 12 12 0 -1 2113536 5 0"))
	if err != nil || got != 2113536 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := taskFlags([]byte("12 (a) S 1 12")); err == nil {
		t.Error("a line cut short is taken")
	}
}

type shieldState struct {
	OOM      string
	Dumpable int
	Core     unix.Rlimit
}

func shielded() (any, error) {
	if err := errors.Join(SpareFromOOM(), NoDump()); err != nil {
		return nil, err
	}
	var core unix.Rlimit
	oom, err1 := os.ReadFile("/proc/self/oom_score_adj")
	dumpable, err2 := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	err3 := unix.Getrlimit(unix.RLIMIT_CORE, &core)
	return shieldState{strings.TrimSpace(string(oom)), dumpable, core}, errors.Join(err1, err2, err3)
}

func TestADaemonIsNeitherKilledForMemoryNorDumped(t *testing.T) {
	needCapability(t, unix.CAP_SYS_RESOURCE)
	var got shieldState
	run(t, os.Args[0], "shield", &got)
	if diff := cmp.Diff(shieldState{OOM: "-1000"}, got); diff != "" {
		t.Error(diff)
	}
}

func needCapability(t *testing.T, capability int) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	if data[capability/32].Effective&(1<<(capability%32)) == 0 {
		t.Skipf("needs capability %d", capability)
	}
}

const (
	testHeapKiB  = 16 << 10
	testStackKiB = 32
	testBlocked  = 6
)

type occupation struct {
	LockedKiB int
	Minor     int64 // faults, those of an mmap that populates included
	Major     int64
	Grown     int64 // bytes of heap
	Released  int64
	Threads   int // more than after Lock
	Ordinary  int // threads without priority
}

// Does what the worst daemon would that keeps its budget: allocates all of it in objects of many sizes,
// again and again, with as many goroutines in blocking system calls as it declared, on stacks as deep.
func allocateLocked() (any, error) {
	// As Lock does, but for what needs another capability and is tested by itself.
	if err := LockMemory(); err != nil {
		return nil, err
	}
	StartThreads(testBlocked)
	GrowHeap(testHeapKiB + 4*testStackKiB)
	if err := RealTime(nil); err != nil {
		return nil, err
	}
	o := occupation{LockedKiB: status("VmLck")}
	deep := make(chan struct{})
	go func() {
		GrowStack(testStackKiB)
		for range deep {
			descend(testStackKiB << 10 / frameBytes * 3 / 4)
			deep <- struct{}{}
		}
	}()
	deep <- struct{}{}
	<-deep
	threads, before := status("Threads"), memStats()
	for range 10 {
		minor, major := faults()
		litterAllSizes(testHeapKiB << 10)
		deep <- struct{}{}
		<-deep
		blockAll(testBlocked)
		afterMinor, afterMajor := faults()
		o.Minor += afterMinor - minor
		o.Major += afterMajor - major
		Collect()
	}
	after := memStats()
	o.Grown = int64(after.HeapSys+after.StackSys) - int64(before.HeapSys+before.StackSys)
	o.Released = int64(after.HeapReleased) - int64(before.HeapReleased)
	o.Threads = status("Threads") - threads
	var err error
	o.Ordinary, err = ordinaryThreads()
	return o, err
}

// blockAll has n goroutines in read(2) at a time, and ends when all have returned.
func blockAll(n int) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		panic(err)
	}
	defer unix.Close(pipe[0])
	var readers sync.WaitGroup
	for range n {
		readers.Go(func() {
			var b [1]byte
			_, _ = unix.Read(pipe[0], b[:])
		})
	}
	for awaiting(unix.SYS_READ) < n {
		runtime.Gosched()
	}
	unix.Close(pipe[1])
	readers.Wait()
}

// awaiting counts the threads that sleep in a system call.
func awaiting(call int) (n int) {
	tasks, _ := filepath.Glob("/proc/self/task/*/syscall")
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		if strings.HasPrefix(string(text), strconv.Itoa(call)+" ") {
			n++
		}
	}
	return n
}

func ordinaryThreads() (n int, err error) {
	tasks, _ := filepath.Glob("/proc/self/task/*")
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			return 0, err
		}
		attr, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			return 0, err
		}
		if attr.Policy != unix.SCHED_RR || attr.Priority != rrPriority {
			n++
		}
	}
	return n, nil
}

func litterAllSizes(total int) {
	for size := 8; total > 0; size = size%4096 + 24 {
		litter(size, 1)
		total -= 2 * size * 5 / 4 // sizes are rounded up to those of the allocator
	}
}

func memStats() (stats runtime.MemStats) {
	runtime.ReadMemStats(&stats)
	return stats
}

func faults() (minor, major int64) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return usage.Minflt, usage.Majflt
}

func status(key string) int {
	text, _ := os.ReadFile("/proc/self/status")
	m := regexp.MustCompile(key + `:\s+(\d+)`).FindSubmatch(text)
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

func TestTheBudgetIsUsedUpWithoutAskingTheKernelForAPageOrAThread(t *testing.T) {
	needCapability(t, unix.CAP_IPC_LOCK)
	needCapability(t, unix.CAP_SYS_NICE)
	var got occupation
	run(t, plain(t), "occupy", &got)
	if got.LockedKiB < testHeapKiB {
		t.Errorf("locked %d KiB, less than the budget", got.LockedKiB)
	}
	got.LockedKiB = 0
	got.Released = max(got.Released, 0) // less than before is no harm
	if diff := cmp.Diff(occupation{}, got); diff != "" {
		t.Error(diff)
	}
}

// plain is this test without the race detector, whose shadow of the address space cannot be locked.
func plain(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "memsafe.test")
	if out, err := exec.Command("go", "test", "-c", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// stayGrown tells whether a goroutine's stack was moved after it was grown, by a collection or by deep
// calls. Whether a stack is in use is not what the collector asks; how much of it is.
func stayGrown() (any, error) {
	moved := make(chan bool)
	go func() {
		var here byte
		GrowStack(testStackKiB)
		before := address(&here)
		runtime.GC()
		runtime.GC()
		descend(testStackKiB << 10 / frameBytes * 3 / 4)
		moved <- address(&here) != before
	}()
	return <-moved, nil
}

//go:noinline
func address(b *byte) uintptr { return uintptr(unsafe.Pointer(b)) }

func TestAStackThatWasGrownStays(t *testing.T) {
	for settings, want := range map[string]bool{"": true, stacksStay: false} {
		t.Setenv(debugEnv, settings)
		var moved bool
		run(t, os.Args[0], "stay", &moved)
		if moved != want {
			t.Errorf("%s=%q: moved %v", debugEnv, settings, moved)
		}
	}
}

// overrun never sleeps, until it is ordinary.
func overrun() (any, error) {
	if err := enterOverrun(); err != nil {
		return nil, err
	}
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return nil, err
	}
	ordinary, err := ordinaryThreads()
	return ordinary - len(threads), err
}

func enterOverrun() error {
	var lost atomic.Bool
	if err := realTime(100_000, func() { lost.Store(true) }); err != nil {
		return err
	}
	if n, err := ordinaryThreads(); err != nil || n != 0 {
		return fmt.Errorf("%d threads are ordinary: %w", n, err)
	}
	for !lost.Load() {
	}
	return nil
}

func TestAThreadThatNeverSleepsLosesThePriority(t *testing.T) {
	needCapability(t, unix.CAP_SYS_NICE)
	var missing int
	run(t, os.Args[0], "overrun", &missing)
	if missing != 0 {
		t.Errorf("%d threads have kept it", -missing)
	}
}

// limitedLock has no right to lock what it has.
func limitedLock() error {
	return errors.Join(unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 4096, Max: 4096}), LockMemory())
}

func TestAMissingRightIsNamed(t *testing.T) {
	// Where everybody can execute it, as the directories of tests are not.
	binary := filepath.Join(t.TempDir(), "memsafe.test")
	for dir := binary; os.Getuid() == 0 && filepath.Dir(dir) != os.TempDir(); {
		dir = filepath.Dir(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, text, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := start(binary, "lock")
	cmd.Dir = filepath.Dir(binary)
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), ErrLock.Error()) || !strings.Contains(string(out), "raise RLIMIT_MEMLOCK") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAStepsErrorIsTheStepAndTheCause(t *testing.T) {
	err := fmt.Errorf("o2fenced: %w", Enter(func() error { return unix.EPERM }))
	named, ok := errors.AsType[*StepError](err)
	if !ok || named.Remedy == "" || !errors.Is(err, ErrFlag) || !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrLock) {
		t.Errorf("%v", err)
	}
	if err := Lock(Budget{Threads: -1}, nil); !errors.Is(err, ErrBudget) {
		t.Errorf("%v", err)
	}
}

// marks is the kernel's part: it takes sockets, by descriptor.
type marks []int

func (m *marks) MarkSocket(_ context.Context, fd int) error {
	*m = append(*m, fd)
	return nil
}

func TestAllOpenSocketsAreMarked(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var got marks
	if err := MarkSockets(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(got, pair[0]) || !slices.Contains(got, pair[1]) || slices.Contains(got, int(file.Fd())) {
		t.Errorf("marked %v; %v are sockets, %d is a file", got, pair, file.Fd())
	}
}
