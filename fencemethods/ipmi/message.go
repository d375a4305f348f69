// SPDX-License-Identifier: GPL-2.0-only

package ipmi

// Addresses of the two ends of a LAN message (5.5; table 13-8).
const (
	addressBMC     = 0x20
	addressConsole = 0x81
)

// A message is an IPMI command or the response to one (table 13-8), without addresses and checksums.
type message struct {
	netFn byte // responses have it odd
	seq   byte // 6 bits
	cmd   byte
	data  []byte // of a response, the completion code comes first
}

// appendMessage appends a command from this console to the BMC.
func appendMessage(b []byte, m message) []byte {
	start := len(b)
	b = append(b, addressBMC, m.netFn<<2)
	b = append(b, checksum(b[start:]))
	start = len(b)
	b = append(b, addressConsole, m.seq<<2, m.cmd)
	b = append(b, m.data...)
	return append(b, checksum(b[start:]))
}

// decodeMessage decodes a response; it has at least a completion code. The addresses are not looked
// at: the session says whom it is from, and go-ipmi's server puts its own in both places.
func decodeMessage(p []byte) (m message, ok bool) {
	if len(p) < 8 || checksum(p[:3]) != 0 || checksum(p[3:]) != 0 {
		return message{}, false
	}
	return message{netFn: p[1] >> 2, seq: p[4] >> 2, cmd: p[5], data: p[6 : len(p)-1]}, true
}

// checksum is the two's complement of the sum, so that a run with its checksum sums to 0.
func checksum(p []byte) byte {
	var sum byte
	for _, b := range p {
		sum += b
	}
	return -sum
}
