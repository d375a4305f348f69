// SPDX-License-Identifier: GPL-2.0-only

package sbd

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"
)

// debian is the header that Debian's sbd 1.5.2 wrote for "-1 5 -4 10 create".
const debian = "5342445f5342445f02ff0000000002000000000500000002000000010000000a01b1d1b1af029841cc82c5597c09cf0dcd"

func headerSeed(t testing.TB) []byte {
	p, err := hex.DecodeString(debian)
	if err != nil {
		t.Fatal(err)
	}
	return append(p, make([]byte, 512-len(p))...)
}

func TestDebiansHeaderIsUnderstood(t *testing.T) {
	h, ok := decodeHeader(headerSeed(t), 512)
	if !ok || h.slots != 255 || h.watchdog != 5*time.Second || h.msgwait != 10*time.Second || h.uuid == ([16]byte{}) {
		t.Errorf("%+v, %v", h, ok)
	}
	if _, ok := decodeHeader(headerSeed(t), 4096); ok {
		t.Error("taken for one of another sector size")
	}
}

// FuzzDecodeHeader: a header is taken only for what sbd takes for one.
func FuzzDecodeHeader(f *testing.F) {
	f.Add(headerSeed(f))
	f.Add(headerSeed(f)[:headerLen-1])
	f.Fuzz(func(t *testing.T, p []byte) {
		h, ok := decodeHeader(p, 512)
		if ok != (len(p) >= headerLen && bytes.HasPrefix(p, []byte("SBD_SBD_\x02")) && p[9] > 0 && bytes.Equal(p[12:16], []byte{0, 0, 2, 0})) {
			t.Errorf("%x: taken: %v", p, ok)
		}
		if ok && (h.watchdog < 0 || h.msgwait < 0) {
			t.Errorf("%x: negative times: %+v", p, h)
		}
	})
}

// FuzzDecodeSlot: a name ends with its field at the latest, and is only found as it is.
func FuzzDecodeSlot(f *testing.F) {
	f.Add([]byte("\x01node2\x00"))
	f.Add(append([]byte("\x01node2"), make([]byte, 506)...))
	f.Add(bytes.Repeat([]byte{'a'}, 512))
	f.Fuzz(func(t *testing.T, p []byte) {
		name := slotName(p)
		if len(name) > nameLen || bytes.IndexByte(name, 0) >= 0 {
			t.Errorf("%x has the name %q", p, name)
		}
		if sameName(name, "node2") && !bytes.EqualFold(name, []byte("node2")) {
			t.Errorf("%q taken for node2", name)
		}
	})
}

// FuzzDecodeMail: a message is what it encodes as, as far as it has a meaning.
func FuzzDecodeMail(f *testing.F) {
	own := make([]byte, 512)
	mail{cmd: msgReset, serial: serial{1, 2, 3}}.encode(own, "node1")
	f.Add(own)
	f.Add(append([]byte("\x02node1"), make([]byte, 506)...))
	f.Fuzz(func(t *testing.T, p []byte) {
		m, ok := decodeMail(p)
		if !ok {
			return
		}
		if m.serial != (serial{}) && !bytes.Contains(p, []byte(mark)) {
			t.Errorf("%x: a serial without the mark", p)
		}
		q := make([]byte, 512)
		m.encode(q, "node1")
		again, _ := decodeMail(q)
		if m.cmd != msgClear && again != m {
			t.Errorf("%+v encodes as %+v", m, again)
		}
	})
}
