// SPDX-License-Identifier: GPL-2.0-only

package scsi

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// The fake of a disk allocates when it takes commands, so what is measured is a disk that answers from
// fixed texts.
type fixed struct {
	data [bufferLen]byte
	keys []byte // READ KEYS
	gone []byte // READ KEYS once there was a PREEMPT
	id   []byte
}

func (f *fixed) name() string   { return "sda" }
func (f *fixed) buffer() []byte { return f.data[:] }
func (f *fixed) close() error   { return nil }

var (
	reserved = append([]byte{0, 0, 0, 1, 0, 0, 0, 16}, append(make([]byte, 13), allRegistrants, 0, 0)...)
	lasting  = []byte{0, 8, 1, 0x81, 0x80, 0, 0, 0}
)

func (f *fixed) send(c *command) error {
	c.status, c.sense = statusGood, nil
	switch {
	case c.cdb[0] == opInquiry:
		c.read = copy(c.data, f.id)
	case c.cdb[0] == opReserve:
		f.keys = f.gone
	case c.cdb[1] == inKeys:
		c.read = copy(c.data, f.keys)
	case c.cdb[1] == inReservation:
		c.read = copy(c.data, reserved)
	default:
		c.read = copy(c.data, lasting)
	}
	return nil
}

func listOf(keys ...reserve.Key) []byte {
	list := []byte{0, 0, 0, 1, 0, 0, 0, byte(8 * len(keys))}
	for _, k := range keys {
		list = binary.BigEndian.AppendUint64(list, uint64(k))
	}
	return list
}

func TestAFenceAllocatesNothing(t *testing.T) {
	mine, theirs := reserve.KeyOf("web", 1), reserve.KeyOf("web", 2)
	there := listOf(mine, theirs)
	f := &fixed{gone: listOf(mine), id: identification(disk1)}
	d := open(t, 1, 2, map[string]string{"disks": disk1}, func(string) ([]bus, error) { return []bus{f}, nil })
	ctx := within(t, time.Minute)
	before := runtime.NumGoroutine()
	if n := testing.AllocsPerRun(100, func() {
		f.keys = there
		if err := d.Off(ctx); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("a fence allocates %v times", n)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines more", n-before)
	}
}

// A disk that takes every order and does not obey costs a failure with each try.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	mine, theirs := reserve.KeyOf("web", 1), reserve.KeyOf("web", 2)
	f := &fixed{gone: listOf(mine, theirs), keys: listOf(mine, theirs), id: identification(disk1)}
	d := open(t, 1, 2, map[string]string{"disks": disk1}, func(string) ([]bus, error) { return []bus{f}, nil })
	_ = d.Off(within(t, 200*time.Millisecond)) // which has costs that do not come again
	ctx := within(t, 2*time.Second)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := d.Off(ctx)
	runtime.ReadMemStats(&after)
	wantError(t, err, fencemethods.ErrNotOff, "is registered")
	// Per second, of which a minute has 60.
	if got, limit := (after.TotalAlloc-before.TotalAlloc)*30, uint64(Method().MemoryKiB)<<10; got > limit {
		t.Errorf("%d bytes a minute, %d are declared", got, limit)
	}
}
