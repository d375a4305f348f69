// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import (
	"context"
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
)

const (
	netFnApp = 0x06

	cmdSetPrivilege = 0x3b // Set Session Privilege Level (22.18)
	cmdCloseSession = 0x3c // Close Session (22.19)

	// nameOnly makes the BMC look the user up by name, whatever rights it has (13.20, byte 25).
	nameOnly = 0x10

	statusBadCode = 0x0f // invalid integrity check value (table 13-15)
)

// open sets a session up and raises it to the privilege that is needed: it begins with that of an
// ordinary user (22.18).
func (s *session) open(ctx context.Context) *failure {
	s.begin()
	for _, step := range [...]func(*session, context.Context) *failure{
		(*session).propose, (*session).authenticate, (*session).confirm, (*session).raise,
	} {
		if f := step(s, ctx); f != nil {
			return f
		}
	}
	return nil
}

func (s *session) begin() {
	s.sequence, s.received, s.bmc = 0, 0, 0
	randomize(s.consoleRandom[:])
	randomize(s.code[:4])
	s.console = binary.LittleEndian.Uint32(s.code[:]) | 1 // 0 is "no session"
}

func (s *session) nextTag() byte {
	s.tag++
	return s.tag
}

// propose is the Open Session pair of messages.
func (s *session) propose(ctx context.Context) *failure {
	privilege := s.who[0] &^ nameOnly
	answer, f := s.exchange(ctx, request{
		payload: payloadOpenRequest,
		body:    appendOpenRequest(s.body[:0], s.nextTag(), privilege, s.console, s.suite),
		silence: failSilent,
	})
	if f != nil {
		return f
	}
	r, ok := decodeOpenResponse(answer)
	switch {
	case !ok:
		return failGarbage
	case r.status != 0:
		return setUpFailure(r.status)
	case !r.agrees(s.suite):
		return failOtherSuite
	}
	s.bmc = r.bmc
	return nil
}

// authenticate is RAKP Messages 1 and 2: it is here that a wrong password shows.
func (s *session) authenticate(ctx context.Context) *failure {
	answer, f := s.exchange(ctx, request{
		payload: payloadRAKP1,
		body:    appendRAKP1(s.body[:0], s.nextTag(), s.bmc, s.consoleRandom[:], s.who),
		silence: failNoName,
	})
	if f != nil {
		return f
	}
	r, ok := decodeRAKP2(answer, s.suite.hashLen)
	switch {
	case !ok:
		return failGarbage
	case r.status != 0:
		return setUpFailure(r.status)
	}
	s.bmcRandom, s.guid = r.random, r.guid
	if subtle.ConstantTimeCompare(s.code2(), r.code) != 1 {
		s.abandon()
		return failPassword
	}
	return nil
}

// abandon tells the BMC that its proof was wrong, so that it forgets the session now (13.22).
func (s *session) abandon() {
	s.link.Send(s.encode(request{
		payload: payloadRAKP3,
		body:    appendRAKP3(s.body[:0], s.nextTag(), statusBadCode, s.bmc, nil),
	}))
}

// confirm is RAKP Messages 3 and 4; after them both sides have the keys.
func (s *session) confirm(ctx context.Context) *failure {
	answer, f := s.exchange(ctx, request{
		payload: payloadRAKP3,
		body:    appendRAKP3(s.body[:0], s.nextTag(), 0, s.bmc, s.code3()),
		silence: failLost,
	})
	if f != nil {
		return f
	}
	s.derive()
	r, ok := decodeRAKP4(answer, s.suite.codeLen)
	switch {
	case !ok:
		return failGarbage
	case r.status != 0:
		return setUpFailure(r.status)
	case subtle.ConstantTimeCompare(s.code4(), r.code) != 1:
		return failKG
	}
	return nil
}

// raise asks for the privilege level that power control needs.
func (s *session) raise(ctx context.Context) *failure {
	privilege := s.who[0] &^ nameOnly
	answer, f := s.command(ctx, netFnApp, cmdSetPrivilege, privilege)
	switch {
	case f == nil && len(answer) > 0 && answer[0]&0x0f == privilege:
		return nil
	case f != nil && f.Code&0xf0 != 0x80: // 0x80 to 0x82 are this command's own refusals
		return f
	default:
		return failPrivilege
	}
}

// close ends the session, if there is one, without waiting for the answer: the fence is decided
// already, and a BMC that misses this closes the session by itself within a minute.
func (s *session) close() {
	if s.aes == nil {
		return
	}
	s.seq = (s.seq + 1) & 0x3f
	s.link.Send(s.encode(request{
		netFn: netFnApp, cmd: cmdCloseSession,
		body: binary.LittleEndian.AppendUint32(s.body[:0], s.bmc),
	}))
	s.forget()
}

// forget wipes the session's keys.
func (s *session) forget() {
	clear(s.sik[:])
	clear(s.k1[:])
	s.aes = nil
}

// code2 is the proof that RAKP Message 2 must carry (13.31).
func (s *session) code2() []byte {
	b := binary.LittleEndian.AppendUint32(s.plain[:0], s.console)
	b = binary.LittleEndian.AppendUint32(b, s.bmc)
	b = append(b, s.consoleRandom[:]...)
	b = append(b, s.bmcRandom[:]...)
	b = append(b, s.guid[:]...)
	b = append(b, s.who...)
	return s.suite.mac.sum(s.code[:0], s.password, b)
}

// code3 is the proof that RAKP Message 3 carries (13.31).
func (s *session) code3() []byte {
	b := append(s.plain[:0], s.bmcRandom[:]...)
	b = binary.LittleEndian.AppendUint32(b, s.console)
	b = append(b, s.who...)
	return s.suite.mac.sum(s.code[:0], s.password, b)
}

// code4 is the proof that RAKP Message 4 must carry (13.31), truncated like a packet's code.
func (s *session) code4() []byte {
	b := append(s.plain[:0], s.consoleRandom[:]...)
	b = binary.LittleEndian.AppendUint32(b, s.bmc)
	b = append(b, s.guid[:]...)
	sik := s.sik[:s.suite.hashLen]
	return s.suite.mac.sum(s.code[:0], sik, b)[:s.suite.codeLen]
}

// derive makes the session integrity key (13.31) and from it K1, which signs packets, and K2, which
// encrypts them (13.32). The key of the BMC, K_G, is taken to be unset: the password stands for it.
func (s *session) derive() {
	b := append(s.plain[:0], s.consoleRandom[:]...)
	b = append(b, s.bmcRandom[:]...)
	b = append(b, s.who...)
	m, n := s.suite.mac, s.suite.hashLen
	m.sum(s.sik[:0], s.password, b)
	m.sum(s.k1[:0], s.sik[:n], constant(s.plain[:20], 1))
	k2 := m.sum(s.code[:0], s.sik[:n], constant(s.plain[:20], 2))
	s.aes, _ = aes.NewCipher(k2[:blockLen]) // fails for other key lengths only
	clear(k2)
}

// constant fills b with Const_1 or Const_2 (13.32).
func constant(b []byte, c byte) []byte {
	for i := range b {
		b[i] = c
	}
	return b
}
