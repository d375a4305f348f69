// SPDX-License-Identifier: GPL-2.0-only

package bpf

import (
	"testing"
	"unsafe"
)

func FuzzDecodeEvent(f *testing.F) {
	size := int(unsafe.Sizeof(auditEvent{}))
	f.Add(make([]byte, size))
	f.Add(make([]byte, size-1))
	full := make([]byte, size)
	for i := range full {
		full[i] = 0xff
	}
	f.Add(full)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var e Event
		if err := e.decode(raw); err != nil {
			return
		}
		var a auditEvent
		if len(e.Kernel) > len(a.Kernel) || len(e.User) > len(a.User) || len(e.Go) > len(a.Go) ||
			len(e.Comm) > len(a.Comm) || len(e.Text) > len(a.Text) {
			t.Errorf("%x: more than an event holds: %+v", raw, e)
		}
	})
}

func FuzzParseGFP(f *testing.F) {
	f.Add(format61)
	f.Add(formatShifts)
	f.Add(`{1<<2, "__GFP_MEMALLOC"}`)
	f.Add(`{((, "__GFP_MEMALLOC"}`)
	f.Fuzz(func(t *testing.T, format string) {
		g, err := ParseGFP(format)
		if err != nil {
			return
		}
		if g.reclaim == 0 || g.reserve == 0 || g.noReserve == 0 {
			t.Errorf("%q: flags without a bit", format)
		}
		_ = g.String(^uint32(0))
	})
}
