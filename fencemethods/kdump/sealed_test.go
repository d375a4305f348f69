// SPDX-License-Identifier: GPL-2.0-only

package kdump

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// A kernel is the example of a sender for a kdump image: it says hello until it is challenged, and
// proves that it is there. That it runs nowhere else is for the image to see to.
type kernel struct {
	conn *net.UDPConn
	seal *seal

	mute    bool               // answers no challenges
	plain   bool               // sends fence_kdump's message instead
	machine *fencetest.Machine // runs only while that is off

	proofs [][]byte
}

func newKernel(t testing.TB, from string, port int, key string, node uint8) *kernel {
	return &kernel{
		conn: speaker(t, from, port),
		seal: &seal{mac: hmac.New(sha256.New, []byte(key)), node: []byte{'c', 0, node}},
	}
}

func (k *kernel) sealed(m message) []byte {
	var p [sealedLen]byte
	m.encode(&p)
	copy(p[macAt:], k.seal.of(p[:]))
	return p[:]
}

func (k *kernel) runs() bool {
	if k.machine == nil {
		return true
	}
	on, err := k.machine.On()
	return err == nil && !on
}

// speak goes on until the test ends; the function that it returns ends it earlier.
func (k *kernel) speak(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	go func() {
		defer close(ended)
		his, in := nonce{1, 2, 3}, make([]byte, sealedLen)
		for ctx.Err() == nil {
			if !k.runs() {
				time.Sleep(20 * time.Millisecond)
				continue
			}
			hello := k.sealed(message{kind: kindHello, sender: his})
			if k.plain {
				hello = plainMessage
			}
			_, _ = k.conn.Write(hello)
			_ = k.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			n, err := k.conn.Read(in)
			m, ok := decode(in[:n])
			if err != nil || !ok || m.kind != kindChallenge || m.sender != his || !k.seal.genuine(in[:n]) || k.mute {
				continue
			}
			proof := k.sealed(message{kind: kindProof, sender: his, listener: m.listener})
			k.proofs = append(k.proofs, proof)
			_, _ = k.conn.Write(proof)
		}
	}()
	return stop
}

func TestASealedProofIsEnough(t *testing.T) {
	port := freePort(t)
	d := open(t, 1, sealedParams(t, port), nil)
	newKernel(t, "127.0.0.1", port, testKey, 1).speak(t)
	for range 2 { // another fence is another challenge
		if err := d.Off(within(t, patience)); err != nil {
			t.Fatal(err)
		}
	}
}

// A hello that came before the fence spares the wait for the next one, but proves nothing.
func TestAHelloIsRememberedAndChallenged(t *testing.T) {
	port := freePort(t)
	d := bare(t, sealedParams(t, port), nil)
	k := newKernel(t, "127.0.0.1", port, testKey, 1)
	k.mute = true
	stop := k.speak(t)
	awaitHeard(t, d, func() bool { return d.hello.IsValid() })
	stop()
	wantError(t, d.Off(within(t, short)), fencemethods.ErrTimeout, "does not answer") // which the hello has told already
}

func TestAnOldProofIsNoProof(t *testing.T) {
	port := freePort(t)
	d := open(t, 1, sealedParams(t, port), nil)
	k := newKernel(t, "127.0.0.1", port, testKey, 1)
	stop := k.speak(t)
	if err := d.Off(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	stop()
	if len(k.proofs) == 0 {
		t.Fatal("no proofs to repeat")
	}
	for _, p := range append(k.proofs, k.sealed(message{kind: kindProof})) {
		repeat(t, k.conn, p)
	}
	if err := d.Off(within(t, short)); !errors.Is(err, fencemethods.ErrTimeout) {
		t.Errorf("an old proof: %v", err)
	}
}

func TestASealIsOfOneNodeAndKey(t *testing.T) {
	for name, c := range map[string]struct {
		key, from string
		node      uint8
		kind      error
		text      string
	}{
		"another key":     {testKey + "x", "127.0.0.1", 1, fencemethods.ErrAuth, "another seal"},
		"another node":    {testKey, "127.0.0.1", 2, fencemethods.ErrAuth, "another seal"},
		"another address": {testKey, "127.0.0.9", 1, fencemethods.ErrTimeout, "no word"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			d := open(t, 1, sealedParams(t, port), nil)
			newKernel(t, c.from, port, c.key, c.node).speak(t)
			err := inVain(t, d, c.kind)
			wantError(t, err, c.kind, c.text)
			if strings.Contains(err.Error(), testKey) {
				t.Error("gives the key away")
			}
		})
	}
}

// inVain fences, and takes the time that it takes to hear of what is wrong.
func inVain(t *testing.T, d fencemethods.Device, kind error) error {
	t.Helper()
	right := func(err error) bool { return errors.Is(err, kind) }
	return fencetest.EnoughTime(t, short, right, func(ctx context.Context) error { return d.Off(silence(ctx)) })
}

func TestAPlainMessageIsNoProofWhereThereIsAKey(t *testing.T) {
	port := freePort(t)
	d := open(t, 1, sealedParams(t, port), nil)
	repeat(t, speaker(t, "127.0.0.1", port), plainMessage)
	wantError(t, inVain(t, d, fencemethods.ErrAuth), fencemethods.ErrAuth, "without a seal")
}
