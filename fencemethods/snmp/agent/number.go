// SPDX-License-Identifier: GPL-2.0-only

package agent

// Tags of BER (X.690) and of SNMP's messages (RFC 3416, section 3).
const (
	tagInteger  = 0x02
	tagString   = 0x04
	tagSequence = 0x30
	tagResponse = 0xa2
)

const version3 = 3

// number finds the number by which a message is an answer to a question, and looks at nothing that
// is not before it: the msgID of version 3 (RFC 3412, section 6), the request-id of a response of
// the others (RFC 3416, section 3). ok is false for whatever is not such a message, or cut short.
func number(p []byte, version byte) (id uint32, ok bool) {
	message, rest, ok := element(p, tagSequence)
	if !ok || len(rest) != 0 {
		return 0, false
	}
	v, message, ok := element(message, tagInteger)
	if !ok || len(v) != 1 || v[0] != version {
		return 0, false
	}
	if version == version3 {
		header, _, ok := element(message, tagSequence)
		return first(header, ok)
	}
	_, message, ok = element(message, tagString)
	if !ok {
		return 0, false
	}
	pdu, _, ok := element(message, tagResponse)
	return first(pdu, ok)
}

// first reads the number that a sequence begins with.
func first(sequence []byte, ok bool) (uint32, bool) {
	if !ok {
		return 0, false
	}
	b, _, ok := element(sequence, tagInteger)
	if !ok || len(b) == 0 || len(b) > 4 || b[0] > 0x7f {
		return 0, false
	}
	var id uint32
	for _, c := range b {
		id = id<<8 | uint32(c)
	}
	return id, true
}

// element takes apart an element of that tag, with a length of up to 65535, and what follows it.
func element(p []byte, tag byte) (content, rest []byte, ok bool) {
	if len(p) < 2 || p[0] != tag {
		return nil, nil, false
	}
	n, p := int(p[1]), p[2:]
	switch {
	case n < 0x80:
	case n == 0x81 && len(p) >= 1:
		n, p = int(p[0]), p[1:]
	case n == 0x82 && len(p) >= 2:
		n, p = int(p[0])<<8|int(p[1]), p[2:]
	default:
		return nil, nil, false
	}
	if n > len(p) {
		return nil, nil, false
	}
	return p[:n], p[n:], true
}
