// SPDX-License-Identifier: GPL-2.0-only

package wire

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// startEcho starts a device that answers every packet with itself, and a wire to it.
func startEcho(t *testing.T) *Wire {
	t.Helper()
	device, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { device.Close() })
	go func() {
		b := make([]byte, maxPacket)
		for {
			n, from, err := device.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = device.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	w, err := New(device.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// quiet is how long nothing comes before no more is expected: that something is lost cannot be
// waited for.
const quiet = 400 * time.Millisecond

// talk sends one packet for each word and returns the answers that came from the wire's own
// address and those that did not.
func talk(t *testing.T, w *Wire, words ...string) (answers, forged []string) {
	t.Helper()
	c, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, word := range words {
		_, _ = c.WriteToUDPAddrPort([]byte(word), w.Addr())
	}
	b := make([]byte, maxPacket)
	_ = c.SetReadDeadline(time.Now().Add(quiet))
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		switch {
		case err != nil:
			return answers, forged
		case same(from, w.Addr()):
			answers = append(answers, string(b[:n]))
		default:
			forged = append(forged, string(b[:n]))
		}
	}
}

func same(a, b netip.AddrPort) bool {
	return a.Addr().Unmap() == b.Addr().Unmap() && a.Port() == b.Port()
}

func TestFaultsAreWhatTheySay(t *testing.T) {
	for _, c := range []struct {
		name            string
		fault           Fault
		answers, forged []string
	}{
		{"none", nil, []string{"one", "two"}, nil},
		{"cut", Cut, nil, nil},
		{"mute", Mute, nil, nil},
		{"double", Double, []string{"one", "one", "two", "two"}, nil},
		{"shuffle", Shuffle, []string{"two", "one"}, nil},
		{"truncate", Truncate, []string{"o", "t"}, nil},
		{"corrupt", Corrupt(), []string{"ond", "two"}, nil},
		{"forgery", Forgery, []string{"one", "two"}, []string{"one", "two"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := startEcho(t)
			w.SetFault(c.fault)
			answers, forged := talk(t, w, "one", "two")
			if !slices.Equal(answers, c.answers) || !slices.Equal(forged, c.forged) {
				t.Errorf("%q and forged %q; want %q and %q", answers, forged, c.answers, c.forged)
			}
		})
	}
}

// Two answers that are damaged alike would be two that agree. One that is repeated is no other answer.
func TestTheAnswerAfterADamagedOneIsWhole(t *testing.T) {
	const answers, times = 100, 2
	fault, damaged, last := Corrupt(), 0, -times
	for n := range answers * times {
		answer := n / times
		p := Packet{Answer: true, N: n, Data: []byte{byte(answer), 0}}
		p.deliver = func(b []byte) {
			if b[1] == 0 {
				return
			}
			damaged++
			if last == answer-1 {
				t.Errorf("answers %d and %d are damaged", last, answer)
			}
			last = answer
		}
		fault(p)
	}
	if damaged < answers/10 {
		t.Errorf("%d are damaged", damaged)
	}
}

func TestATapePlaysWhatItRecorded(t *testing.T) {
	var tape Tape
	w := startEcho(t)
	w.SetFault(tape.Record)
	talk(t, w, "old")
	w.SetFault(tape.Play)
	if answers, _ := talk(t, w, "new"); !slices.Equal(answers, []string{"old", "new"}) {
		t.Errorf("answers %q", answers)
	}
}

func TestALossyWireLosesSome(t *testing.T) {
	w := startEcho(t)
	w.SetFault(Lossy())
	answers, _ := talk(t, w, make([]string, 40)...)
	if len(answers) == 0 || len(answers) == 40 {
		t.Errorf("%d of 40 came through", len(answers))
	}
}
