// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// What is tested here changes a process for good, so it happens in one of its own: this test binary
// again, told by role what to do, which prints what became of it.
const role = "MEMSAFE_TEST_ROLE"

var roles = map[string]func() (any, error){
	"enter":       enterAgain,
	"enter-loose": func() (any, error) { return nil, enter(pfMCEProcess, func() error { return nil }) },
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
	return entry{flagged, os.Getenv(entered), os.Args[1:], strings.TrimSpace(string(name))}, err
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
	var got entry
	run(t, binary, "enter", &got, "-a", "b c")
	want := entry{AllFlagged: true, Args: []string{"-a", "b c"}, Name: "daemon"}
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
	if err := shield(); err != nil {
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

const testHeapKiB = 16 << 10

type occupation struct {
	LockedKiB int
	Threads   int
	Faults    int64
	Grown     int64
	Released  int64
}

// Allocates the whole budget in objects of many sizes, again and again, as methods would.
func allocateLocked() (any, error) {
	if err := occupy(Budget{HeapKiB: testHeapKiB, Threads: 6}); err != nil {
		return nil, err
	}
	o := occupation{LockedKiB: status("VmLck"), Threads: status("Threads")}
	before := memStats()
	for range 10 {
		faults := minorFaults() // those of an mmap that populates count too
		litterAllSizes(testHeapKiB << 10)
		o.Faults += minorFaults() - faults
		Collect()
	}
	after := memStats()
	o.Grown = int64(after.HeapSys+after.StackSys) - int64(before.HeapSys+before.StackSys)
	o.Released = int64(after.HeapReleased) - int64(before.HeapReleased)
	return o, nil
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

func minorFaults() int64 {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return usage.Minflt
}

func status(key string) int {
	text, _ := os.ReadFile("/proc/self/status")
	m := regexp.MustCompile(key + `:\s+(\d+)`).FindSubmatch(text)
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

func TestTheBudgetIsAllocatedWithoutAskingTheKernelForAPage(t *testing.T) {
	needCapability(t, unix.CAP_IPC_LOCK)
	// Not under the race detector, whose shadow of the address space cannot be locked.
	binary := filepath.Join(t.TempDir(), "memsafe.test")
	if out, err := exec.Command("go", "test", "-c", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got occupation
	run(t, binary, "occupy", &got)
	if got.LockedKiB < testHeapKiB {
		t.Errorf("locked %d KiB, less than the budget", got.LockedKiB)
	}
	if got.Threads < 6+runtime.GOMAXPROCS(0) {
		t.Errorf("%d threads", got.Threads)
	}
	if got.Faults != 0 {
		t.Errorf("%d page faults while the budget was allocated", got.Faults)
	}
	if got.Grown != 0 || got.Released > 0 {
		t.Errorf("the heap has grown by %d bytes and given back %d", got.Grown, got.Released)
	}
}
