// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

func TestCheckFindsWhatIsWrong(t *testing.T) {
	twin := newDisk(t, "node2")
	copied := blank(t, 512)
	copied.write(0, twin.read(0))
	copied.write(slotSector(0), twin.read(slotSector(0)))
	double := newDisk(t, "node2")
	double.write(slotSector(7), double.read(slotSector(0)))
	for _, c := range []struct {
		name  string
		disks []*testDisk
		kind  error
		text  string
	}{
		{"no header", []*testDisk{blank(t, 512)}, fencemethods.ErrProtocol, "no SBD header"},
		{"no slot", []*testDisk{newDisk(t, "node1")}, fencemethods.ErrRefused, "no slot"},
		{"two slots", []*testDisk{double}, fencemethods.ErrRefused, "two slots"},
		{"one disk by two paths", []*testDisk{twin, copied}, fencemethods.ErrRefused, "cannot be told"},
		{
			"other timeouts",
			[]*testDisk{newDisk(t, "node2"), formatted(t, 512, []string{"-1", "1", "-4", "9"}, "node2")},
			fencemethods.ErrRefused, "other timeouts",
		},
	} {
		wantError(t, openDevice(t, nil, c.disks...).Check(within(t, 4*time.Second)), c.kind, c.text)
	}
}

func TestCheckLeavesTheDiskAsItIs(t *testing.T) {
	k := newDisk(t, "node1", "node2")
	before := k.run("sha256sum", k.file.Name())
	if err := openDevice(t, nil, k).Check(within(t, 4*time.Second)); err != nil {
		t.Fatal(err)
	}
	if after := k.run("sha256sum", k.file.Name()); after != before {
		t.Error("the disk has changed")
	}
}

func TestCheckFindsThatNoSbdRuns(t *testing.T) {
	k := newDisk(t, "node1", "node2")
	d := openDevice(t, map[string]string{"ping": "yes"}, k)
	wantError(t, d.Check(within(t, 4*time.Second)), fencemethods.ErrTimeout, "has not taken")
	if m := k.mail(1); m.cmd != msgClear {
		t.Errorf("the test message is there still: %+v", m)
	}
}

// A test message must not replace a pill.
func TestCheckLeavesAPillWhereItIs(t *testing.T) {
	k := newDisk(t, "node1", "node2")
	k.sbd("message", "node2", "reset")
	d := openDevice(t, map[string]string{"ping": "yes"}, k)
	wantError(t, d.Check(within(t, 4*time.Second)), fencemethods.ErrRefused, "message that kills")
	if got := k.mail(1).cmd; got != msgReset {
		t.Errorf("the mailbox has %d", got)
	}
}
