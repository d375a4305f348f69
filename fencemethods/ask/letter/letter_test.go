// SPDX-License-Identifier: GPL-2.0-only

package letter

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/fencemethods"
)

func example() Question {
	return Question{
		Target: fencemethods.Target{Cluster: "web", Node: 254, Name: "web2"}, Asker: "web1",
		Reason: []byte("missed 5 heartbeats in région 5A"),
	}
}

func TestAQuestionIsReadAsItWasWritten(t *testing.T) {
	for _, change := range []func(*Question){
		func(*Question) {}, func(q *Question) { q.Taken = true }, func(q *Question) { q.Reason = []byte{} },
	} {
		want := example()
		change(&want)
		got, ok := ParseQuestion(string(want.Append(nil)))
		if diff := cmp.Diff(want, got); !ok || diff != "" {
			t.Errorf("%v, -want +got:\n%s", ok, diff)
		}
	}
	b, q := make([]byte, 0, Room), example()
	if n := testing.AllocsPerRun(10, func() { b = q.Append(b[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWhatIsNoQuestionIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "web web2 2 web1 ", "web web2 256 web1 - why", "web web2 -1 web1 - why", "web web2 2 web1 given why", "web web2 2  - why", " web2 2 web1 - why",
	} {
		if q, ok := ParseQuestion(text); ok {
			t.Errorf("%q is taken for %+v", text, q)
		}
	}
}

func TestAnEndIsReadAsItWasWritten(t *testing.T) {
	for _, taken := range []bool{true, false} {
		if is, how := ParseEnd(string(AppendEnd(nil, taken, "confirmed by ann"))); is != taken || how != "confirmed by ann" {
			t.Errorf("%v, %q", is, how)
		}
	}
	for _, text := range []string{"", "confirmed", "given up", "taken"} {
		if is, how := ParseEnd(text); is || how != "" {
			t.Errorf("%q: %v, %q", text, is, how)
		}
	}
}

func FuzzParseQuestion(f *testing.F) {
	q := example()
	f.Add(string(q.Append(nil)))
	f.Add("web web2 2 web1 taken ")
	f.Fuzz(func(t *testing.T, text string) {
		q, ok := ParseQuestion(text)
		if !ok {
			return
		}
		again, ok := ParseQuestion(string(q.Append(nil)))
		if diff := cmp.Diff(q, again); !ok || diff != "" {
			t.Errorf("%v, %s", ok, diff)
		}
	})
}
