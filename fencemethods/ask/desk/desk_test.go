// SPDX-License-Identifier: GPL-2.0-only

package desk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func question(number uint64, node string) (ID, Question) {
	id := ID(number)<<56 | ID(node[len(node)-1])<<48 | 1
	return id, Question{
		Request: id.Request(number), Cluster: "web", Node: node, Number: 2, AskedBy: "web1",
		Until: time.Now().Add(time.Hour),
	}
}

func mustAsk(t *testing.T, d *Desk, number uint64, node string) Record {
	t.Helper()
	r, err := d.Ask(question(number, node))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnAnswerIsKeptUntilTheClusterHasTakenIt(t *testing.T) {
	d := New()
	asked := mustAsk(t, d, 7, "web2")
	if asked.State != Open || asked.AskedAt.IsZero() {
		t.Errorf("asked: %+v", asked)
	}
	if _, err := d.Answer(asked.Request, "web2", true, "ann@admin", "pulled both cords"); err != nil {
		t.Fatal(err)
	}
	// It comes again, for the answer may be lost.
	for range 2 {
		if r := mustAsk(t, d, 7, "web2"); r.State != Confirmed || r.Who != "ann@admin" || r.Why != "pulled both cords" {
			t.Errorf("asked again: %+v", r)
		}
	}
	id, _ := question(7, "web2")
	d.Take(id)
	d.End(id, "web2 counts as fenced")
	all := d.Records()
	if len(all) != 1 || all[0].State != Over || !all[0].Taken || all[0].Who != "ann@admin" || all[0].EndedAt.IsZero() {
		t.Errorf("in the end: %+v", all)
	}
	var told []State
	for _, r := range d.News(t.Context()) {
		told = append(told, r.State)
	}
	if got := fmt.Sprint(told); got != "[open confirmed confirmed over]" {
		t.Errorf("told %s", got)
	}
}

// Whoever has looked at one question must not answer another.
func TestAnAnswerCountsForTheQuestionThatItNames(t *testing.T) {
	d := New()
	old := mustAsk(t, d, 7, "web2")
	id, _ := question(7, "web2")
	d.Take(id) // which there is nothing of
	d.End(id, "called off")
	now := mustAsk(t, d, 8, "web2")
	another := mustAsk(t, d, 8, "web3") // of another node of the cluster, with the same number
	declined := mustAsk(t, d, 9, "web4")
	if _, err := d.Answer(declined.Request, "web4", false, "ann", "its fans are running"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, request, node string
		kind                error
		text                string
	}{
		{"the one before", old.Request, "web2", ErrStale, "called off"},
		{"none", "9-abcdef", "web2", ErrUnknown, now.Request},
		{"none of that node", "9-abcdef", "web9", ErrUnknown, "nobody asks"},
		{"the number alone", "8", "web2", ErrUnknown, now.Request},
		{"another node's", another.Request, "web2", ErrUnknown, "is about node web3"},
		{"one that is answered", declined.Request, "web4", ErrAnswered, "its fans are running"},
	} {
		if _, err := d.Answer(c.request, c.node, true, "ann", "I am sure"); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v: %s", c.name, err, c.kind, c.text)
		}
	}
	for _, r := range d.Records() {
		if r.State == Confirmed {
			t.Errorf("confirmed: %+v", r)
		}
	}
}

func TestAQuestionWhoseTimeIsOverCannotBeAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New()
		r := mustAsk(t, d, 7, "web2")
		time.Sleep(time.Hour + grace + 1)
		if _, err := d.Answer(r.Request, "web2", true, "ann", "I am sure"); !errors.Is(err, ErrStale) {
			t.Errorf("%v, want %v", err, ErrStale)
		}
	})
}

// Who asks may have died, or the network have been split.
func TestAQuestionThatIsNotHeardAnyMoreIsOverUntilItComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New()
		r := mustAsk(t, d, 7, "web2")
		if _, err := d.Answer(r.Request, "web2", true, "ann", "pulled both cords"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lost + 1)
		if all := d.Records(); len(all) != 1 || all[0].State != Over || all[0].Taken {
			t.Errorf("not heard for a minute: %+v", all)
		}
		if r := mustAsk(t, d, 7, "web2"); r.State != Confirmed || r.Who != "ann" {
			t.Errorf("heard again: %+v", r)
		}
		if all := d.Records(); len(all) != 1 {
			t.Errorf("it is there %d times", len(all))
		}
	})
}

// A datagram may be overtaken by the one that says that it is all over.
func TestAQuestionThatIsOverIsNotOpenedAgain(t *testing.T) {
	d := New()
	mustAsk(t, d, 7, "web2")
	id, _ := question(7, "web2")
	d.End(id, "called off")
	if r := mustAsk(t, d, 7, "web2"); r.State != Over || r.End != "called off" {
		t.Errorf("%+v", r)
	}
}

func TestWhoAndWhyHaveToBeSaid(t *testing.T) {
	d := New()
	r := mustAsk(t, d, 7, "web2")
	for _, c := range [][2]string{
		{"", "I am sure"}, {"ann", ""}, {"ann", "two\nlines"}, {"ann", "\x1b[2J"}, {"ann", "\xff"}, {"ann", strings.Repeat("x", TextMax)},
	} {
		if _, err := d.Answer(r.Request, "web2", true, c[0], c[1]); !errors.Is(err, ErrText) {
			t.Errorf("%q: %v, want %v", c, err, ErrText)
		}
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	d := New()
	for n := range uint64(maxOpen) {
		q := Question{Until: time.Now().Add(time.Hour)}
		if _, err := d.Ask(ID(n), q); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Ask(ID(maxOpen), Question{}); err == nil {
		t.Error("one more is taken")
	}
	for n := range uint64(maxOpen) {
		d.End(ID(n), "over")
	}
	if all := d.Records(); len(all) != maxEnded {
		t.Errorf("%d are remembered", len(all))
	}
}

// serve has a Desk take calls at a socket.
func serve(t *testing.T, d *Desk) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "run", "desk")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return socket
}

func TestAnAdministratorAnswersThroughTheSocket(t *testing.T) {
	id, _ := question(7, "web2")
	d := New()
	go func() {
		for news := d.News(t.Context()); news != nil; news = d.News(t.Context()) {
			if news[len(news)-1].State == Confirmed {
				d.Take(id) // as the cluster will say
			}
		}
	}()
	asked := mustAsk(t, d, 7, "web2")
	socket := serve(t, d)
	all, err := Questions(t.Context(), socket)
	if err != nil || len(all) != 1 || all[0].Request != asked.Request {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, err := Tell(t.Context(), socket, "9-abcdef", "web2", true, "ann", "I am sure"); !errors.Is(err, ErrUnknown) {
		t.Errorf("another question: %v", err)
	}
	got, err := Tell(t.Context(), socket, asked.Request, "web2", true, "ann@admin", "pulled both cords")
	if err != nil || !got.Taken || got.State != Confirmed || got.Who != "ann@admin" {
		t.Errorf("%+v, %v", got, err)
	}
	d.End(id, "web2 counts as fenced")
	if _, err := Tell(t.Context(), socket, asked.Request, "web2", true, "ben", "I, too"); !errors.Is(err, ErrStale) {
		t.Errorf("once more: %v", err)
	}
}

func TestOnlyTheOwnerMayVouch(t *testing.T) {
	socket := serve(t, New())
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestThereIsOneDeskAtASocket(t *testing.T) {
	socket := serve(t, New())
	if _, err := Listen(socket); err == nil {
		t.Error("a second one listens")
	}
	// One that was killed leaves its socket behind.
	left := filepath.Join(t.TempDir(), "desk")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if l, err = Listen(left); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := Questions(t.Context(), left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no Desk: %v", err)
	}
}

func TestACallThatIsNoneIsRefused(t *testing.T) {
	socket := serve(t, New())
	for _, text := range []string{"hello\n", `{"answer":true,"yes":true,"force":true}` + "\n", "{}{}"[:1]} {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(text))
		_ = conn.CloseWrite()
		got, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(got), `"error":"`) || strings.Contains(string(got), `"error":""`) {
			t.Errorf("%q: answered %q, %v", text, got, err)
		}
		conn.Close()
	}
}
