// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ask"
	"github.com/o2fence/o2fence/fencemethods/ask/desk"
)

// askTime is for a question to be answered: only a hang takes that long.
const askTime = 30 * time.Second

func freePort(ts *testscript.TestScript, _ bool, _ []string) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	ts.Check(err)
	defer conn.Close()
	ts.Setenv("PORT", strconv.Itoa(conn.LocalAddr().(*net.UDPAddr).Port))
}

// A reply is how a question has ended.
type reply struct {
	err  error
	note string
}

// replies has a script's replies, to one question at a time.
const replies = "replies"

func asks(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: asks NUMBER")
	}
	number, err := strconv.ParseUint(args[0], 10, 64)
	ts.Check(err)
	d, err := ask.Method().Open(fencemethods.Target{Cluster: "web", Node: 2, Name: "web2"}, map[string]string{
		"addrs": "127.0.0.1", "port": ts.Getenv("PORT"), "key_file": ts.MkAbs("key"), "repeat_ms": "100",
	})
	ts.Check(err)
	r := fencemethods.Request{
		Number: number, Incarnation: 0xabc, Attempt: 1, Silent: time.Now().Add(-time.Minute), Note: new(fencemethods.Note),
	}
	r.Reason.Set([]byte("missed 5 heartbeats"))
	ctx, cancel := context.WithTimeout(fencemethods.WithRequest(context.Background(), r), askTime)
	ts.Defer(func() { cancel(); d.Close() })
	ended := ts.Value(replies).(chan reply)
	go func() {
		err := d.Off(ctx)
		ended <- reply{err, r.Note.Take()}
	}()
	ts.Setenv("REQUEST", awaitQuestion(ctx, ts, args[0]+"-"))
}

func awaitQuestion(ctx context.Context, ts *testscript.TestScript, prefix string) string {
	for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		all, err := desk.Questions(ctx, ts.MkAbs("desk"))
		ts.Check(err)
		for _, q := range all {
			if strings.HasPrefix(q.Request, prefix) {
				return q.Request
			}
		}
	}
	ts.Fatalf("nobody has asked %s...", prefix)
	return ""
}

func answered(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: answered ERROR NOTE")
	}
	got, text := <-ts.Value(replies).(chan reply), ""
	if got.err != nil {
		text = got.err.Error()
	}
	for i, s := range []string{text, got.note} {
		if (s == "") != (args[i] == "") || !regexp.MustCompile(args[i]).MatchString(s) {
			ts.Fatalf("answered with error %q and note %q", text, got.note)
		}
	}
}
