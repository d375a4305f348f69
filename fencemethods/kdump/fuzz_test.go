// SPDX-License-Identifier: GPL-2.0-only

package kdump

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func FuzzDecode(f *testing.F) {
	var hello [sealedLen]byte
	message{kind: kindHello, sender: nonce{1}}.encode(&hello)
	f.Add(hello[:])
	f.Add(hello[:sealedLen-1])
	f.Add(plainMessage)
	f.Fuzz(func(t *testing.T, p []byte) {
		m, ok := decode(p)
		if !ok {
			return
		}
		var again [sealedLen]byte
		m.encode(&again)
		if !bytes.Equal(again[:macAt], p[:macAt]) {
			t.Errorf("%x decodes to what encodes as %x", p, again)
		}
	})
}

// FuzzHeard looks for a packet that a fence takes for proof without the key, or a plain one that is
// not fence_kdump's.
func FuzzHeard(f *testing.F) {
	d, other := newKernel(f, "127.0.0.1", 9, testKey, 1), newKernel(f, "127.0.0.1", 9, testKey+"x", 1)
	for _, k := range []kind{kindHello, kindChallenge, kindProof} {
		f.Add(other.sealed(message{kind: k, listener: nonce{7}}))
	}
	f.Add(plainMessage)
	f.Fuzz(func(t *testing.T, p []byte) {
		from := netip.MustParseAddrPort("127.0.0.1:9")
		sealed := &device{addrs: []netip.Addr{from.Addr()}, seal: d.seal, order: time.Now(), ours: nonce{7}}
		plain := &device{addrs: sealed.addrs, order: time.Now()}
		(&listener{devices: []*device{sealed, plain}}).heard(p, from, time.Now())
		if sealed.proven || sealed.hello.IsValid() {
			t.Errorf("%x: taken without the key", p)
		}
		if !plain.since.IsZero() && !bytes.Equal(p, plainMessage) && !bytes.Equal(p, []byte{0x1b, 0x30, 0x2a, 0x40, 0, 0, 0, 1}) {
			t.Errorf("%x: taken for fence_kdump's", p)
		}
	})
}

// FuzzAge looks for a timestamp that makes a packet younger than it is.
func FuzzAge(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 32))
	stamp := make([]byte, 32)
	binary.NativeEndian.PutUint32(stamp[8:], unix.SOL_SOCKET)
	binary.NativeEndian.PutUint32(stamp[12:], unix.SCM_TIMESTAMPNS)
	f.Add(stamp)
	f.Fuzz(func(t *testing.T, control []byte) {
		if got := age(control); got < 0 {
			t.Errorf("%x: of %v ago", control, got)
		}
	})
}
