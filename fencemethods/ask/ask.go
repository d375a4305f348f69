// SPDX-License-Identifier: GPL-2.0-only

// Package ask asks administrators over the network to make sure that a node is off, and waits for the
// answer: for hours, if it takes hours. (R14)
//
// All admin machines are asked at once, again and again. There, "o2fencectl listen" shows the question
// (package desk), and an administrator confirms or declines. What counts is a sealed answer to this very
// question (package message), from as many machines as require says; who has given it and why goes
// into the kernel's history. One who declines ends it at once.
//
// The proof is somebody's word, nothing that was read. So this is for the end of a list.
package ask

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ask/letter"
	"github.com/o2fence/o2fence/fencemethods/remote"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

// Name is the method's. The kernel has one called manual, which asks on its own console only.
const Name = "ask"

// Port is where admin machines listen unless told otherwise, UDP.
const Port = 7413

// TimeoutMS is how long to ask when fence.conf does not say: a day, as for manual.
const TimeoutMS = 86400000

const (
	maxAddrs  = 8
	nap       = 20 * time.Millisecond // how late an answer may be noticed
	checkTime = 5 * time.Second       // for Check, whatever the question's own time is
)

// Method describes this method.
func Method() fencemethods.Method {
	return fencemethods.Method{
		Name:      Name,
		Summary:   "ask administrators over the network to make sure that the node is off",
		MemoryKiB: 32,
		KernelKiB: kernelKiB,
		Blind:     true,
		Verify:    verify,
		New:       New,
		Params: []fencemethods.Param{
			{Name: "addrs", Required: true, Validate: fencemethods.IPAddrs(maxAddrs), Help: "IP addresses of 1 to 8 admin machines, separated by commas; all are asked at once"},
			{Name: "port", Default: fmt.Sprint(Port), Validate: fencemethods.Between(1, 65535), Help: "UDP port of o2fencectl listen there"},
			{Name: "key_file", Required: true, Secret: true, Help: "file that holds the key of the admin machines, at least 16 bytes"},
			{Name: "require", Default: "1", Validate: fencemethods.Between(1, maxAddrs), Help: "on how many of them somebody has to confirm"},
			{Name: "repeat_ms", Default: "2000", Validate: fencemethods.Between(100, 10000), Help: "milliseconds after which the question is repeated"},
			{
				Name: "reach_ms", Default: "60000", Validate: fencemethods.Between(1000, TimeoutMS),
				Help: "milliseconds after which to give up while no admin machine answers; at least 3 times repeat_ms",
			},
		},
	}
}

func verify(v fencemethods.Values) *fencemethods.ParamError {
	if n := strings.Count(v["addrs"], ",") + 1; v.Int("require") > n {
		return &fencemethods.ParamError{Key: "require", Text: fmt.Sprintf("expected at most %d, for so many machines are asked", n)}
	}
	if v.Int("reach_ms") < 3*v.Int("repeat_ms") {
		return &fencemethods.ParamError{Key: "reach_ms", Text: "expected at least 3 times repeat_ms"}
	}
	return nil
}

// A device asks about one node.
type device struct {
	socket  *socket
	key     fencemethods.Secret
	seal    *message.Seal
	talks   []*talk
	require int
	repeat  time.Duration
	reach   time.Duration

	tag    message.Tag
	letter letter.Question // but for Silent, Taken and Reason, which are of the question under way
	out    [message.Size]byte
	text   []byte

	request   fencemethods.Request // of the question under way
	requested bool
	question  uint64 // names it, to all machines alike
	deadline  time.Time
	heard     time.Time // when a machine last answered; at first, when it began
	garbage   bool      // something came that is no message
}

// New makes the socket, and reads the key. It sends nothing.
func New(target fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	key, err := remote.ReadKey(v["key_file"])
	if err != nil {
		return nil, err
	}
	var addrs []netip.AddrPort
	for _, s := range strings.Split(v["addrs"], ",") {
		addrs = append(addrs, netip.AddrPortFrom(netip.MustParseAddr(s).Unmap(), uint16(v.Int("port"))))
	}
	s, to, err := openSocket(addrs)
	if err != nil {
		key.Wipe()
		return nil, err
	}
	d := &device{
		socket: s, key: key, seal: message.NewSeal(key), require: v.Int("require"), tag: message.TagOf(target),
		repeat: time.Duration(v.Int("repeat_ms")) * time.Millisecond,
		reach:  time.Duration(v.Int("reach_ms")) * time.Millisecond,
		letter: letter.Question{Target: target, Asker: host},
		text:   make([]byte, 0, letter.Room),
	}
	for i := range to {
		d.talks = append(d.talks, &talk{d: d, to: to[i], addr: addrs[i].Addr().String()})
	}
	return d, nil
}

// Off asks until it is answered. Each question is another one, with nonces of its own.
func (d *device) Off(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	d.begin(ctx, message.Off, deadline)
	for {
		now := time.Now()
		d.work(now)
		done, err := d.verdict(ctx, now)
		if done {
			return err
		}
		time.Sleep(min(nap, d.deadline.Sub(now)))
	}
}

// begin starts a question to all machines.
func (d *device) begin(ctx context.Context, op message.Op, deadline time.Time) {
	for d.socket.next() != nil {
		continue // of an earlier question
	}
	d.request, d.requested = fencemethods.RequestOf(ctx)
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the program instead
	d.question = binary.BigEndian.Uint64(id[:])
	d.deadline, d.heard, d.garbage = deadline, time.Now(), false
	for _, t := range d.talks {
		t.begin(op)
	}
}

// work sends what is due, and hears what has come.
func (d *device) work(now time.Time) {
	for _, t := range d.talks {
		t.tick(now)
	}
	for p := d.socket.next(); p != nil; p = d.socket.next() {
		m, ok := message.Decode(p)
		if !ok {
			d.garbage = true
			continue
		}
		for _, t := range d.talks {
			if m.Client == t.question.Client { // else it is late, or somebody plays it again
				t.hear(&m, p, now)
			}
		}
	}
}

// verdict is the one place that says that a node is fenced.
func (d *device) verdict(ctx context.Context, now time.Time) (done bool, err error) {
	confirmed := 0
	for _, t := range d.talks {
		switch {
		case t.answer == no:
			d.end(t, "declined by "+t.word)
			return true, &failure{Kind: fencemethods.ErrRefused, Detail: "declined by " + t.word, Advice: adviceDeclined}
		case t.answer == yes && !d.counted(t):
			confirmed++
		}
	}
	switch {
	case confirmed >= d.require:
		d.vouch(ctx)
		return true, nil
	case errors.Is(ctx.Err(), context.Canceled):
		d.end(nil, "no answer is needed any more: the node is back, or fenced otherwise")
		return true, ctx.Err()
	case !now.Before(d.deadline):
		err = d.why(confirmed)
		d.end(nil, "nobody has confirmed in time, and the cluster goes on to its next method")
		return true, err
	case now.Sub(d.heard) > d.reach:
		err = d.why(confirmed)
		d.end(nil, "the cluster does not hear the administrators, and goes on to its next method")
		return true, err
	}
	return false, nil
}

// counted tells whether the word given on a talk's machine counts already, by another address of it.
func (d *device) counted(t *talk) bool {
	for _, other := range d.talks {
		if other == t {
			return false
		}
		if other.answer == yes && t.process != 0 && other.process == t.process {
			return true
		}
	}
	return false
}

// vouch notes whose word it is, and tells all others that it is settled.
func (d *device) vouch(ctx context.Context) {
	how := "the node counts as fenced:"
	for _, t := range d.talks {
		if t.answer == yes && !d.counted(t) {
			fencemethods.Vouch(ctx, t.word)
			how += " confirmed by " + t.word + ";"
		}
	}
	d.end(nil, strings.TrimSuffix(how, ";"))
}

// end tells all machines how the question has ended, and those whose answer has counted (by, and those
// that have confirmed) that it has. It is not answered; said three times, it is lost less often.
func (d *device) end(by *talk, how string) {
	for range 3 {
		for _, t := range d.talks {
			t.cancel(t == by || t.answer == yes, how)
		}
	}
}

// On is nothing that an administrator is asked for.
func (d *device) On(context.Context) error { return failNoWay }

// Status is Unknown: nobody has looked.
func (d *device) Status(context.Context) (fencemethods.State, error) {
	return fencemethods.Unknown, nil
}

// Check asks every machine whether it listens and has the key. Nobody is shown a question.
func (d *device) Check(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	if limit := time.Now().Add(checkTime); limit.Before(deadline) {
		deadline = limit
	}
	d.begin(ctx, message.Check, deadline)
	for {
		now := time.Now()
		d.work(now)
		missing := slices.IndexFunc(d.talks, func(t *talk) bool { return t.answer != yes })
		switch {
		case missing < 0:
			return nil
		case errors.Is(ctx.Err(), context.Canceled):
			return ctx.Err()
		case !now.Before(d.deadline):
			e := *d.talks[missing].why()
			e.Detail = d.talks[missing].addr + ": " + e.Detail
			return &e
		}
		time.Sleep(min(nap, d.deadline.Sub(now)))
	}
}

// Close closes the socket, and wipes the key. What the hash made of it goes with the garbage.
func (d *device) Close() error {
	d.key.Wipe()
	return d.socket.close()
}
