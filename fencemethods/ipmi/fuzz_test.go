// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import (
	"encoding/hex"
	"testing"
)

// seeds are packets that ipmi_sim, pyghmi and go-ipmi's server sent: Open Session Responses, one of
// them a refusal, RAKP Messages 2 and 4, and a response to a command.
func seeds(f *testing.F) [][]byte {
	var all [][]byte
	for _, s := range []string{
		"0600ff070611000000000000000002000104",
		"0600ff0706110000000000000000240001000300d7d6d0ae02000000000000080100000001000008010000000200000801000000",
		"0600ff07061300000000000000003c0002000000d7d6d0ae12fefebd0a4c89f0f785df61f9619393a123456789abcdefa123456789abcdef10665ffbaae7bf0c04635a383e80d9e2051d1730",
		"0600ff0706150000000000000000140003000000d7d6d0ae319e63a2c4ecea8db2928cb9",
		"0600ff0706c0d7d6d0ae010000002000a1b30227d941187b5693a986bc459b594b613e9a8013fe82449c363ace20c5c8ffff020791c803a10431cba41640eea7",
	} {
		p, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func FuzzDecodePacket(f *testing.F) {
	for _, p := range seeds(f) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		h, payload, ok := decodePacket(p)
		if !ok {
			return
		}
		again := append(appendHeader(nil, h, len(payload)), payload...)
		if string(again) != string(p[:len(again)]) {
			t.Errorf("%x decodes to what encodes as %x", p, again)
		}
	})
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte{0x81, 0x04, 0x7b, 0x20, 0x08, 0x01, 0x00, 0x01, 0x00, 0x00, 0xd6})
	f.Fuzz(func(t *testing.T, p []byte) {
		if m, ok := decodeMessage(p); ok && len(m.data) == 0 {
			t.Error("a response without a completion code")
		}
	})
}

// FuzzDecodeSetUp is about set-up payloads: none may be taken for longer than it is.
func FuzzDecodeSetUp(f *testing.F) {
	for _, p := range seeds(f) {
		f.Add(p[headerLen:])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if r, ok := decodeOpenResponse(p); ok && r.status == 0 && r.bmc == 0 {
			t.Error("a session without an ID")
		}
		for _, s := range []*suite{suite17(), suite3()} {
			if r, ok := decodeRAKP2(p, s.hashLen); ok && r.status == 0 && len(r.code) != s.hashLen {
				t.Errorf("RAKP Message 2 with a code of %d bytes", len(r.code))
			}
			if r, ok := decodeRAKP4(p, s.codeLen); ok && r.status == 0 && len(r.code) != s.codeLen {
				t.Errorf("RAKP Message 4 with a code of %d bytes", len(r.code))
			}
		}
	})
}

// FuzzAnswer looks for a packet that an open session takes without the key that signs it.
func FuzzAnswer(f *testing.F) {
	for _, p := range seeds(f) {
		f.Add(p)
	}
	signed := response(suite17(), 1)
	f.Add(signed[:len(signed)-1])
	f.Fuzz(func(t *testing.T, p []byte) {
		s := openSession(suite17())
		s.k1[0] = 1 // other than the one signed was signed with
		if _, ok := s.answer(p, asked); ok {
			t.Errorf("%x: accepted", p)
		}
	})
}
