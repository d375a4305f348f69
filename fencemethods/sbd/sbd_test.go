// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

func TestOffIsProven(t *testing.T) { fencetest.Run(t, harness(t)) }

// harness makes that of a disk. The suite has no word for a device that is a disk: what it says of power, and of a wire, is
// skipped. A node that does not obey is left to its watchdog, by sbd's contract.
func harness(t *testing.T) fencetest.Harness {
	const noWire = "a disk has no wire that could fail"
	disk, next := newDisk(t), make(chan int, 254)
	for i := range cap(next) {
		next <- i
	}
	return fencetest.Harness{
		Method: Method(), Peer: "a loop device", Together: startSlots, Crowd: "slots of one disk",
		Start: func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
			return fencetest.Peer{
				Params: startSlot(t, disk, <-next, m),
				Nowhere: func(testing.TB) map[string]map[string]string {
					return map[string]map[string]string{"no such slot": {"slot": "node9"}}
				},
				Refuse: func(t testing.TB) map[string]string { return params("node2", fullDisk(t)) },
			}
		},
		Skip: map[string]string{
			"already off":                      "a disk cannot tell that a node is off: every fence waits msgwait",
			"half-dead, commands ignored":      "sbd's contract: a node that does not obey is reset by its watchdog",
			"comes back on before it was read": "it takes the pill out, see TestAPillThatIsTakenOutProvesNothing",
			"answers lost after the command":   noWire,
			"silent after the command":         noWire,
			"half-dead, state stale":           "a disk has one state, what was written is read back",
			"power state unknown":              "a mailbox can be read or cannot",
		},
	}
}

// startSlot starts a node that has the slot, and returns the parameters that lead there.
func startSlot(t *testing.T, k *testDisk, slot int, m *fencetest.Machine) map[string]string {
	name := fmt.Sprintf("suite%d", slot)
	k.write(slotSector(slot), append([]byte{1}, name...))
	follow(t, k, slot, m)
	return params(name, k)
}

// startSlots has all on one disk.
func startSlots(t *testing.T, machines []*fencetest.Machine) (peers []fencetest.Peer) {
	k := newDisk(t)
	for slot, m := range machines {
		peers = append(peers, fencetest.Peer{Params: startSlot(t, k, slot, m)})
	}
	return peers
}

// cutShort makes a disk that can be read as far as there are slots, and not be written where the
// mailboxes are.
func cutShort(t testing.TB) *testDisk {
	k := newDisk(t, "node1", "node2")
	if err := k.file.Truncate(4 * 512); err != nil {
		t.Fatal(err)
	}
	k.run("losetup", "--set-capacity", k.loop)
	return k
}

// follow is a node whose sbd reads its mailbox, and goes down by it. When the pill is taken out, the
// node is switched on again.
func follow(t *testing.T, k *testDisk, slot int, m *fencetest.Machine) {
	tick, done, ended := time.NewTicker(20*time.Millisecond), make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(done); <-ended; tick.Stop() })
	go func() {
		defer close(ended)
		told := false
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			switch pill := lethal(k.mail(slot).cmd); {
			case pill && !told:
				told = m.SetOn(false) == nil
			case !pill && told:
				told = m.SetOn(true) != nil
			}
		}
	}()
}

func TestAFenceTakesMsgwaitAndLittleMore(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			k := formatted(t, sector, []string{"-1", "1", "-4", "3"}, "node1", "node2")
			d := openDevice(t, nil, k)
			fencetest.OnTime(t, poll, func() time.Duration { return moreThanMsgwait(t, d) })
		})
	}
}

// moreThanMsgwait fences, and returns how much longer that takes than it has to.
func moreThanMsgwait(t *testing.T, d fencemethods.Device) time.Duration {
	t.Helper()
	start := time.Now()
	if err := d.Off(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	more := time.Since(start) - msgwaitTest
	if more < 0 {
		t.Errorf("FALSE SUCCESS: %v before msgwait was over", -more)
	}
	t.Log("more than msgwait:", more)
	return more
}

// Debian's tool reads what is written here, and what it writes is read here.
func TestDebiansToolAgrees(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			t.Parallel()
			k := formatted(t, sector, []string{"-1", "1", "-4", "3"}, "node1", "node2")
			d := openDevice(t, map[string]string{"action": "off"}, k)
			d.from = "tester"
			wantState(t, d, fencemethods.On)
			if err := errors.Join(d.Check(within(t, 10*time.Second)), d.Off(within(t, 10*time.Second))); err != nil {
				t.Fatal(err)
			}
			if got := k.sbd("list"); got != "0\tnode1\tclear\t\n1\tnode2\toff\ttester" {
				t.Errorf("sbd list: %q", got)
			}
			wantState(t, d, fencemethods.Off)
			if err := d.On(within(t, 10*time.Second)); err != nil {
				t.Fatal(err)
			}
			if got := k.sbd("list"); got != "0\tnode1\tclear\t\n1\tnode2\tclear" {
				t.Errorf("sbd list: %q", got)
			}
			k.sbd("message", "node2", "reset")
			wantState(t, d, fencemethods.Unknown) // since when it is there nobody knows
		})
	}
}

func wantState(t *testing.T, d fencemethods.Device, want fencemethods.State) {
	t.Helper()
	if state, err := d.Status(within(t, 10*time.Second)); state != want || err != nil {
		t.Errorf("Status = %v, %v; want %v", state, err, want)
	}
}

// The pill may have been obeyed, or not yet.
func TestAPillIsNoProofBeforeMsgwait(t *testing.T) {
	k := newDisk(t, "node1", "node2")
	d, other := openDevice(t, nil, k), openDevice(t, nil, k)
	done := make(chan error, 1)
	go func() { done <- d.Off(within(t, 10*time.Second)) }()
	for !lethal(k.mail(1).cmd) {
		time.Sleep(time.Millisecond)
	}
	wantState(t, other, fencemethods.Unknown)
	if err := <-done; err != nil {
		t.Error(err)
	}
	wantState(t, other, fencemethods.Off) // it has seen this very one for as long
	wantState(t, openDevice(t, nil, k), fencemethods.Unknown)
}

// What lay there before does not vouch for the node of today, which may run without sbd.
func TestEveryFenceWaitsAnew(t *testing.T) {
	k := newDisk(t, "node2")
	d := openDevice(t, nil, k)
	for range 2 {
		moreThanMsgwait(t, d)
	}
}

// As when the node's sbd acknowledges a test message while the pill is being written, or starts: the
// node may live.
func TestAPillThatIsTakenOutProvesNothing(t *testing.T) {
	put := func(k *testDisk, m mail) {
		p := make([]byte, k.sector)
		m.encode(p, "node9")
		k.write(slotSector(0)+1, p)
	}
	stock := func(k *testDisk, cmd byte) { put(k, mail{cmd: cmd}) }
	for name, takeOut := range map[string]func(*testDisk){
		"by sbd":           func(k *testDisk) { k.clear(0) },
		"by sbd's message": func(k *testDisk) { stock(k, msgTest) },
		"and put in again": func(k *testDisk) { k.clear(0); stock(k, msgReset) },
		"and another's put in": func(k *testDisk) {
			k.clear(0)
			put(k, mail{cmd: msgReset, serial: serial{1}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newDisk(t, "node2")
			stock(k, msgReset) // which cannot be told from the one that is put in again
			d, done := openDevice(t, nil, k), make(chan error, 1)
			go func() { done <- d.Off(within(t, 20*time.Second)) }()
			for k.mail(0).serial == (serial{}) && len(done) == 0 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(msgwaitTest / 2)
			if len(done) > 0 {
				t.Fatal("over before the pill was taken out:", <-done)
			}
			taken := time.Now()
			takeOut(k)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if later := time.Since(taken); later < msgwaitTest {
				t.Errorf("FALSE SUCCESS: %v after the pill was taken out", later)
			}
		})
	}
}

// As of a disk with a cache that lies, or another initiator's writes in between.
func TestAPillThatIsNotReadBackIsNone(t *testing.T) {
	d, k := &device{goal: kill}, &disk{}
	if f := d.tookPill(k, mail{cmd: msgTest}, true, time.Now()); f != failForgets || k.pill() {
		t.Errorf("%v", f)
	}
}

func TestAPillThatIsAlwaysTakenOutEndsInAnError(t *testing.T) {
	k := newDisk(t, "node2")
	d, done := openDevice(t, nil, k), make(chan struct{})
	go func() {
		defer close(done)
		for t.Context().Err() == nil {
			if lethal(k.mail(0).cmd) {
				time.Sleep(300 * time.Millisecond)
				k.clear(0)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	t.Cleanup(func() { <-done })
	wantError(t, d.Off(within(t, msgwaitTest+2*time.Second)), fencemethods.ErrNotOff, "taken out")
}

func wantError(t *testing.T, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("%v; want %v and %q", err, kind, text)
	}
}

// Two fencers do not take turns overwriting one another until the deadline.
func TestTwoFencersShareAPill(t *testing.T) {
	k := newDisk(t, "node2")
	a, b, done := openDevice(t, nil, k), openDevice(t, nil, k), make(chan error)
	fencetest.OnTime(t, 2*poll+time.Second, func() time.Duration {
		start := time.Now()
		for _, d := range []*device{a, b} {
			go func() { done <- d.Off(within(t, 10*time.Second)) }()
		}
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		return time.Since(start) - msgwaitTest
	})
}

func TestAMajorityOfTheDisksIsEnough(t *testing.T) {
	a, b, c := newDisk(t, "node2"), newDisk(t, "node2"), newDisk(t, "node2")
	d := openDevice(t, nil, a, b, c)
	b.write(0, make([]byte, 512)) // no header any more
	if err := d.Off(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	wantState(t, d, fencemethods.Off)
	wantError(t, d.Check(within(t, 10*time.Second)), fencemethods.ErrProtocol, b.loop)
	c.write(0, make([]byte, 512))
	wantError(t, d.Off(within(t, 10*time.Second)), fencemethods.ErrProtocol, "no SBD header")
	if state, err := d.Status(within(t, 10*time.Second)); state != fencemethods.Unknown || err == nil {
		t.Errorf("Status = %v, %v of one disk in three", state, err)
	}
}

// A pill on one disk of three is none: the node may not have read it.
func TestAMinorityOfTheDisksIsNotEnough(t *testing.T) {
	a, b, c := newDisk(t, "node2"), newDisk(t, "node2"), newDisk(t, "node2")
	d := openDevice(t, nil, a, b, c)
	done := make(chan error, 1)
	go func() { done <- d.Off(within(t, msgwaitTest+2*time.Second)) }()
	for !lethal(a.mail(0).cmd) || !lethal(b.mail(0).cmd) || !lethal(c.mail(0).cmd) {
		time.Sleep(time.Millisecond)
	}
	b.write(slotSector(0), make([]byte, 2*512)) // slots and pills are gone
	c.write(slotSector(0), make([]byte, 2*512))
	wantError(t, <-done, fencemethods.ErrRefused, "no slot")
}

// As on a logical unit that is write-protected. See also TestDebiansSenderBelievesAWriteThatFailed.
func TestAWriteThatFailsIsNoFence(t *testing.T) {
	k := newDisk(t, "node2")
	d := openDevice(t, nil, k)
	k.run("blockdev", "--setro", k.loop)
	t.Cleanup(func() { k.run("blockdev", "--setrw", k.loop) }) // the number is used again
	// Loop devices say EPERM to direct writes, or EIO, by kernel.
	if err := d.Off(within(t, 4*time.Second)); err == nil || lethal(k.mail(0).cmd) {
		t.Errorf("error %v, mailbox %+v", err, k.mail(0))
	}
	if err := d.Check(within(t, 2*time.Second)); err == nil {
		t.Error("Check finds nothing")
	}
}

func TestTooLittleTimeIsSaidAtOnce(t *testing.T) {
	k := newDisk(t, "node2")
	d := openDevice(t, nil, k)
	fencetest.OnTime(t, msgwaitTest/2, func() time.Duration {
		start := time.Now()
		wantError(t, d.Off(within(t, msgwaitTest-time.Millisecond)), fencemethods.ErrTimeout, "timeout_ms")
		return time.Since(start)
	})
	if !lethal(k.mail(0).cmd) {
		t.Error("the pill is not there, though the node is to die")
	}
}

func TestTimeoutsThatProveNothingAreRefused(t *testing.T) {
	k := formatted(t, 512, []string{"-1", "2", "-4", "3"}, "node2")
	d := openDevice(t, nil, k)
	wantError(t, d.Check(within(t, 4*time.Second)), fencemethods.ErrRefused, "twice the watchdog")
	wantError(t, d.Off(within(t, 8*time.Second)), fencemethods.ErrRefused, "twice the watchdog")
	if err := openDevice(t, map[string]string{"msgwait": "4"}, k).Check(within(t, 4*time.Second)); err != nil {
		t.Errorf("with another msgwait: %v", err)
	}
	late := openDevice(t, map[string]string{"io": "3"}, newDisk(t, "node2")) // 1 + 1 + 3 s, msgwait 3 s
	wantError(t, late.Check(within(t, 4*time.Second)), fencemethods.ErrRefused, "loop and io")
	slow := openDevice(t, map[string]string{"watchdog": "30"}, newDisk(t, "node2"))
	wantError(t, slow.Check(within(t, 4*time.Second)), fencemethods.ErrRefused, "twice the watchdog")
}

func TestOneDiskByTwoPathsIsNoMajority(t *testing.T) {
	a := newDisk(t, "node2")
	b := blank(t, 512)
	b.write(0, a.read(0))
	b.write(slotSector(0), a.read(slotSector(0)))
	c := blank(t, 512) // the third disk is of no use
	d := openDevice(t, nil, a, b, c)
	if err := d.Off(within(t, 4*time.Second)); err == nil {
		t.Error("one disk counted as two")
	}
}

func TestDisksThatAreNoneAreRefused(t *testing.T) {
	k := newDisk(t, "node2")
	for text, disks := range map[string]string{
		"not a block device": k.file.Name(),
		"same disk":          k.loop + ",/dev/../" + strings.TrimPrefix(k.loop, "/"),
		"no such file":       "/dev/o2fence-none",
	} {
		d, err := Method().Open(fencemethods.Target{Name: "node2"}, map[string]string{"disks": disks, "slot": "node2"})
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v; want %q", disks, err, text)
		}
		if err == nil {
			d.Close()
		}
	}
}

// One disk of three that is not there must not keep the bridge from starting.
func TestADiskThatIsMissingIsToldByCheck(t *testing.T) {
	a, b := newDisk(t, "node2"), newDisk(t, "node2")
	p := params("node2", a, b)
	p["disks"] += ",/dev/o2fence-none"
	d, err := Method().Open(fencemethods.Target{Name: "node2"}, p)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	wantError(t, d.Check(within(t, 4*time.Second)), fencemethods.ErrUnreachable, "/dev/o2fence-none")
	if err := d.Off(within(t, 8*time.Second)); err != nil {
		t.Error(err)
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	for _, c := range []struct{ key, value, text string }{
		{"disks", "sda", "absolute path"},
		{"disks", "/dev/sda,/dev/sda", "twice"},
		{"disks", "/dev/a,/dev/b,/dev/c,/dev/d", "one to 3"},
		{"slot", strings.Repeat("x", 64), "63 bytes"},
		{"slot", "two words", "host name"},
		{"action", "rset", `did you mean "reset"?`},
		{"msgwait", "0", "from 1 to 3600"},
		{"ping", "maybe", "yes, no"},
		{"disk", "/dev/sda", `did you mean "disks"?`},
	} {
		p := map[string]string{"disks": "/dev/sda", "slot": "node2"}
		p[c.key] = c.value
		_, err := Method().Parse(p)
		e, ok := errors.AsType[*fencemethods.ParamError](err)
		if !ok || e.Key != c.key || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
	}
	p := map[string]string{"disks": "/dev/sda", "slot": "node2", "msgwait": "9", "watchdog": "5"}
	if _, err := Method().Open(fencemethods.Target{}, p); err == nil || !strings.Contains(err.Error(), "at least 10") {
		t.Errorf("msgwait 9 and watchdog 5: %v", err)
	}
}
