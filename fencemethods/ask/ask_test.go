// SPDX-License-Identifier: GPL-2.0-only

package ask

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ask/desk"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

func serving(ctx context.Context, number uint64) (context.Context, *fencemethods.Note) {
	r := fencemethods.Request{
		Number: number, Incarnation: 0xabc, Attempt: 2, Silent: time.Now().Add(-time.Minute), Note: new(fencemethods.Note),
	}
	r.Reason.Set([]byte("missed 5 heartbeats"))
	return fencemethods.WithRequest(ctx, r), r.Note
}

func TestAnAdministratorSeesWhatIsAskedAndIsRememberedForTheAnswer(t *testing.T) {
	t.Parallel()
	a := startAdmin(t, "127.0.0.1:0", nil)
	d := open(t, params(t, a.port()), nil)
	ctx, note := serving(within(t, patience), 7)
	ended := make(chan error, 1)
	go func() { ended <- d.Off(ctx) }()
	r := a.await("the question", isState(desk.Open))
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if r.Cluster != "web" || r.Node != "web2" || r.Number != 2 || r.Incarnation != "0000000000000abc" || r.Attempt != 2 ||
		r.AskedBy != host || r.Reason != "missed 5 heartbeats" || !strings.HasPrefix(r.Request, "7-") {
		t.Errorf("asked %+v", r)
	}
	if silent := time.Since(r.SilentSince); silent < time.Minute || silent > time.Minute+patience {
		t.Errorf("silent for %v", silent)
	}
	if left := time.Until(r.Until); left <= 0 || left > patience {
		t.Errorf("%v left", left)
	}
	if _, err := a.Answer(r.Request, "web2", true, "ann@admin", "pulled both cords"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := note.Take(); got != "ann@admin: pulled both cords" {
		t.Errorf("noted %q", got)
	}
	if r := a.await("the end", isState(desk.Over)); !r.Taken || !strings.Contains(r.End, "confirmed by ann@admin: pulled both cords") {
		t.Errorf("in the end: %+v", r)
	}
}

// All are asked at once, one is enough, and the others are told that it is settled.
func TestTheFirstAnswerCountsAndSettlesItForTheOthers(t *testing.T) {
	t.Parallel()
	ann := startAdmin(t, "127.0.0.1:0", nil)
	ben := startAdmin(t, "127.0.0.2:"+portOf(ann), nil)
	p := params(t, ann.port())
	p["addrs"] = "127.0.0.9,127.0.0.1,127.0.0.2" // at the first there is nobody
	d := open(t, p, nil)
	ended := make(chan error, 1)
	go func() { ended <- d.Off(within(t, patience)) }()
	r := ann.await("the question to ann", isState(desk.Open))
	if also := ben.await("the question to ben", isState(desk.Open)); also.Request != r.Request {
		t.Errorf("one question has two names, %s and %s", r.Request, also.Request)
	}
	if _, err := ben.Answer(r.Request, "web2", true, "ben", "pulled both cords"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	over := ann.await("the end at ann's", isState(desk.Over))
	if over.Taken || !strings.Contains(over.End, "confirmed by ben: pulled both cords") {
		t.Errorf("ann is told %+v", over)
	}
	if _, err := ann.Answer(r.Request, "web2", true, "ann", "I, too"); !errors.Is(err, desk.ErrStale) {
		t.Errorf("ann's answer: %v", err)
	}
}

func portOf(a *admin) string { _, port, _ := strings.Cut(a.addr.String(), ":"); return port }

// An admin machine may be reached by two addresses, or by one that leads to it and should not.
func TestTheWordGivenOnOneMachineCountsOnce(t *testing.T) {
	t.Parallel()
	ann := startAdmin(t, "127.0.0.1:0", says(true, "ann", "pulled one cord"))
	fencetest.Proxy(t, netip.MustParseAddrPort("127.0.0.2:"+portOf(ann)), ann.addr)
	p := params(t, ann.port())
	p["addrs"], p["require"] = "127.0.0.1,127.0.0.2", "2"
	d := open(t, p, nil)
	right := func(err error) bool {
		return errors.Is(err, fencemethods.ErrTimeout) && strings.Contains(err.Error(), "1 of 2 have confirmed")
	}
	if err := fencetest.EnoughTime(t, short, right, d.Off); !right(err) {
		t.Error(err)
	}
}

func TestAsManyHaveToConfirmAsAreRequired(t *testing.T) {
	t.Parallel()
	ann := startAdmin(t, "127.0.0.1:0", says(true, "ann", "pulled one cord"))
	ben := startAdmin(t, "127.0.0.2:"+portOf(ann), nil)
	p := params(t, ann.port())
	p["addrs"], p["require"] = "127.0.0.1,127.0.0.2", "2"
	d := open(t, p, nil)
	right := func(err error) bool {
		return errors.Is(err, fencemethods.ErrTimeout) && strings.Contains(err.Error(), "1 of 2 have confirmed")
	}
	if err := fencetest.EnoughTime(t, short, right, d.Off); !right(err) {
		t.Errorf("ann alone: %v", err)
	}
	if r := ann.await("the end at ann's", isState(desk.Over)); !r.Taken {
		t.Errorf("ann's answer was not taken: %+v", r)
	}
	ctx, note := serving(within(t, patience), 8)
	ended := make(chan error, 1)
	go func() { ended <- d.Off(ctx) }()
	ann.await("ann's word being taken", func(r desk.Record) bool { return r.State == desk.Confirmed && r.Taken })
	r := ben.await("the question to ben", isState(desk.Open))
	if _, err := ben.Answer(r.Request, "web2", true, "ben", "pulled the other"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := note.Take(); got != "ann: pulled one cord; ben: pulled the other" {
		t.Errorf("noted %q", got)
	}
}

// The next method is to have its turn.
func TestOneWhoDeclinesEndsIt(t *testing.T) {
	t.Parallel()
	ann := startAdmin(t, "127.0.0.1:0", says(false, "ann", "its fans are running"))
	ben := startAdmin(t, "127.0.0.2:"+portOf(ann), nil)
	p := params(t, ann.port())
	p["addrs"] = "127.0.0.1,127.0.0.2"
	d := open(t, p, nil)
	err := d.Off(within(t, patience))
	if !errors.Is(err, fencemethods.ErrRefused) || !strings.Contains(err.Error(), "declined by ann: its fans are running") {
		t.Errorf("%v", err)
	}
	if r := ann.await("the end at ann's", isState(desk.Over)); !r.Taken {
		t.Errorf("ann's answer was not taken: %+v", r)
	}
	if r := ben.await("the end at ben's", isState(desk.Over)); r.Taken || !strings.Contains(r.End, "declined by ann") {
		t.Errorf("ben is told %+v", r)
	}
}

// Whoever was about to vouch for request 7 does not vouch for request 8.
func TestAConfirmationOfAnEarlierRequestIsRefused(t *testing.T) {
	t.Parallel()
	a := startAdmin(t, "127.0.0.1:0", nil)
	d := open(t, params(t, a.port()), nil)
	ctx, _ := serving(within(t, patience), 7)
	ctx, callOff := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Off(ctx) }()
	seven := a.await("request 7", isState(desk.Open))
	callOff()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	a.await("the end of request 7", isState(desk.Over))
	ctx, _ = serving(within(t, patience), 8)
	ctx, callOff = context.WithCancel(ctx)
	go func() { ended <- d.Off(ctx) }()
	a.await("request 8", isState(desk.Open))
	if _, err := a.Answer(seven.Request, "web2", true, "ann", "I am sure"); !errors.Is(err, desk.ErrStale) {
		t.Errorf("%v, want %v", err, desk.ErrStale)
	}
	select {
	case err := <-ended:
		t.Errorf("request 8: %v", err)
	case <-time.After(short):
	}
	callOff()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("request 8: %v", err)
	}
}

// Where nobody can be asked, the next method should not have to wait for a day.
func TestItGivesUpWhenNoMachineAnswers(t *testing.T) {
	t.Parallel()
	d := open(t, params(t, 9), map[string]string{"addrs": "127.0.0.9", "reach_ms": "1000"})
	if err := d.Off(within(t, patience)); !errors.Is(err, fencemethods.ErrUnreachable) {
		t.Errorf("%v", err)
	}
	a := startAdmin(t, "127.0.0.1:0", nil)
	d = open(t, params(t, a.port()), map[string]string{"reach_ms": "1000"})
	ended := make(chan error, 1)
	go func() { ended <- d.Off(within(t, patience)) }()
	a.await("the question", isState(desk.Open))
	a.stop()
	if err := <-ended; !errors.Is(err, fencemethods.ErrTimeout) || !strings.Contains(err.Error(), "fell silent") {
		t.Errorf("one that is gone: %v", err)
	}
}

func TestCheckNamesTheMachineThatDoesNotListen(t *testing.T) {
	t.Parallel()
	a := startAdmin(t, "127.0.0.1:0", nil)
	d := open(t, params(t, a.port()), map[string]string{"addrs": "127.0.0.1,127.0.0.9"})
	right := func(err error) bool {
		return errors.Is(err, fencemethods.ErrUnreachable) && strings.Contains(err.Error(), "127.0.0.9: no answer")
	}
	if err := fencetest.EnoughTime(t, short, right, d.Check); !right(err) {
		t.Errorf("%v", err)
	}
	if all := a.Records(); len(all) != 0 {
		t.Errorf("a check is shown: %+v", all)
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	for _, c := range []struct{ key, value, text string }{
		{"addrs", "admin1", "names are not looked up"},
		{"addrs", "10.0.0.1,", "not an IP address"},
		{"addrs", "0.0.0.0", "no address of a machine's"},
		{"addrs", "10.0.0.1,10.0.0.1", "twice"},
		{"addrs", "10.0.0.1,::ffff:10.0.0.1", "twice"},
		{"addrs", "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5,10.0.0.6,10.0.0.7,10.0.0.8,10.0.0.9", "at most 8"},
		{"addr", "10.0.0.1", `did you mean "addrs"?`},
		{"require", "2", "at most 1"},
		{"reach_ms", "1000", "3 times repeat_ms"},
		{"port", "0", "from 1 to 65535"},
		{"key_file", "hunter2", "absolute path"},
	} {
		p := map[string]string{"addrs": "127.0.0.1", "key_file": "/etc/ocfs2/ask.key", c.key: c.value}
		_, err := Method().Parse(p)
		if e, ok := errors.AsType[*fencemethods.ParamError](err); !ok || e.Key != c.key || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
	}
	_, err := Method().Open(target, map[string]string{"addrs": "127.0.0.1", "key_file": fencetest.SecretFile(t, "hunter2")})
	if err == nil || !strings.Contains(err.Error(), "16 bytes") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a short key: %v", err)
	}
}
