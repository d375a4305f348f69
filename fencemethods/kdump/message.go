// SPDX-License-Identifier: GPL-2.0-only

package kdump

import (
	"crypto/hmac"
	"encoding/binary"
	"hash"
)

// The plain message of fence_kdump: a magic number and a version, 32 bits each, in the byte order
// of the node that crashed (message.h of fence-agents 4.12.1).
const (
	plainMagic   = 0x1b302a40
	plainVersion = 1
	plainLen     = 8
)

// isPlain tells whether p is fence_kdump's message, from a node of either byte order.
func isPlain(p []byte) bool {
	if len(p) != plainLen {
		return false
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if order.Uint32(p) == plainMagic && order.Uint32(p[4:]) == plainVersion {
			return true
		}
	}
	return false
}

// Sealed messages all have the same layout:
//
//	 0  "o2kd"
//	 4  version, 1
//	 5  kind
//	 6  two bytes of 0
//	 8  nonce of the sender in the kdump kernel
//	24  nonce of the listener
//	40  HMAC-SHA256 of the 40 bytes before it, the cluster's name, a 0 and the node's number
//
// The kdump kernel says hello, again and again, until it is challenged; the listener's nonce in
// hello is 0. The listener challenges with a nonce that it makes for each fence. The proof repeats
// it. So an old proof is none, whatever the clocks say, and no answer is longer than its question.
const (
	sealedMagic   = "o2kd"
	sealedVersion = 1
	sealedLen     = macAt + 32
	senderAt      = 8
	listenerAt    = senderAt + nonceLen
	macAt         = listenerAt + nonceLen
	nonceLen      = 16
)

type kind byte

const (
	kindHello     kind = 1
	kindChallenge kind = 2
	kindProof     kind = 3
	// Check asks this machine's own listener, whichever process has it, without a seal. Instead of
	// the listener's nonce it has the node's name tag, see tagOf.
	kindProbe  kind = 4
	kindServed kind = 5
)

type nonce [nonceLen]byte

// A message is a sealed one, taken apart.
type message struct {
	kind             kind
	sender, listener nonce
}

// decode takes a message apart; whether it is genuine only its seal tells.
func decode(p []byte) (m message, ok bool) {
	if len(p) != sealedLen || string(p[:4]) != sealedMagic || p[4] != sealedVersion || p[6] != 0 || p[7] != 0 {
		return message{}, false
	}
	m.kind = kind(p[5])
	copy(m.sender[:], p[senderAt:])
	copy(m.listener[:], p[listenerAt:])
	return m, kindHello <= m.kind && m.kind <= kindServed
}

// encode writes all but the seal.
func (m message) encode(p *[sealedLen]byte) {
	*p = [sealedLen]byte{4: sealedVersion, 5: byte(m.kind)}
	copy(p[:], sealedMagic)
	copy(p[senderAt:], m.sender[:])
	copy(p[listenerAt:], m.listener[:])
}

// A seal makes and checks codes for one node.
type seal struct {
	mac  hash.Hash
	node []byte // whom it is about
	code [32]byte
}

// of returns the code of a message, valid until the next call.
func (s *seal) of(p []byte) []byte {
	s.mac.Reset()
	s.mac.Write(p[:macAt])
	s.mac.Write(s.node)
	return s.mac.Sum(s.code[:0])
}

// genuine tells whether a message that decode has taken was sealed with the key, for this node.
func (s *seal) genuine(p []byte) bool { return hmac.Equal(s.of(p), p[macAt:sealedLen]) }
