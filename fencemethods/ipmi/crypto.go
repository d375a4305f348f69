// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import (
	"crypto/cipher"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
)

// A suite is one of the cipher suites (table 22-20) that this package accepts. Both authenticate
// and encrypt; suite 0, and whatever else leaves one out, is not here and so cannot be agreed upon.
type suite struct {
	id              int
	authentication  byte // RAKP algorithm (13.28)
	integrity       byte // 13.28.4
	confidentiality byte // 13.28.5
	hashLen         int  // of a full authentication code
	codeLen         int  // of the truncated one that packets and RAKP Message 4 carry
	mac             *mac
}

// Each device has its own suites, because a mac is used by one goroutine at a time.
func suite17() *suite {
	return &suite{17, 0x03, 0x04, 0x01, sha256.Size, 16, newMAC(sha256.New())}
}

func suite3() *suite {
	return &suite{3, 0x01, 0x01, 0x01, sha1.Size, 12, newMAC(sha1.New())}
}

// A mac computes HMACs (RFC 2104) one after another without allocating, each with another key:
// crypto/hmac makes new state per key, and every session has new keys.
type mac struct {
	hash  hash.Hash
	key   [sha256.BlockSize]byte // both hashes have blocks of this size
	inner [sha256.Size]byte
}

func newMAC(h hash.Hash) *mac { return &mac{hash: h} }

// sum appends the HMAC of data to b. Keys are at most a block long here.
func (m *mac) sum(b, key, data []byte) []byte {
	m.start(key, 0x36)
	m.hash.Write(data)
	inner := m.hash.Sum(m.inner[:0])
	m.start(key, 0x5c)
	m.hash.Write(inner)
	clear(m.key[:])
	return m.hash.Sum(b)
}

// start feeds the hash with the padded key.
func (m *mac) start(key []byte, pad byte) {
	clear(m.key[copy(m.key[:], key):])
	for i := range m.key {
		m.key[i] ^= pad
	}
	m.hash.Reset()
	m.hash.Write(m.key[:])
}

const blockLen = 16 // AES; also its initialization vector

// encrypt and decrypt are AES-CBC (13.29) in place, for whole blocks. They are here because the
// standard library's take a new object, and so an allocation, per initialization vector.
func encrypt(aes cipher.Block, iv, p []byte) {
	for last := iv; len(p) > 0; p = p[blockLen:] {
		subtle.XORBytes(p, p[:blockLen], last)
		aes.Encrypt(p, p)
		last = p[:blockLen]
	}
}

func decrypt(aes cipher.Block, iv, p []byte) {
	for len(p) > blockLen {
		// From the end, so that the block before is still the cipher text.
		end := len(p) - blockLen
		aes.Decrypt(p[end:], p[end:])
		subtle.XORBytes(p[end:], p[end:], p[end-blockLen:end])
		p = p[:end]
	}
	if len(p) == blockLen {
		aes.Decrypt(p, p)
		subtle.XORBytes(p, p, iv)
	}
}
