// SPDX-License-Identifier: GPL-2.0-only

package ask

import (
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ask/desk"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
	"github.com/o2fence/o2fence/test/bmc/wire"
)

// A liar speaks the protocol, and confirms each question with an answer that lie has changed.
type liar struct {
	conn *net.UDPConn
	key  string
	lie  func(*message.Message)
}

func startLiar(t *testing.T, key string, lie func(*message.Message)) *liar {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{conn: conn, key: key, lie: lie}
	var running sync.WaitGroup
	running.Go(l.serve)
	t.Cleanup(func() { conn.Close(); running.Wait() })
	return l
}

func (l *liar) port() int { return l.conn.LocalAddr().(*net.UDPAddr).Port }

func (l *liar) serve() {
	var in [message.Size]byte
	challenge := message.NewSeal(fencemethods.Secret(testKey)) // genuine up to the answer itself
	answer := message.NewSeal(fencemethods.Secret(l.key))
	for {
		_, from, err := l.conn.ReadFromUDPAddrPort(in[:])
		if err != nil {
			return
		}
		m, ok := message.Decode(in[:])
		if !ok || m.Kind == message.Cancel {
			continue
		}
		seal := answer
		switch m.Kind {
		case message.Hello:
			m.Kind, m.Next, seal = message.Challenge, message.Nonce{1}, challenge
		default:
			m.Kind, m.State = message.Done, fencemethods.Off
			message.SetText(&m, "ann@admin: I am sure")
		}
		if m.Kind == message.Done {
			l.lie(&m)
		}
		var out [message.Size]byte
		m.Encode(&out)
		seal.Close(&out)
		_, _ = l.conn.WriteToUDPAddrPort(out[:], from)
	}
}

func TestAnAnswerToAnythingElseNeverCounts(t *testing.T) {
	t.Parallel()
	request := fencemethods.Request{Number: 7, Incarnation: 0xabc, Attempt: 1}
	var all sync.WaitGroup
	for name, c := range map[string]struct {
		key  string
		lie  func(*message.Message)
		want error // nil: it counts
	}{
		"the very question":   {testKey, func(*message.Message) {}, nil},
		"another question":    {testKey, func(m *message.Message) { m.Client[0]++ }, fencemethods.ErrTimeout},
		"another challenge":   {testKey, func(m *message.Message) { m.Server[0]++ }, fencemethods.ErrTimeout},
		"another request":     {testKey, func(m *message.Message) { m.Number-- }, fencemethods.ErrTimeout},
		"another incarnation": {testKey, func(m *message.Message) { m.Incarnation++ }, fencemethods.ErrTimeout},
		"another attempt":     {testKey, func(m *message.Message) { m.Attempt++ }, fencemethods.ErrTimeout},
		"no request":          {testKey, func(m *message.Message) { m.Requested = false }, fencemethods.ErrTimeout},
		"another node": {testKey, func(m *message.Message) {
			m.Node = message.TagOf(fencemethods.Target{Cluster: "web", Node: 3, Name: "web3"})
		}, fencemethods.ErrTimeout},
		"the same of another cluster": {testKey, func(m *message.Message) {
			m.Node = message.TagOf(fencemethods.Target{Cluster: "db", Node: 2, Name: "web2"})
		}, fencemethods.ErrTimeout},
		"another operation":     {testKey, func(m *message.Message) { m.Op = message.Check }, fencemethods.ErrTimeout},
		"success that is on":    {testKey, func(m *message.Message) { m.State = fencemethods.On }, fencemethods.ErrTimeout},
		"success that is open":  {testKey, func(m *message.Message) { m.State = fencemethods.Unknown }, fencemethods.ErrTimeout},
		"a failure that is off": {testKey, func(m *message.Message) { m.Failure = 3 }, fencemethods.ErrRefused},
		"another key":           {otherKey, func(*message.Message) {}, fencemethods.ErrTimeout},
		"no seal, as if from a machine that cannot verify": {testKey, func(m *message.Message) { m.Kind = message.Unverified }, fencemethods.ErrTimeout},
	} {
		d := open(t, params(t, startLiar(t, c.key, c.lie).port()), nil)
		all.Go(func() { // for each takes all of its time
			err := d.Off(fencemethods.WithRequest(within(t, short), request))
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), testKey) {
				t.Errorf("%s: gives the key away", name)
			}
		})
	}
	all.Wait()
}

// That a machine cannot verify a question is not sealed, so whoever has seen the question can say it.
func TestAForgedRefusalDoesNotEndAQuestion(t *testing.T) {
	t.Parallel()
	a := startAdmin(t, "127.0.0.1:0", says(true, "ann", "I am sure"))
	w, err := wire.New(a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var lost atomic.Int64
	w.SetFault(func(p wire.Packet) {
		if !p.Answer || lost.Add(1) > 5 {
			p.Pass()
			return
		}
		m, _ := message.Decode(p.Data)
		m.Kind = message.Unverified
		var forged [message.Size]byte
		m.Encode(&forged)
		p.Deliver(forged[:])
	})
	if err := open(t, params(t, int(w.Addr().Port())), nil).Off(within(t, patience)); err != nil {
		t.Error(err)
	}
}

// A confirmation that was recorded is offered for the next question, before anybody has answered that.
func TestOldAnswersDoNotCount(t *testing.T) {
	t.Parallel()
	a := startAdmin(t, "127.0.0.1:0", nil)
	w, err := wire.New(a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var tape wire.Tape
	w.SetFault(tape.Record)
	d := open(t, params(t, int(w.Addr().Port())), nil)
	ended := make(chan error, 1)
	go func() { ended <- d.Off(within(t, patience)) }()
	r := a.await("the question", isState(desk.Open))
	if _, err := a.Answer(r.Request, "web2", true, "ann", "I am sure"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for by, fault := range map[string]wire.Fault{"by the wire": tape.Play, "by a stranger": tape.Forge} {
		w.SetFault(fault)
		if err := d.Off(within(t, short)); !errors.Is(err, fencemethods.ErrTimeout) {
			t.Errorf("%s: %v, want %v", by, err, fencemethods.ErrTimeout)
		}
	}
}

// What an earlier fence has asked is recorded, and asked again of the machine, with the right seal.
func TestAnOldQuestionIsNotShown(t *testing.T) {
	t.Parallel()
	a := startAdmin(t, "127.0.0.1:0", says(false, "ann", "no"))
	w, err := wire.New(a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var mu sync.Mutex
	var questions [][]byte
	w.SetFault(func(p wire.Packet) {
		if !p.Answer {
			mu.Lock()
			questions = append(questions, append([]byte{}, p.Data...))
			mu.Unlock()
		}
		p.Pass()
	})
	d := open(t, params(t, int(w.Addr().Port())), nil)
	if err := d.Off(within(t, patience)); !errors.Is(err, fencemethods.ErrRefused) {
		t.Fatal(err)
	}
	if err := a.restart(); err != nil { // which has forgotten all
		t.Fatal(err)
	}
	conn, err := net.Dial("udp4", a.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	mu.Lock()
	for _, q := range questions {
		_, _ = conn.Write(q)
	}
	mu.Unlock()
	check := open(t, params(t, a.port()), nil) // is heard after them
	if err := check.Check(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if all := a.Records(); len(all) != 0 {
		t.Errorf("shown: %+v", all)
	}
}
