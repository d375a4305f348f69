// SPDX-License-Identifier: GPL-2.0-only

package message

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
)

func full() Message {
	m := Message{
		Kind: Order, Op: Off, State: fencemethods.On, Failure: 7,
		Node: Tag{1}, Client: Nonce{2}, Server: Nonce{3}, Next: Nonce{4},
		Clock: 5, Left: 6, Silent: 7, Sender: 8, Requested: true, Number: 9, Incarnation: 10, Attempt: 11,
	}
	SetText(&m, "why")
	return m
}

func TestAMessageSurvivesTheWire(t *testing.T) {
	want := full()
	var p [Size]byte
	want.Encode(&p)
	if got, ok := Decode(p[:]); !ok || got != want {
		t.Errorf("%+v, %v; want %+v", got, ok, want)
	}
}

func TestTheSealIsOfEveryByte(t *testing.T) {
	seal := NewSeal(fencemethods.Secret("0123456789abcdef"))
	m := full()
	var p [Size]byte
	m.Encode(&p)
	seal.Close(&p)
	if !seal.Genuine(p[:]) {
		t.Fatal("not genuine")
	}
	for i := range p {
		p[i] ^= 1
		if seal.Genuine(p[:]) {
			t.Errorf("genuine with another byte %d", i)
		}
		p[i] ^= 1
	}
	if NewSeal(fencemethods.Secret("0123456789abcdeg")).Genuine(p[:]) {
		t.Error("genuine with another key")
	}
}

func TestATagIsOfClusterNumberAndName(t *testing.T) {
	seen := map[Tag]fencemethods.Target{}
	for _, target := range []fencemethods.Target{
		{Cluster: "web", Node: 1, Name: "web1"},
		{Cluster: "web", Node: 2, Name: "web1"},
		{Cluster: "web", Node: 1, Name: "web2"},
		{Cluster: "wep", Node: 1, Name: "web1"},
		{Cluster: "web", Node: '1', Name: "web1"},
	} {
		tag := TagOf(target)
		if other, ok := seen[tag]; ok {
			t.Errorf("%+v and %+v have one tag", target, other)
		}
		seen[tag] = target
	}
}

func TestATextIsCutBetweenCharacters(t *testing.T) {
	for text, want := range map[string]string{
		"short":                                  "short",
		strings.Repeat("x", TextMax) + "y":       strings.Repeat("x", TextMax),
		strings.Repeat("x", TextMax-1) + "ü":     strings.Repeat("x", TextMax-1),
		"no \xff UTF-8":                          "",
		strings.Repeat("ü", TextMax/2) + "ümlau": strings.Repeat("ü", TextMax/2),
	} {
		var m Message
		SetText(&m, text)
		if m.Text() != want {
			t.Errorf("%q became %q", text, m.Text())
		}
	}
}

// What one side says ends on the other side's terminals.
func TestATextHasNoControlCharacters(t *testing.T) {
	var m Message
	SetText(&m, "a\x1b[2Jb\nc")
	if got := m.Text(); got != "a [2Jb c" {
		t.Errorf("%q", got)
	}
	m.Kind, m.Op = Done, Off
	m.text[0] = '\n'
	var p [Size]byte
	m.Encode(&p)
	if _, ok := Decode(p[:]); ok {
		t.Error("decoded")
	}
}

func TestAnErrorKeepsItsKind(t *testing.T) {
	for i, kind := range failures() {
		if got := FailureOf(kind); int(got) != i {
			t.Errorf("%v is %d", kind, got)
		}
		if got := FailureOf(kind).Kind(); got != kind {
			t.Errorf("%v came back as %v", kind, got)
		}
	}
	for err, want := range map[error]error{
		errors.New("new"):        fencemethods.ErrRefused,
		context.DeadlineExceeded: fencemethods.ErrTimeout,
		context.Canceled:         fencemethods.ErrRefused,
	} {
		if got := FailureOf(err).Kind(); got != want {
			t.Errorf("%v came back as %v", err, got)
		}
	}
	for f := range 256 {
		if err := Failure(f).Kind(); (err == nil) != (f == 0) {
			t.Errorf("%d is %v", f, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	m := full()
	var p [Size]byte
	m.Encode(&p)
	f.Add(p[:])
	f.Add(p[:Size-1])
	f.Add(bytes.Repeat([]byte{0xff}, Size))
	f.Fuzz(func(t *testing.T, p []byte) {
		m, ok := Decode(p)
		if !ok {
			return
		}
		var again [Size]byte
		m.Encode(&again)
		if !bytes.Equal(again[:macAt], p[:macAt]) {
			t.Errorf("%x decodes to what encodes as %x", p, again)
		}
	})
}
