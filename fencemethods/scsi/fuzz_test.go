// SPDX-License-Identifier: GPL-2.0-only

package scsi

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// What is sent is as SPC-4 has it, byte for byte.
func TestCommandsAreEncodedAsTheStandardSays(t *testing.T) {
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{inquiry(nil), "120183040000"},
		{reserveIn(nil, inKeys, keysLen), "5e000000000000400000"},
		{reserveIn(nil, inReservation, reservationLen), "5e010000000000001800"},
		{reserveOut(nil, outPreemptAbort), "5f050700000000001800"},
		{parameters(nil, 0x0102030405060708, 0x1112131415161718, false), "010203040506070811121314151617180000000000000000"},
		{parameters(nil, 1, 2, true), "000000000000000100000000000000020000000001000000"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

// A page as LIO sends it, and as tgt does.
func TestDisksAreKnownByTheirDesignators(t *testing.T) {
	lio := "0083006c" + "01030010" + "60014055d2c0e8ba141f76c93ee027b5" +
		"02010038" + "4c494f2d4f52472049424c4f434b" + "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000" + "00"
	page, err := hex.DecodeString(lio[:len(lio)-2])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		page []byte
		wwid string
		want bool
	}{
		{page, disk1, true},
		{page, disk2, false},
		{page, "eui." + disk1[4:], false},
		{page[:20], disk1, false},
		{identification(disk2), disk2, true},
		{identification("eui.0123456789abcdef"), "eui.0123456789abcdef", true},
		{identification(disk2), "naa.5000000000000001", false}, // which is the port's
		{nil, disk1, false},
	} {
		if got := isDisk(c.page, c.wwid); got != c.want {
			t.Errorf("%x is %s: %v", c.page, c.wwid, got)
		}
	}
}

func TestSenseOfBothFormatsIsRead(t *testing.T) {
	for text, want := range map[string]sense{
		"700006000000000a000000002a0500000000": {6, 0x2a05},
		"72052400":                             {5, 0x2400},
	} {
		p, _ := hex.DecodeString(text)
		if got, ok := readSense(p); got != want || !ok {
			t.Errorf("%s: %+v, %v", text, got, ok)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(identification(disk1))
	f.Add(listOf(reserve.KeyOf("web", 1), reserve.KeyOf("web", 2)))
	f.Add(reserved)
	f.Add(lasting)
	f.Add([]byte{0x72, 6, 0x29, 0})
	f.Add([]byte{0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, p []byte) {
		for kind, id := range designators(p) {
			if len(id) > 16 || !bytes.Contains(p, id) || kind != 2 && kind != 3 {
				t.Errorf("designator %d %x of %x", kind, id, p)
			}
		}
		isDisk(p, disk1)
		readSense(p)
		readCapabilities(p)
		const key = 0x6f32000000000001
		_, table, ok := countKeys(p, key, key+1)
		if ok && 8*(table.Mine+table.Theirs+table.Foreign) > len(p)-8 {
			t.Errorf("%+v in %x", table, p)
		}
		if _, held, right, ok := readReservation(p); right && !held || held && !ok {
			t.Errorf("held %v, right %v, ok %v: %x", held, right, ok, p)
		}
	})
}
