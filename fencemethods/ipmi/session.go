// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/link"
)

const (
	// tries is how often a command is sent before the session counts as lost.
	tries = 4
	// slowest is how many times longer than the first the waits for answers get.
	slowest = 4

	nextHeader = 0x07 // of the session trailer, always this (13.6)
)

// A session is one RMCP+ session at a time, and the buffers that all of them share.
type session struct {
	link     *link.Link
	password fencemethods.Secret
	who      []byte        // role, length of the name, name: as they are in all RAKP messages (13.20)
	retry    time.Duration // how long the first wait for an answer is

	wait     time.Duration // for the next set-up message's answer
	suite    *suite
	deadline time.Time
	state    fencemethods.State // as last read, unless a command has gone out since
	heard    bool               // a packet of this protocol, meant for us, came since the operation began
	ignored  uint64             // packets that were stale, foreign, damaged or of another protocol

	tag      byte // of set-up messages
	seq      byte // of commands
	sequence uint32
	received uint32 // highest sequence number of an accepted packet
	console  uint32 // our session ID
	bmc      uint32 // the BMC's

	consoleRandom, bmcRandom, guid [16]byte

	sik, k1 [32]byte
	aes     cipher.Block

	body  [64]byte // what is asked, or what is hashed
	code  [32]byte
	plain [maxPacket]byte
	out   [maxPacket]byte
}

// A request is one question: a set-up message, or, with payload 0, a command.
type request struct {
	payload byte
	body    []byte // the set-up message, or the command's data
	netFn   byte
	cmd     byte
	silence *failure // what it means when no answer comes
}

// exchange asks once or more and returns the answer, which is valid until the next call: a set-up
// message's payload, or a response's data that begins with the completion code. It drops whatever
// is not the answer to this very question.
func (s *session) exchange(ctx context.Context, r request) ([]byte, *failure) {
	if r.payload != payloadIPMI {
		// Set-up messages are sent once. Servers (go-ipmi's, pyghmi's) answer a second one with a
		// new random number, and then refuse who has gone on with the first: it is begun anew.
		if answer, ok := s.ask(r, s.wait); ok {
			return answer, nil
		}
		return nil, r.silence
	}
	wait := s.retry
	for range tries {
		if answer, ok := s.ask(r, wait); ok {
			return answer, nil
		}
		if s.over(ctx) {
			break
		}
		wait = s.longer(wait)
	}
	return nil, r.silence
}

// ask sends a question and waits for its answer.
func (s *session) ask(r request, wait time.Duration) ([]byte, bool) {
	s.link.Send(s.encode(r))
	until := earliest(time.Now().Add(wait), s.deadline)
	for p := s.link.Receive(until); p != nil; p = s.link.Receive(until) {
		if answer, ok := s.answer(p, r); ok {
			s.heard = true
			return answer, true
		}
		s.ignored++
	}
	return nil, false
}

func (s *session) longer(wait time.Duration) time.Duration {
	return min(2*wait, slowest*s.retry)
}

// over reports whether the operation's time is up, or its answer no longer wanted.
func (s *session) over(ctx context.Context) bool {
	return ctx.Err() != nil || !time.Now().Before(s.deadline)
}

func (s *session) encode(r request) []byte {
	if r.payload != payloadIPMI {
		b := appendHeader(s.out[:0], header{payload: r.payload}, len(r.body))
		return append(b, r.body...)
	}
	// A command that is sent again keeps its own number, but not the packet's (6.12.8).
	s.sequence++
	return s.seal(message{netFn: r.netFn, seq: s.seq, cmd: r.cmd, data: r.body})
}

// answer takes from p what answers r.
func (s *session) answer(p []byte, r request) ([]byte, bool) {
	h, payload, ok := decodePacket(p)
	if !ok {
		return nil, false
	}
	if r.payload == payloadIPMI {
		return s.response(p, h, payload, r)
	}
	// The answers' payload types follow those of the questions (13.27.3).
	if h.payload != r.payload+1 || h.session != 0 || len(payload) < 2 || payload[0] != s.tag {
		return nil, false
	}
	if len(payload) < 8 {
		return payload, payload[1] != 0 // a refusal; ipmi_sim's ends after the status
	}
	return payload, binary.LittleEndian.Uint32(payload[4:]) == s.console
}

func (s *session) response(p []byte, h header, payload []byte, r request) ([]byte, bool) {
	if h.payload != payloadIPMI|payloadAuthenticated|payloadEncrypted || h.session != s.console {
		return nil, false
	}
	// Only ever higher: questions are asked one at a time, so whatever is older is an old answer,
	// or a recorded one that somebody plays again (6.12.13).
	if h.sequence <= s.received || !s.genuine(p) {
		return nil, false
	}
	s.received = h.sequence
	m, ok := s.unseal(payload)
	if !ok || m.netFn != r.netFn|1 || m.cmd != r.cmd || m.seq != s.seq {
		return nil, false
	}
	return m.data, true
}

// seal encrypts a command and appends the session trailer (13.6, 13.28, 13.29).
func (s *session) seal(m message) []byte {
	plain := appendMessage(s.plain[:0], m)
	pad := (blockLen - (len(plain)+1)%blockLen) % blockLen
	for i := range pad {
		plain = append(plain, byte(i+1))
	}
	plain = append(plain, byte(pad))
	h := header{payloadIPMI | payloadAuthenticated | payloadEncrypted, s.bmc, s.sequence}
	b := appendHeader(s.out[:0], h, blockLen+len(plain))
	b = append(b, make([]byte, blockLen)...)
	iv := b[headerLen:]
	randomize(iv)
	b = append(b, plain...)
	encrypt(s.aes, iv, b[headerLen+blockLen:])
	return s.sign(b)
}

// sign pads the signed part, which begins after the RMCP header, to a multiple of 4 bytes and
// appends the authentication code.
func (s *session) sign(b []byte) []byte {
	pad := (4 - (len(b)-rmcpLen+2)%4) % 4
	for range pad {
		b = append(b, 0xff)
	}
	b = append(b, byte(pad), nextHeader)
	code := s.suite.mac.sum(s.code[:0], s.k1[:s.suite.hashLen], b[rmcpLen:])
	return append(b, code[:s.suite.codeLen]...)
}

// genuine reports whether the code at the packet's end is right for all that comes before it.
func (s *session) genuine(p []byte) bool {
	end := len(p) - s.suite.codeLen
	if end < headerLen+2 {
		return false
	}
	code := s.suite.mac.sum(s.code[:0], s.k1[:s.suite.hashLen], p[rmcpLen:end])
	return subtle.ConstantTimeCompare(code[:s.suite.codeLen], p[end:]) == 1
}

// unseal decrypts in place. Only genuine payloads get here, so a bad padding tells an attacker
// nothing.
func (s *session) unseal(payload []byte) (message, bool) {
	if len(payload) < 2*blockLen || len(payload)%blockLen != 0 {
		return message{}, false
	}
	iv, plain := payload[:blockLen], payload[blockLen:]
	decrypt(s.aes, iv, plain)
	end := len(plain) - 1 - int(plain[len(plain)-1])
	if end < 0 {
		return message{}, false
	}
	return decodeMessage(plain[:end])
}

// command sends a command in the open session and returns the response's data.
func (s *session) command(ctx context.Context, netFn, cmd byte, data ...byte) ([]byte, *failure) {
	s.seq = (s.seq + 1) & 0x3f
	answer, f := s.exchange(ctx, request{
		netFn: netFn, cmd: cmd, body: append(s.body[:0], data...), silence: failLost,
	})
	if f == nil && answer[0] != 0 {
		f = completionFailure(answer[0])
	}
	if f != nil {
		return nil, f
	}
	return answer[1:], nil
}

func randomize(p []byte) { _, _ = rand.Read(p) } // never fails: it ends the program instead

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
