// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import "encoding/binary"

// Session set-up (13.17 to 13.23) agrees on algorithms, proves to each side that the other knows
// the password, and makes the keys. The encoders and decoders here keep no state.

// An openResponse is what the BMC answers to Open Session (13.18).
type openResponse struct {
	status          byte
	bmc             uint32
	authentication  byte
	integrity       byte
	confidentiality byte
}

// appendOpenRequest appends an Open Session Request (13.17) that proposes one suite.
func appendOpenRequest(b []byte, tag, privilege byte, console uint32, s *suite) []byte {
	b = append(b, tag, privilege, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, console)
	b = append(b, 0, 0, 0, 8, s.authentication, 0, 0, 0)
	b = append(b, 1, 0, 0, 8, s.integrity, 0, 0, 0)
	return append(b, 2, 0, 0, 8, s.confidentiality, 0, 0, 0)
}

func decodeOpenResponse(p []byte) (r openResponse, ok bool) {
	if len(p) > 1 && p[1] != 0 {
		return openResponse{status: p[1]}, true // the rest may be missing
	}
	if len(p) < 36 || p[12] != 0 || p[20] != 1 || p[28] != 2 {
		return r, false
	}
	r.bmc = binary.LittleEndian.Uint32(p[8:])
	r.authentication, r.integrity, r.confidentiality = p[16]&0x3f, p[24]&0x3f, p[32]&0x3f
	return r, r.bmc != 0
}

// agrees reports whether the BMC took the suite that was proposed: pyghmi's, for one, answers with
// suite 3's algorithms whatever it was asked for.
func (r openResponse) agrees(s *suite) bool {
	return r.authentication == s.authentication && r.integrity == s.integrity &&
		r.confidentiality == s.confidentiality
}

// appendRAKP1 appends RAKP Message 1 (13.20): our random number, and who wants in.
func appendRAKP1(b []byte, tag byte, bmc uint32, random, who []byte) []byte {
	b = append(b, tag, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, bmc)
	b = append(b, random...)
	b = append(b, who[0], 0, 0)
	return append(b, who[1:]...)
}

// A rakp2 is RAKP Message 2 (13.21): the BMC's random number and GUID, and its proof that it knows
// the password.
type rakp2 struct {
	status byte
	random [16]byte
	guid   [16]byte
	code   []byte
}

func decodeRAKP2(p []byte, codeLen int) (r rakp2, ok bool) {
	if len(p) > 1 && p[1] != 0 {
		return rakp2{status: p[1]}, true
	}
	if len(p) < 40+codeLen {
		return r, false
	}
	r.random, r.guid, r.code = [16]byte(p[8:]), [16]byte(p[24:]), p[40:40+codeLen]
	return r, true
}

// appendRAKP3 appends RAKP Message 3 (13.22): our proof. A status other than 0 abandons the session
// and carries no proof.
func appendRAKP3(b []byte, tag, status byte, bmc uint32, code []byte) []byte {
	b = append(b, tag, status, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, bmc)
	return append(b, code...)
}

// A rakp4 is RAKP Message 4 (13.23): the BMC's proof that it has the same session key.
type rakp4 struct {
	status byte
	code   []byte
}

func decodeRAKP4(p []byte, codeLen int) (r rakp4, ok bool) {
	if len(p) > 1 && p[1] != 0 {
		return rakp4{status: p[1]}, true
	}
	if len(p) < 8+codeLen {
		return r, false
	}
	r.code = p[8 : 8+codeLen]
	return r, true
}
