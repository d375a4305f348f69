// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import "encoding/binary"

// Payload types of an RMCP+ packet (13.27.3). The two flags are bits of the same byte.
const (
	payloadIPMI          = 0x00
	payloadOpenRequest   = 0x10
	payloadOpenResponse  = 0x11
	payloadRAKP1         = 0x12
	payloadRAKP2         = 0x13
	payloadRAKP3         = 0x14
	payloadRAKP4         = 0x15
	payloadAuthenticated = 0x40
	payloadEncrypted     = 0x80
)

const (
	rmcpLen   = 4  // version, reserved, sequence number, class (13.1.3)
	headerLen = 16 // the same and the session header (13.6)

	authRMCPPlus = 0x06 // authentication type of the session header: format of IPMI v2.0

	// maxPacket is more than any packet this package sends or understands.
	maxPacket = 512
)

// rmcp is the RMCP header of every IPMI packet: version 1.0, not to be acknowledged, class IPMI.
var rmcp = [rmcpLen]byte{0x06, 0x00, 0xff, 0x07}

// A header is the session header of IPMI v2.0 (13.6).
type header struct {
	payload  byte // type and flags
	session  uint32
	sequence uint32
}

func appendHeader(b []byte, h header, payloadLen int) []byte {
	b = append(b, rmcp[:]...)
	b = append(b, authRMCPPlus, h.payload)
	b = binary.LittleEndian.AppendUint32(b, h.session)
	b = binary.LittleEndian.AppendUint32(b, h.sequence)
	return binary.LittleEndian.AppendUint16(b, uint16(payloadLen))
}

// decodePacket takes a packet apart. What is not of IPMI v2.0, or shorter than it claims, is not ok.
// The payload ends where the header says; what follows is the session trailer.
func decodePacket(p []byte) (h header, payload []byte, ok bool) {
	if len(p) < headerLen || [rmcpLen]byte(p) != rmcp || p[4] != authRMCPPlus {
		return header{}, nil, false
	}
	h = header{
		payload:  p[5],
		session:  binary.LittleEndian.Uint32(p[6:]),
		sequence: binary.LittleEndian.Uint32(p[10:]),
	}
	end := headerLen + int(binary.LittleEndian.Uint16(p[14:]))
	if end > len(p) {
		return header{}, nil, false
	}
	return h, p[headerLen:end], true
}
