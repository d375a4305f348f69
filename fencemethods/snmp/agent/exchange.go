// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/gosnmp/gosnmp"
)

// A question is a message that waits for its answer.
type question struct {
	id        uint32 // both the message's and the request's
	kind      gosnmp.PDUType
	vars      []gosnmp.SnmpPDU
	packet    []byte
	level     gosnmp.SnmpV3MsgFlags // that an answer has to have, with version 3
	discovery bool                  // of an engine: anything it reports is an answer
}

// exchange asks and returns the answer. An engine whose clock is another than we thought is asked
// once more, and one that says nothing, whether it can read what we write.
func (a *Agent) exchange(ctx context.Context, kind gosnmp.PDUType, vars []gosnmp.SnmpPDU) (*gosnmp.SnmpPacket, *Failure) {
	answer, f := a.put(ctx, kind, vars, gosnmp.AuthPriv)
	if f == failLost && a.usm != nil && !a.usm.understood && a.hears(ctx) {
		return nil, failDecryption
	}
	if f == failClock && answer != nil {
		theirs := answer.SecurityParameters.(*gosnmp.UsmSecurityParameters)
		a.usm.meet(theirs.AuthoritativeEngineID, theirs.AuthoritativeEngineBoots, theirs.AuthoritativeEngineTime)
		answer, f = a.put(ctx, kind, vars, gosnmp.AuthPriv)
	}
	return answer, f
}

// hears reports whether the engine answers a question that is signed and not encrypted. What is
// encrypted with another key is rubbish to it, and some, net-snmp's for one, say nothing to that.
func (a *Agent) hears(ctx context.Context) bool {
	answer, _ := a.put(ctx, gosnmp.GetRequest, []gosnmp.SnmpPDU{{Name: sysObjectID, Type: gosnmp.Null}}, gosnmp.AuthNoPriv)
	return answer != nil
}

func (a *Agent) put(ctx context.Context, kind gosnmp.PDUType, vars []gosnmp.SnmpPDU, level gosnmp.SnmpV3MsgFlags) (*gosnmp.SnmpPacket, *Failure) {
	q := question{id: random(), kind: kind, vars: vars, level: level}
	if a.usm != nil {
		a.usm.tick()
	}
	m := a.snmp.MkSnmpPacket(kind, vars, 0, bulk)
	m.RequestID, m.MsgID = q.id, q.id
	if a.usm != nil {
		m.MsgFlags = level | gosnmp.Reportable
		if err := a.usm.params.InitPacket(m); err != nil {
			return nil, failOwn
		}
	}
	var err error
	if q.packet, err = m.MarshalMsg(); err != nil {
		return nil, failOwn
	}
	return a.ask(ctx, q)
}

// ask sends a question, again and again, and waits for its answer; whatever is not that is dropped.
func (a *Agent) ask(ctx context.Context, q question) (*gosnmp.SnmpPacket, *Failure) {
	wait := a.retry
	for range tries {
		a.link.Send(q.packet)
		until := earliest(time.Now().Add(wait), a.deadline)
		for p := a.link.Receive(until); p != nil; p = a.link.Receive(until) {
			if answer, f := a.answer(p, q); answer != nil || f != nil {
				a.heard = true
				return answer, f
			}
			a.ignored++
		}
		if a.over(ctx) {
			break
		}
		wait = min(2*wait, slowest*a.retry)
	}
	if a.heard {
		return nil, failLost
	}
	return nil, failSilent
}

// over reports whether the operation's time is up, or its answer no longer wanted.
func (a *Agent) over(ctx context.Context) bool {
	return ctx.Err() != nil || !time.Now().Before(a.deadline)
}

// answer takes from p what answers q: the answer, or what the device has to say instead, or neither
// when p is not about q at all.
func (a *Agent) answer(p []byte, q question) (*gosnmp.SnmpPacket, *Failure) {
	// First the version and the number, without allocating anything, so that a flood of other
	// packets costs nothing.
	if id, ok := number(p, byte(a.snmp.Version)); !ok || id != q.id {
		return nil, nil
	}
	if q.discovery {
		return a.discovery(p), nil
	}
	m, err := decode(&a.snmp, append(a.scratch[:0], p...))
	switch {
	case err != nil && a.usm != nil:
		return nil, a.report(p)
	case err != nil:
		return nil, nil
	case a.usm != nil && !a.signed(m, q):
		return nil, nil
	case a.usm != nil && m.PDUType == gosnmp.Report:
		return m, reportFailure(m.Variables)
	case m.PDUType != gosnmp.GetResponse || m.RequestID != q.id:
		return nil, nil
	case m.Error == gosnmp.NoError && !answers(m.Variables, q):
		return nil, nil
	}
	if a.usm != nil && q.level == gosnmp.AuthPriv {
		a.usm.understood = true
	}
	return m, nil
}

// answers reports whether these are the objects that were asked for. Who asks for those that follow
// has to look at the names.
func answers(vars []gosnmp.SnmpPDU, q question) bool {
	switch q.kind {
	case gosnmp.GetBulkRequest:
		return len(vars) > 0
	case gosnmp.GetNextRequest:
		return len(vars) == len(q.vars)
	}
	return slices.EqualFunc(vars, q.vars, func(theirs, ours gosnmp.SnmpPDU) bool { return theirs.Name == ours.Name })
}

// signed looks at what gosnmp does not: that the message is of the security model whose signature
// it has checked, as secret as the question, and of the engine that was asked. The keys that gosnmp
// has used for another engine are not those of the user.
func (a *Agent) signed(m *gosnmp.SnmpPacket, q question) bool {
	level := q.level
	if m.PDUType == gosnmp.Report { // which holds no secret
		level = gosnmp.AuthNoPriv
	}
	theirs, ok := m.SecurityParameters.(*gosnmp.UsmSecurityParameters)
	return ok && m.SecurityModel == gosnmp.UserSecurityModel && m.MsgFlags&level == level && theirs.AuthoritativeEngineID == a.usm.params.AuthoritativeEngineID
}

// discovery decodes what an engine says of itself.
func (a *Agent) discovery(p []byte) *gosnmp.SnmpPacket {
	m := a.unsigned(p)
	if m == nil {
		return nil
	}
	theirs, ok := m.SecurityParameters.(*gosnmp.UsmSecurityParameters)
	// RFC 3411, section 5: an engine's name has 5 to 32 bytes.
	if !ok || len(theirs.AuthoritativeEngineID) < 5 || len(theirs.AuthoritativeEngineID) > 32 {
		return nil
	}
	return m
}

// report takes an engine's word, unsigned, that it cannot answer. Such a word ends in an error,
// never in a success, so it may be believed.
func (a *Agent) report(p []byte) *Failure {
	m := a.unsigned(p)
	if m == nil {
		return nil
	}
	return reportFailure(m.Variables)
}

func (a *Agent) unsigned(p []byte) *gosnmp.SnmpPacket {
	m, err := decode(&a.usm.plain, append(a.scratch[:0], p...))
	if err != nil || m.PDUType != gosnmp.Report || m.MsgFlags&gosnmp.AuthPriv != 0 {
		return nil
	}
	return m
}

var errDecoder = errors.New("decoder failed")

// decode decodes a message and, with version 3, checks its signature and decrypts it, in place. Of
// gosnmp's decoders only the one for traps does all that outside of its own exchange; it takes
// every kind of message.
func decode(g *gosnmp.GoSNMP, p []byte) (m *gosnmp.SnmpPacket, err error) {
	// Gosnmp recovers from panics of its decoder in its own exchange, so there may be some.
	defer func() {
		if recover() != nil {
			m, err = nil, errDecoder
		}
	}()
	return g.UnmarshalTrap(p, false)
}

// random returns a number for a question: 31 bits that nobody can know beforehand, and not 0
// (RFC 3412, section 6.2; RFC 3416, section 4.1).
func random() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	return binary.BigEndian.Uint32(b[:])>>1 | 1
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
