// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"bytes"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// watch is the script in which Debian's sbd watches disks. Twice -Z has it end instead of resetting
// the machine; besides it is process 1 of its own, without a watchdog, and cannot reach sysrq.
const watch = `set -e
mount --make-rprivate /
mount -t proc proc /proc
for f in /proc/sysrq-trigger /proc/sys/kernel/sysrq; do [ ! -e $f ] || mount --bind /dev/null $f; done
mount -t tmpfs tmpfs /run
export SBD_PACEMAKER=no SBD_SYNC_RESOURCE_STARTUP=no
exec sbd -R -n node2 -W -W -P -P -Z -Z -I 1 -p /run/sbd.pid "$@" watch`

// A daemon is Debian's sbd, for node2.
type daemon struct {
	cmd   *exec.Cmd
	ended chan struct{} // as the node would
}

func startDaemon(t *testing.T, options []string, disks ...*testDisk) *daemon {
	t.Helper()
	args := []string{"-ec", watch, "sh"}
	for _, k := range disks {
		args = append(args, "-d", k.loop)
		k.write(slotSector(1)+1, append([]byte{msgTest}, make([]byte, 511)...)) // which it takes out when it starts
	}
	w := &daemon{cmd: exec.Command("sh", append(args, options...)...), ended: make(chan struct{})}
	var out bytes.Buffer
	w.cmd.Stdout, w.cmd.Stderr = &out, &out
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = w.cmd.Wait(); close(w.ended) }()
	t.Cleanup(func() { _ = w.cmd.Process.Kill(); <-w.ended })
	for _, k := range disks {
		for k.mail(1).cmd != msgClear {
			select {
			case <-w.ended:
				t.Fatalf("sbd has ended: %s", out.String())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return w
}

func (w *daemon) over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

func TestDebiansDaemonObeys(t *testing.T) {
	for name, n := range map[string]int{"one disk": 1, "three disks": 3} {
		t.Run(name, func(t *testing.T) {
			var disks []*testDisk
			for range n {
				disks = append(disks, newDisk(t, "node1", "node2"))
			}
			w, d := startDaemon(t, nil, disks...), openDevice(t, map[string]string{"ping": "yes"}, disks...)
			if err := d.Check(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
			if w.over() {
				t.Fatal("a check has ended it")
			}
			if err := d.Off(within(t, 10*time.Second)); err != nil {
				t.Fatal(err)
			}
			if !w.over() {
				t.Fatal("FALSE SUCCESS: sbd has not obeyed")
			}
			// It starts again only where the pill was taken out, when it is told to be careful.
			again := exec.Command("sh", "-ec", watch, "sh", "-d", disks[0].loop, "-S", "1")
			again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
			_ = again.Run()
			if !lethal(disks[0].mail(1).cmd) {
				t.Error("sbd has taken the pill out though it was told not to start")
			}
			if err := d.On(within(t, 10*time.Second)); err != nil {
				t.Fatal(err)
			}
			if startDaemon(t, []string{"-S", "0"}, disks...).over() {
				t.Error("sbd does not start")
			}
		})
	}
}

func TestADiskThatHangsDoesNotHoldUpTheOthers(t *testing.T) {
	a, b, c := newDisk(t, "node2"), newDisk(t, "node2"), newDisk(t, "node2")
	d := openDevice(t, nil, a, b, c)
	hang(d, 1)
	fencetest.OnTime(t, poll, func() time.Duration { return moreThanMsgwait(t, d) })
	hang(d, 2)
	const limit = 5 * time.Second
	fencetest.InTime(t, limit, func() {
		wantError(t, d.Off(within(t, limit)), fencemethods.ErrUnreachable, b.loop)
	})
	wantState(t, openDevice(t, nil, a), fencemethods.Unknown)
	// What hangs in the kernel is not taken away from it.
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// The others say nothing, and do not fail: there is time for msgwait on the one, and that is no proof.
func TestMsgwaitOnOneDiskOfThreeIsNoProof(t *testing.T) {
	d := openDevice(t, nil, newDisk(t, "node2"), newDisk(t, "node2"), newDisk(t, "node2"))
	hang(d, 1)
	hang(d, 2)
	start := time.Now()
	wantError(t, d.Off(within(t, 2*msgwaitTest+2*time.Second)), fencemethods.ErrUnreachable, "no answer")
	if took := time.Since(start); took < msgwaitTest || !d.disks[0].aged(msgwaitTest) {
		t.Errorf("took %v: the one disk was not waited for", took)
	}
	if state, err := d.Status(within(t, 2*time.Second)); state != fencemethods.Unknown {
		t.Errorf("Status = %v, %v", state, err)
	}
}

// hang makes a disk's I/O seem to be under way for ever. A disk that hangs cannot be had without a
// device mapper; what the kernel would do is what it does here: nothing.
func hang(d *device, i int) { d.disks[i].began = time.Now() }

func TestAFenceAllocatesNothing(t *testing.T) {
	k := newDisk(t, "node2")
	d := openDevice(t, nil, k)
	ctx := within(t, time.Minute)
	if got := testing.AllocsPerRun(1, func() {
		if err := d.Off(ctx); err != nil {
			t.Error(err)
		}
	}); got > 0 {
		t.Errorf("Off allocated %v times", got)
	}
	if got := testing.AllocsPerRun(10, func() { _, _ = d.Status(ctx) }); got > 0 {
		t.Errorf("Status allocated %v times", got)
	}
}

func TestMemoryStaysWithinTheBudget(t *testing.T) {
	d := openDevice(t, nil, newDisk(t, "node2"), newDisk(t, "node2"))
	_, _ = d.Status(within(t, time.Second))                      // which has costs that do not come again
	hang(d, 1)                                                   // so that it tries until the deadline
	fencetest.WithinBudget(t, Method(), 0, 2*time.Second, d.Off) // less than msgwait
}

// The difference, with the same disk: peers' sender and this method.
func TestDebiansSenderBelievesAWriteThatFailed(t *testing.T) {
	k := cutShort(t)
	k.sbd("message", "node2", "off") // fails the test unless it exits with 0
	d := openDevice(t, nil, k)
	wantError(t, d.Off(within(t, 4*time.Second)), fencemethods.ErrProtocol, "ends before")
	if slices.ContainsFunc(d.disks, (*disk).pill) {
		t.Error("there is a pill where there is no disk")
	}
}
