// SPDX-License-Identifier: GPL-2.0-only

package scsi

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/fencemethods/reserve"
)

func TestAFencedNodeWritesNoMore(t *testing.T) {
	a, b := pair(t, 2, newLUN(disk1), newLUN(disk2))
	c := newHost(3, 2, a.paths[disk1][0].lun, a.paths[disk2][0].lun)
	c.join(t, nil)
	d := a.device(t, 2, nil)
	if err := d.Check(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	wantState(t, d, fencemethods.On)
	for range 2 { // and once more, when it is off already
		if err := d.Off(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if b.writes() {
			t.Fatal("FALSE SUCCESS: the node can write")
		}
	}
	wantState(t, d, fencemethods.Off)
	if !a.writes() || !c.writes() {
		t.Error("a node that was not fenced cannot write")
	}
	if n := a.paths[disk1][0].lun.aborted; n != 2 {
		t.Errorf("the commands of %d paths were ended, want 2", n)
	}
	// The way back is the node's own.
	wantError(t, d.On(within(t, time.Minute)), fencemethods.ErrUnsupported, "only be registered by itself")
	b.join(t, nil)
	wantState(t, d, fencemethods.On)
	if !b.writes() {
		t.Error("the node has registered, and cannot write")
	}
}

// The lie of old: a key that is missing proves nothing where anybody may write.
func TestAKeyThatIsMissingProvesNothingWithoutAReservation(t *testing.T) {
	l := newLUN(disk1)
	a, b := newHost(1, 1, l), newHost(2, 1, l)
	a.join(t, nil)
	l.held = false
	d := a.device(t, 2, nil)
	wantState(t, d, fencemethods.On)
	wantError(t, d.Off(within(t, time.Minute)), fencemethods.ErrRefused, "no reservation")
	wantError(t, d.Check(within(t, time.Minute)), fencemethods.ErrRefused, "no reservation")
	if !b.writes() {
		t.Error("the fake is wrong")
	}
	l.held, l.kind = true, 5
	wantState(t, d, fencemethods.Unknown)
	wantError(t, d.Off(within(t, time.Minute)), fencemethods.ErrRefused, "not Write Exclusive - All Registrants")
}

// Such as that of the same node under the cluster's former name: it has that key still, and writes.
func TestAKeyOfWhoKnowsWhomProvesNothing(t *testing.T) {
	l := newLUN(disk1)
	a, b := pair(t, 1, l)
	old := l.path("sdb")
	l.keys = append(l.keys, registration{old, reserve.KeyOf("former", 2)})
	d := a.device(t, 2, nil)
	wantError(t, d.Check(within(t, time.Minute)), fencemethods.ErrRefused, "keys that are none of this cluster's")
	wantError(t, d.Off(within(t, time.Minute)), fencemethods.ErrRefused, "keys that are none of this cluster's")
	if !old.writes() {
		t.Error("the fake is wrong")
	}
	wantState(t, d, fencemethods.Unknown)
	b.join(t, nil) // which is about its own key
	l.keys = slices.DeleteFunc(l.keys, func(r registration) bool { return r.nexus == old })
	if err := d.Off(within(t, time.Minute)); err != nil || b.writes() {
		t.Errorf("%v; can write: %v", err, b.writes())
	}
}

func TestANodeThatWasFencedFencesNobody(t *testing.T) {
	a, b := pair(t, 2, newLUN(disk1))
	if err := a.device(t, 2, nil).Off(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	d := b.device(t, 1, nil)
	wantError(t, d.Off(within(t, time.Minute)), fencemethods.ErrRefused, "was fenced itself")
	wantError(t, d.Check(within(t, time.Minute)), fencemethods.ErrRefused, "was fenced itself")
	wantError(t, b.device(t, 2, nil).Off(within(t, time.Minute)), fencemethods.ErrRefused, "its own key")
	if !a.writes() {
		t.Error("it has fenced the other all the same")
	}
}

// Both nodes of a split pair fence each other: one wins, and has all the disks.
func TestOfTwoThatFenceEachOtherOneWinsEveryDisk(t *testing.T) {
	for range 20 {
		one, two := newLUN(disk1), newLUN(disk2)
		a, b := pair(t, 2, one, two)
		var errs [2]error
		var both sync.WaitGroup
		both.Go(func() { errs[0] = a.device(t, 2, nil).Off(within(t, time.Minute)) })
		both.Go(func() { errs[1] = b.device(t, 1, nil).Off(within(t, time.Minute)) })
		both.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("both or none: %v, %v", errs[0], errs[1])
		}
		if a.writes() == b.writes() || a.writes() != (errs[0] == nil) {
			t.Fatalf("a writes %v, b writes %v: %v, %v", a.writes(), b.writes(), errs[0], errs[1])
		}
	}
}

func TestUnitAttentionsAreRetriedAndNotForEver(t *testing.T) {
	a, b := pair(t, 1, newLUN(disk1))
	n := a.paths[disk1][0]
	n.attention = []uint16{0x2900, 0x2a04, 0x3f0e}
	d := a.device(t, 2, nil)
	if err := d.Off(within(t, time.Minute)); err != nil || b.writes() {
		t.Fatalf("%v; can write: %v", err, b.writes())
	}
	n.setFault(func(c *command) (error, bool) {
		if c.cdb[0] != opInquiry {
			c.decline(keyUnitAttention, 0x2900)
		} else {
			c.read = copy(c.data, identification(disk1))
			c.status = statusGood
		}
		return nil, true
	})
	wantError(t, d.Off(within(t, 500*time.Millisecond)), fencemethods.ErrTimeout, "unit attention")
}

// A path that leads to another disk by now is neither believed nor commanded.
func TestAnotherDiskBehindThePathIsRefused(t *testing.T) {
	l := newLUN(disk1)
	a, b := pair(t, 1, l)
	d := a.device(t, 2, nil)
	l.wwid = disk2
	wantError(t, d.Off(within(t, time.Minute)), fencemethods.ErrRefused, "another disk")
	wantState(t, d, fencemethods.Unknown)
	wantError(t, b.device(t, 2, nil).On(within(t, time.Minute)), fencemethods.ErrRefused, "another disk")
	if !b.writes() {
		t.Error("the node was fenced by a disk that is not its own")
	}
}

// Ports of a storage that do not know of each other: what was taken away at one is still there at the
// other.
func TestEveryPathHasToShowIt(t *testing.T) {
	for _, paths := range []string{"all", "answering"} {
		one, other := newLUN(disk1), newLUN(disk1)
		a, b := newHost(1, 1, one), newHost(2, 1, one)
		a.paths[disk1] = append(a.paths[disk1], other.path("sdb"))
		b.paths[disk1] = append(b.paths[disk1], other.path("sdb"))
		a.join(t, nil)
		b.join(t, nil)
		other.deaf = func(reserve.Key) bool { return true }
		d := a.device(t, 2, map[string]string{"paths": paths})
		wantError(t, d.Off(within(t, time.Second)), fencemethods.ErrNotOff, "is registered")
		wantState(t, d, fencemethods.On)
		other.deaf = nil
		if err := d.Off(within(t, time.Minute)); err != nil || b.writes() {
			t.Errorf("%v; can write: %v", err, b.writes())
		}
	}
}

func TestAPathThatHangsKeepsTheDeadline(t *testing.T) {
	a, b := pair(t, 2, newLUN(disk1))
	all, answering := a.device(t, 2, nil), a.device(t, 2, map[string]string{"paths": "answering"})
	a.paths[disk1][0].hang(t)
	const limit = time.Second
	fencetest.InTime(t, limit, func() {
		wantError(t, all.Off(within(t, limit)), fencemethods.ErrUnreachable, "sda: no answer")
	})
	if !b.writes() {
		t.Error("it was fenced, though it was said that it could not be known")
	}
	if err := answering.Off(within(t, time.Minute)); err != nil || b.writes() {
		t.Errorf("%v; can write: %v", err, b.writes())
	}
	if err := all.Close(); err != nil { // for which nothing has to come back: the path hangs on
		t.Error(err)
	}
	a.paths[disk1][1].hang(t)
	wantError(t, answering.Off(within(t, limit)), fencemethods.ErrUnreachable, "no answer")
}

// The key is there, but of a session that is gone: this path is a new one.
func TestAPathThatIsNotRegisteredIsFound(t *testing.T) {
	l := newLUN(disk1)
	a, b := pair(t, 1, l)
	a.paths[disk1] = append([]*nexus{l.path("sdz")}, a.paths[disk1]...)
	d := a.device(t, 2, nil)
	wantError(t, d.Check(within(t, time.Minute)), fencemethods.ErrRefused, "sdz: this path is not registered")
	if err := d.Off(within(t, time.Minute)); err != nil || b.writes() { // by the other one
		t.Errorf("%v; can write: %v", err, b.writes())
	}
	b.join(t, nil)
	a.paths[disk1] = a.paths[disk1][:1]
	wantError(t, a.device(t, 2, nil).Off(within(t, time.Minute)), fencemethods.ErrRefused, "sdz: this path is not registered")
}

func TestWhatTheStorageCannotDoIsSaid(t *testing.T) {
	l := newLUN(disk1)
	l.noAbort, l.noPersist = true, true
	a, b := newHost(1, 1, l), newHost(2, 1, l)
	wantError(t, a.device(t, 1, nil).On(within(t, time.Minute)), fencemethods.ErrRefused, "does not keep reservations")
	volatile := map[string]string{"persist": "no"}
	a.join(t, volatile)
	b.join(t, volatile)
	wantError(t, a.device(t, 2, nil).Check(within(t, time.Minute)), fencemethods.ErrRefused, "end with the storage's power")
	wantError(t, a.device(t, 2, volatile).Off(within(t, time.Minute)), fencemethods.ErrRefused, "cannot end the node's commands")
	if err := a.device(t, 2, map[string]string{"persist": "no", "abort": "no"}).Off(within(t, time.Minute)); err != nil || b.writes() {
		t.Errorf("%v; can write: %v", err, b.writes())
	}
	l.noReserve = true
	wantError(t, a.device(t, 1, volatile).On(within(t, time.Minute)), fencemethods.ErrRefused, "does not know persistent reservations")
}

// As Linux' target does it: the key is gone, the disk says so, and will have it again after a restart.
func TestAFenceThatTheDiskCannotStoreIsNone(t *testing.T) {
	l := newLUN(disk1)
	a, b := pair(t, 2, l)
	d := a.device(t, 2, nil)
	l.full = true
	for range 2 { // and once more, when the key is gone already
		wantError(t, d.Off(within(t, 300*time.Millisecond)), fencemethods.ErrUnreachable, "could not store")
	}
	if b.writes() {
		t.Error("the fake is wrong")
	}
	if err := a.device(t, 2, map[string]string{"persist": "no"}).Off(within(t, time.Minute)); err != nil {
		t.Error(err) // who takes that risk
	}
	l.full = false
	if err := d.Off(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
}

// A path that the kernel has given up cannot even be opened. A bridge that starts meanwhile serves all the
// same, and fences by the other paths where these suffice.
func TestAPathThatIsDeadAtTheStartKeepsNobodyFromStarting(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"device/wwid": disk1 + "\n", "dev": "8:0\n"} {
		file := filepath.Join(root, "sys/block/sdx", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644), os.MkdirAll(root+"/dev", 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	socket, err := net.Listen("unix", root+"/dev/sdx") // to open it is refused as that of a dead disk
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	a, b := pair(t, 1, newLUN(disk1))
	by := func(wwid string) ([]bus, error) {
		dead, err := sysfs{root}.open(wwid)
		live, _ := a.open(wwid)
		return append(dead, live...), err
	}
	params := map[string]string{"disks": disk1}
	wantError(t, open(t, 1, 2, params, by).Off(within(t, 300*time.Millisecond)), fencemethods.ErrUnreachable, "sdx: was dead")
	params["paths"] = "answering"
	if err := open(t, 1, 2, params, by).Off(within(t, time.Minute)); err != nil || b.writes() {
		t.Errorf("%v; can write: %v", err, b.writes())
	}
}

// A list that does not fit, or is cut short, may have the key in the part that is missing.
func TestKeysThatDoNotFitProveNothing(t *testing.T) {
	l := newLUN(disk1)
	a, b := pair(t, 1, l)
	for range bufferLen / 8 {
		l.keys = append([]registration{{l.path("x"), 7}}, l.keys...)
	}
	d := a.device(t, 2, nil)
	wantError(t, d.Off(within(t, 500*time.Millisecond)), fencemethods.ErrProtocol, "not whole")
	wantState(t, d, fencemethods.Unknown)
	l.keys = l.keys[bufferLen/8:]
	a.paths[disk1][0].setFault(func(c *command) (error, bool) {
		if c.cdb[0] != opReserveIn || c.cdb[1] != inKeys {
			return nil, false
		}
		l.tell(c)
		c.read = 8 + 8*len(l.keys) - 8
		return nil, true
	})
	wantError(t, d.Off(within(t, 500*time.Millisecond)), fencemethods.ErrProtocol, "not whole")
	if !b.writes() {
		t.Error("the node was fenced")
	}
}

// Between keys and reservation the reservation went and the key came back: together they would be a
// picture of a moment that never was.
func TestATableThatChangesIsReadAgain(t *testing.T) {
	l := newLUN(disk1)
	a, b := pair(t, 1, l)
	d := a.device(t, 2, nil)
	if err := d.Off(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	a.paths[disk1][0].setFault(func(c *command) (error, bool) {
		if c.cdb[0] == opReserveIn && c.cdb[1] == inReservation {
			once.Do(func() { b.join(t, nil) })
		}
		return nil, false
	})
	wantState(t, d, fencemethods.On)
}

func TestADiskThatIsMissingIsSaid(t *testing.T) {
	a, _ := pair(t, 1, newLUN(disk1))
	a.paths[disk2] = nil
	d := a.device(t, 2, nil)
	wantError(t, d.Off(within(t, time.Minute)), fencemethods.ErrUnreachable, disk2+": no path")
	wantError(t, d.Check(within(t, time.Minute)), fencemethods.ErrUnreachable, disk2+": no path")
}

func TestKeysTellNodesAndClustersApart(t *testing.T) {
	if got := reserve.KeyOf("web", 2).String(); got != "0x6f324b5e57f6eb02" {
		t.Errorf("%s: keys of running clusters have to stay what they are", got)
	}
	seen := map[reserve.Key]bool{0: true}
	for _, cluster := range []string{"", "web", "web2"} {
		for node := range 256 {
			k := reserve.KeyOf(cluster, uint8(node))
			if seen[k] {
				t.Errorf("%v of %s, %d is there twice", k, cluster, node)
			}
			seen[k] = true
		}
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	for _, c := range []struct{ key, value, text string }{
		{"disks", "/dev/sda", "is no disk"},
		{"disks", "naa.6001405", "is no disk"},
		{"disks", "naa.60014055D2C0E8BA141F76C93EE027B5", "is no disk"},
		{"disks", disk1 + "," + disk1, "twice"},
		{"disks", strings.TrimSuffix(strings.Repeat(disk1+",", 9), ","), "at most 8"},
		{"paths", "any", "all, answering"},
		{"abort", "maybe", "yes, no"},
		{"persist", "1", "yes, no"},
		{"disk", disk1, `did you mean "disks"?`},
	} {
		p := map[string]string{"disks": disk1}
		p[c.key] = c.value
		_, err := Method().Parse(p)
		e, ok := errors.AsType[*fencemethods.ParamError](err)
		if !ok || e.Key != c.key || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
	}
	_, err := Method().Open(fencemethods.Target{}, map[string]string{"disks": disk1})
	wantError(t, err, fencemethods.ErrRefused, "no node of the cluster")
}
