// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"testing"
)

func TestMACIsTheStandardLibrarys(t *testing.T) {
	key, data := []byte("a key"), []byte("some data")
	std1, std256 := hmac.New(sha1.New, key), hmac.New(sha256.New, key)
	std1.Write(data)
	std256.Write(data)
	for range 2 { // the second time on used state
		if got, want := suite3().mac.sum(nil, key, data), std1.Sum(nil); !bytes.Equal(got, want) {
			t.Errorf("HMAC-SHA1 = %x, want %x", got, want)
		}
		if got, want := suite17().mac.sum(nil, key, data), std256.Sum(nil); !bytes.Equal(got, want) {
			t.Errorf("HMAC-SHA256 = %x, want %x", got, want)
		}
	}
}

func TestCBCIsTheStandardLibrarys(t *testing.T) {
	block, err := aes.NewCipher([]byte("sixteen byte key"))
	if err != nil {
		t.Fatal(err)
	}
	iv := []byte("sixteen byte iv.")
	for blocks := range 4 {
		plain := bytes.Repeat([]byte("block of 16 byte"), blocks)
		got, want := bytes.Clone(plain), bytes.Clone(plain)
		encrypt(block, iv, got)
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(want, want)
		if !bytes.Equal(got, want) {
			t.Errorf("%d blocks encrypt to %x, want %x", blocks, got, want)
		}
		if decrypt(block, iv, got); !bytes.Equal(got, plain) {
			t.Errorf("%d blocks decrypt to %x, want %x", blocks, got, plain)
		}
	}
}

// asked is a command whose response a test makes.
var asked = request{netFn: netFnChassis, cmd: cmdChassisStatus}

// openSession returns a session that is open, with keys that are known.
func openSession(s *suite) *session {
	block, _ := aes.NewCipher(make([]byte, blockLen))
	return &session{suite: s, console: 7, bmc: 7, seq: 5, aes: block}
}

// response is the packet that answers asked, from a BMC with the same keys.
func response(s *suite, sequence uint32) []byte {
	bmc := openSession(s)
	bmc.sequence = sequence
	return bytes.Clone(bmc.seal(message{
		netFn: asked.netFn | 1, seq: bmc.seq, cmd: asked.cmd, data: []byte{0, 0x01, 0, 0},
	}))
}

func TestAnAnswerIsAccepted(t *testing.T) {
	for _, s := range []*suite{suite17(), suite3()} {
		data, ok := openSession(s).answer(response(s, 1), asked)
		if want := []byte{0, 0x01, 0, 0}; !ok || !bytes.Equal(data, want) {
			t.Errorf("suite %d: %x, %v; want %x", s.id, data, ok, want)
		}
	}
}

func TestATamperedAnswerIsRefused(t *testing.T) {
	for _, s := range []*suite{suite17(), suite3()} {
		good := response(s, 1)
		for bit := range 8 * len(good) {
			p := bytes.Clone(good)
			p[bit/8] ^= 1 << (bit % 8)
			if _, ok := openSession(s).answer(p, asked); ok {
				t.Errorf("suite %d: accepted with bit %d of byte %d turned", s.id, bit%8, bit/8)
			}
		}
	}
}

func TestAnAnswerCountsOnce(t *testing.T) {
	s := openSession(suite17())
	for _, c := range []struct {
		sequence uint32
		want     bool
	}{{2, true}, {2, false}, {1, false}, {3, true}} {
		if _, ok := s.answer(response(suite17(), c.sequence), asked); ok != c.want {
			t.Errorf("sequence number %d accepted: %v, want %v", c.sequence, ok, c.want)
		}
	}
}

func TestAnAnswerToAnotherQuestionIsRefused(t *testing.T) {
	other := asked
	other.cmd = cmdChassisControl
	later := openSession(suite17())
	later.seq++
	if _, ok := openSession(suite17()).answer(response(suite17(), 1), other); ok {
		t.Error("the answer to another command was accepted")
	}
	if _, ok := later.answer(response(suite17(), 1), asked); ok {
		t.Error("the answer to an earlier command was accepted")
	}
}
