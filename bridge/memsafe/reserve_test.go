// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const base = 67584

// A testReserve is a Reserve of a machine with 1 GiB.
type testReserve struct {
	t *testing.T
	Reserve
}

func newReserve(t *testing.T) testReserve {
	t.Helper()
	dir := t.TempDir()
	r := testReserve{t, Reserve{
		Sysctl: filepath.Join(dir, "min_free_kbytes"), Ledger: filepath.Join(dir, "run", "reserve.json"), MachineKiB: 1 << 20,
	}}
	r.set(base)
	return r
}

// set is what an administrator does.
func (r testReserve) set(kib int) {
	r.t.Helper()
	if err := os.WriteFile(r.Sysctl, []byte(strconv.Itoa(kib)+"\n"), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r testReserve) is(want int) {
	r.t.Helper()
	if got, err := r.read(); err != nil || got != want {
		r.t.Errorf("the sysctl is %d, %v; want %d", got, err, want)
	}
}

func (r testReserve) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// An owner is another process that has raised the reserve.
type owner struct {
	t   *testing.T
	cmd *exec.Cmd
	in  interface{ Close() error }
}

// owner starts one. It releases when told to, and does not when it is killed.
func (r testReserve) owner(kib int) *owner {
	r.t.Helper()
	cmd := start(os.Args[0], "owner", r.Sysctl, r.Ledger, strconv.Itoa(kib))
	in, err := cmd.StdinPipe()
	r.must(err)
	out, err := cmd.StdoutPipe()
	r.must(err)
	cmd.Stderr = os.Stderr
	r.must(cmd.Start())
	r.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		r.t.Fatalf("the owner has not raised: %v", err)
	}
	return &owner{r.t, cmd, in}
}

func ownReserve() (any, error) {
	kib, err := strconv.Atoi(os.Args[3])
	if err != nil {
		return nil, err
	}
	r := Reserve{Sysctl: os.Args[1], Ledger: os.Args[2], MachineKiB: 1 << 20}
	if err := r.Raise(context.Background(), "owner", kib); err != nil {
		return nil, err
	}
	fmt.Print("!")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil, r.Release(context.Background())
}

func (o *owner) end() {
	o.t.Helper()
	o.in.Close()
	if err := o.cmd.Wait(); err != nil {
		o.t.Fatal(err)
	}
}

func (o *owner) kill() {
	o.t.Helper()
	if err := o.cmd.Process.Kill(); err != nil {
		o.t.Fatal(err)
	}
	_ = o.cmd.Wait()
}

func TestTheReserveIsRaisedByEachAndGivenBack(t *testing.T) {
	r := newReserve(t)
	r.must(r.Raise(t.Context(), "us", 1000))
	r.is(base + 1000)
	other := r.owner(200)
	r.is(base + 1200)
	r.must(r.Release(t.Context()))
	r.is(base + 200)
	other.end()
	r.is(base)
	if _, err := os.Stat(r.Ledger); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the ledger of nothing is still there: %v", err)
	}
}

// As after the exec of Enter, which leaves the process what it was.
func TestRaisingTwiceReplaces(t *testing.T) {
	r := newReserve(t)
	r.must(r.Raise(t.Context(), "us", 1000))
	r.must(r.Raise(t.Context(), "us", 300))
	r.is(base + 300)
	r.must(r.Release(t.Context()))
	r.must(r.Release(t.Context()))
	r.is(base)
}

func TestASuccessorGivesBackWhatAKilledOwnerLeft(t *testing.T) {
	r := newReserve(t)
	r.owner(500).kill()
	r.is(base + 500)
	r.must(r.Raise(t.Context(), "us", 1000))
	r.is(base + 1000)
	r.must(r.Release(t.Context()))
	r.is(base)
}

func TestSettleGivesBackTheDeadAndNamesTheLiving(t *testing.T) {
	r := newReserve(t)
	living := r.owner(70)
	r.owner(500).kill()
	claims, err := r.Settle(t.Context())
	r.must(err)
	r.is(base + 70)
	self, err := processOf(living.cmd.Process.Pid)
	r.must(err)
	if diff := cmp.Diff([]Claim{{Name: "owner", KiB: 70, Holders: []Process{self}}}, claims); diff != "" {
		t.Error(diff)
	}
}

// A process number that is used again is not the process of the ledger.
func TestAnOwnerIsNotTakenForAnotherWithItsNumber(t *testing.T) {
	r := newReserve(t)
	self, err := processOf(os.Getpid())
	r.must(err)
	self.Started--
	l := ledger{Base: base, Before: base + 9, After: base + 9, Claims: []Claim{{Name: "earlier", KiB: 9, Holders: []Process{self}}}}
	r.must(os.Mkdir(filepath.Dir(r.Ledger), 0o755))
	r.must(l.write(r.Ledger))
	r.set(base + 9)
	r.must(r.Release(t.Context()))
	r.is(base)
}

func TestWhatOthersSetMeanwhileIsNotTakenAway(t *testing.T) {
	for what, set := range map[string]int{"more": 3 * base, "less": base / 2, "what was": base} {
		t.Run(what, func(t *testing.T) {
			r := newReserve(t)
			r.must(r.Raise(t.Context(), "us", 1000))
			r.set(set)
			other := r.owner(200) // finds our part missing, and adds it
			r.is(set + 1200)
			r.must(r.Release(t.Context()))
			other.end()
			r.is(set)
		})
	}
}

func TestWhatWasSetAfterTheLastOwnerIsTheNewBase(t *testing.T) {
	r := newReserve(t)
	r.must(r.Raise(t.Context(), "us", 1000))
	r.set(2 * base)
	r.must(r.Release(t.Context()))
	r.is(2 * base)
}

// Between writing the ledger and writing the sysctl anything can happen.
func TestAnOwnerKilledHalfWayLeavesNothing(t *testing.T) {
	for name, l := range map[string]ledger{
		"raising":    {Base: base, Before: base, After: base + 500, Claims: []Claim{{Name: "dead", KiB: 500, Holders: []Process{{PID: 1 << 30}}}}},
		"giving up":  {Base: base, Before: base + 500, After: base},
		"one of two": {Base: base, Before: base + 800, After: base + 500, Claims: []Claim{{Name: "dead", KiB: 500, Holders: []Process{{PID: 1 << 30}}}}},
	} {
		for _, now := range []int{l.Before, l.After} {
			t.Run(fmt.Sprintf("%s at %d", name, now-base), func(t *testing.T) {
				r := newReserve(t)
				r.must(os.Mkdir(filepath.Dir(r.Ledger), 0o755))
				r.must(l.write(r.Ledger))
				r.set(now)
				_, err := r.Settle(t.Context())
				r.must(err)
				r.is(base)
			})
		}
	}
}

func TestASharedClaimLastsUntilTheLastHolderIsGone(t *testing.T) {
	r := newReserve(t)
	other := exec.Command("sleep", "600")
	r.must(other.Start())
	r.must(r.Raise(t.Context(), "us", 1000))
	r.must(r.Share(t.Context(), other.Process.Pid))
	r.must(r.Release(t.Context()))
	r.is(base + 1000)
	r.must(other.Process.Kill()) // not yet waited for: a zombie holds nothing
	r.must(unix.Waitid(unix.P_PID, other.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
	_, err := r.Settle(t.Context())
	r.must(err)
	r.is(base)
	_ = other.Wait()
	if err := r.Share(t.Context(), other.Process.Pid); !errors.Is(err, ErrReserve) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("shared with a process that is gone: %v", err)
	}
}

func TestABudgetThatIsNoneIsRefused(t *testing.T) {
	r := newReserve(t)
	for kib, want := range map[int]string{
		0: "at least 1", -5: "at least 1",
		1<<18 - base + 1: fmt.Sprintf("at most %d KiB are left", 1<<18-base),
		1 << 50:          "at most",
	} {
		err := r.Raise(t.Context(), "us", kib)
		if !errors.Is(err, ErrBudget) || !errors.Is(err, ErrReserve) || !strings.Contains(err.Error(), want) {
			t.Errorf("%d KiB: %v, want %q", kib, err, want)
		}
	}
	r.is(base)
	r.must(r.Raise(t.Context(), "us", 1<<18-base))
	r.must(r.Release(t.Context()))
	r.is(base)
}

func TestAReserveThatCannotBeRaisedIsAnErrorAndLeavesNoClaim(t *testing.T) {
	r := newReserve(t)
	real := r.Sysctl
	r.Sysctl = filepath.Join(t.TempDir(), "gone")
	if err := r.Raise(t.Context(), "us", 1000); !errors.Is(err, ErrReserve) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	r.Sysctl = "/proc/sys/kernel/ngroups_max" // a number that nobody may write
	if err := r.Raise(t.Context(), "us", 1000); !errors.Is(err, ErrReserve) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v", err)
	}
	r.Sysctl = real
	claims, err := r.Settle(t.Context())
	r.must(err)
	if len(claims) != 0 {
		t.Errorf("claimed: %+v", claims)
	}
	r.is(base)
}

func TestWhatWasRaisedIsGivenBackWhenTheDaemonCannotBePrepared(t *testing.T) {
	r := newReserve(t)
	err := Prepare(t.Context(), Plan{
		Name: "us", Budget: Budget{KernelKiB: 1000}, Reserve: r.Reserve,
		Flag: func() error { r.is(base + 1000); return unix.EPERM },
	})
	if !errors.Is(err, ErrFlag) {
		t.Errorf("%v", err)
	}
	r.is(base)
}

func TestManyAtOnceLoseNothing(t *testing.T) {
	r := newReserve(t)
	var owners [8]*owner
	for i := range owners {
		owners[i] = r.owner(100)
	}
	r.is(base + 800)
	var all sync.WaitGroup
	for _, o := range owners {
		all.Go(func() { o.in.Close() })
	}
	all.Wait()
	for _, o := range owners {
		if err := o.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	r.is(base)
}

func TestALedgerThatIsHeldIsNotWaitedForForEver(t *testing.T) {
	r := newReserve(t)
	unlock, err := r.lock(t.Context())
	r.must(err)
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Raise(ctx, "us", 1); !errors.Is(err, ErrReserve) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestADamagedLedgerIsRefused(t *testing.T) {
	r := newReserve(t)
	r.must(os.Mkdir(filepath.Dir(r.Ledger), 0o755))
	r.must(os.WriteFile(r.Ledger, []byte(`{"base":`), 0o644))
	if err := r.Raise(t.Context(), "us", 1); !errors.Is(err, ErrReserve) || !strings.Contains(err.Error(), r.Ledger) {
		t.Errorf("%v", err)
	}
	r.is(base)
}

func TestTheAccountShowsWhoHoldsWhat(t *testing.T) {
	r := newReserve(t)
	r.must(r.Raise(t.Context(), "us", 1000))
	r.must(r.NoteSockets(t.Context(), 3))
	other := r.owner(200)
	killed := r.owner(400)
	killed.kill()
	a, err := r.Account()
	r.must(err)
	if a.ReserveKiB != base+1600 || a.OwnKiB != base || a.ClaimedKiB != 1200 || a.LeftKiB != 1<<20/share-base-1200 {
		t.Errorf("the account is %+v", a)
	}
	pids := map[string]int{"us": os.Getpid(), "owner": other.cmd.Process.Pid}
	for _, g := range a.Grants {
		if g.BudgetKiB == 0 {
			continue // somebody else's, of this machine
		}
		want := map[string]int{"us": 1000, "owner": 200}[g.Name]
		if g.BudgetKiB != want || len(g.Processes) != 1 || g.Processes[0].PID != pids[g.Name] || g.Processes[0].Threads == 0 {
			t.Errorf("a grant is %+v", g)
		}
		if g.Name == "us" && g.Sockets != 3 {
			t.Errorf("%d sockets are noted", g.Sockets)
		}
		delete(pids, g.Name)
	}
	if len(pids) != 0 {
		t.Errorf("not shown: %v", pids)
	}
	r.is(base + 1600) // to look changes nothing
}

func TestARefusedClaimSaysHowMuchIsMissing(t *testing.T) {
	r := newReserve(t)
	err := r.Raise(t.Context(), "us", 1<<20/share-base+5)
	if !errors.Is(err, ErrBudget) || !strings.Contains(err.Error(), "5 KiB more than a quarter") {
		t.Errorf("%v", err)
	}
}

func TestSocketsOfNobodyAreNotNoted(t *testing.T) {
	r := newReserve(t)
	if err := r.NoteSockets(t.Context(), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
