// SPDX-License-Identifier: GPL-2.0-only

// Package message has the datagrams by which a fencing node orders a remote server to act on a node
// for it, and by which that answers. All have one size and one layout, so no answer is longer than
// its question; numbers are big-endian:
//
//	  0  "o2fr"
//	  4  version, 1
//	  5  kind
//	  6  operation
//	  7  state of the node, in Done
//	  8  failure, in Done; 0 is success
//	  9  length of the text
//	 10  1 when request, incarnation and attempt are known
//	 11  0
//	 12  attempt
//	 16  tag: which node of which cluster, see TagOf
//	 32  nonce of the client, made anew for each operation
//	 48  nonce of the server that this is about; 0 in Hello and its Challenge
//	 64  nonce of the server to go on with, in Challenge; else 0
//	 80  the server's clock in ms, in Challenge, and repeated in Order
//	 88  time left in ms, in Order, counted from when its challenge came
//	 92  for how long the node had been silent then, in ms; 0: it is not known to be
//	     In Challenge both are one number, that names the server for as long as it lives; 0 is none.
//	 96  sender: names the client for as long as it lives
//	104  number of the request
//	112  incarnation
//	120  text, padded with 0: in Order why the request was made, in Done what there is to say
//	375  0
//	376  HMAC-SHA256 of the 376 bytes before it
//
// The client says Hello, is challenged, and gives its Order with the challenge in it. It repeats the
// Order, and is told Working or Busy, until it is told Done. The client's nonce keeps old answers
// away, whoever recorded them. The server's is good for one order, and the clock in it keeps away an
// order that was held up on its way. Cancel takes an order back, also one that has not come yet.
package message

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"unicode/utf8"

	"github.com/o2fence/o2fence/fencemethods"
)

// Size of every datagram, and TextMax of the text in it, in bytes: that is what the kernel's history
// takes.
const (
	Size    = 408
	TextMax = macAt - textAt - 1
)

const (
	magic     = "o2fr"
	version   = 1
	tagAt     = 16
	clientAt  = 32
	serverAt  = 48
	nextAt    = 64
	clockAt   = 80
	leftAt    = 88
	silentAt  = 92
	senderAt  = 96
	requestAt = 104
	lifeAt    = 112
	textAt    = 120
	macAt     = Size - sha256.Size
)

// A Kind is what a datagram says.
type Kind byte

// Of the client's side come Hello, Order and Cancel, of the server's the others. Unverified alone is
// not sealed: it says that the server cannot verify what came, with the client's nonce, and is for
// the text of a failure only.
const (
	Hello      Kind = 1
	Order      Kind = 2
	Cancel     Kind = 3
	Challenge  Kind = 0x81
	Working    Kind = 0x82
	Busy       Kind = 0x83
	Done       Kind = 0x84
	Unverified Kind = 0x85
)

// Question tells whether a client says it.
func (k Kind) Question() bool { return Hello <= k && k <= Cancel }

func (k Kind) valid() bool { return k.Question() || Challenge <= k && k <= Unverified }

// An Op is what is ordered: one of the operations of a fencemethods.Device.
type Op byte

// The zero Op is none.
const (
	Off    Op = 1
	On     Op = 2
	Status Op = 3
	Check  Op = 4
)

// String returns the operation's name as in errors of package fencemethods.
func (o Op) String() string {
	switch o {
	case Off:
		return "off"
	case On:
		return "on"
	case Status:
		return "status"
	case Check:
		return "check"
	default:
		return "unknown"
	}
}

// A Nonce is a random number that is used once. The zero Nonce is none.
type Nonce [16]byte

// A Tag names a node of a cluster.
type Tag [16]byte

// TagOf is the same on both sides when cluster, number and name of the node are.
func TagOf(target fencemethods.Target) (t Tag) {
	b := append([]byte("o2fence remote\x00"), target.Cluster...)
	b = append(b, 0, target.Node)
	sum := sha256.Sum256(append(b, target.Name...))
	copy(t[:], sum[:])
	return t
}

// A Message is a datagram, taken apart.
type Message struct {
	Kind    Kind
	Op      Op
	State   fencemethods.State
	Failure Failure

	Node                 Tag
	Client, Server, Next Nonce
	Clock                uint64 // ms
	Left, Silent         uint32 // ms
	Sender               uint64

	Requested   bool // what follows is known: see fencemethods.Request
	Number      uint64
	Incarnation uint64
	Attempt     uint32

	size uint8
	text [TextMax]byte
}

// NewProcess makes the number of a server, for as long as that lives.
func NewProcess() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	return binary.BigEndian.Uint64(b[:])
}

// Process is the number of the server, in Challenge. By it two addresses are told that lead to one server.
func (m *Message) Process() uint64 { return uint64(m.Left)<<32 | uint64(m.Silent) }

// SetProcess sets it.
func (m *Message) SetProcess(number uint64) { m.Left, m.Silent = uint32(number>>32), uint32(number) }

// Text is what SetText has set. It allocates, but for none.
func (m *Message) Text() string { return string(m.text[:m.size]) }

// Bytes is the text in place: it aliases m.
func (m *Message) Bytes() []byte { return m.text[:m.size] }

// SetText sets the text, cut to TextMax bytes between two characters, with a space for each control
// character: it ends on terminals. One that is no UTF-8 is left out.
func SetText[T string | []byte](m *Message, s T) {
	s = Cut(s, TextMax)
	clear(m.text[copy(m.text[:], s):])
	m.size = uint8(len(s))
	for i, b := range m.Bytes() {
		if isControl(b) {
			m.text[i] = ' '
		}
	}
	if !utf8.Valid(m.Bytes()) {
		m.text, m.size = [TextMax]byte{}, 0
	}
}

// Cut returns s, or as many characters of it as fit into size bytes.
func Cut[T string | []byte](s T, size int) T {
	end := min(len(s), size)
	for end < len(s) && end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// Decode takes a datagram apart. Whether it is genuine only its Seal tells.
func Decode(p []byte) (m Message, ok bool) {
	if len(p) != Size || string(p[:4]) != magic || p[4] != version {
		return Message{}, false
	}
	m = Message{
		Kind: Kind(p[5]), Op: Op(p[6]), State: fencemethods.State(p[7]), Failure: Failure(p[8]),
		Clock:       binary.BigEndian.Uint64(p[clockAt:]),
		Left:        binary.BigEndian.Uint32(p[leftAt:]),
		Silent:      binary.BigEndian.Uint32(p[silentAt:]),
		Sender:      binary.BigEndian.Uint64(p[senderAt:]),
		Requested:   p[10] == 1,
		Number:      binary.BigEndian.Uint64(p[requestAt:]),
		Incarnation: binary.BigEndian.Uint64(p[lifeAt:]),
		Attempt:     binary.BigEndian.Uint32(p[12:]),
		size:        p[9],
	}
	copy(m.Node[:], p[tagAt:])
	copy(m.Client[:], p[clientAt:])
	copy(m.Server[:], p[serverAt:])
	copy(m.Next[:], p[nextAt:])
	copy(m.text[:], p[textAt:])
	return m, p[10] <= 1 && p[11] == 0 && p[macAt-1] == 0 && m.valid()
}

func (m *Message) valid() bool {
	if !m.Kind.valid() || m.Op < Off || m.Op > Check || m.size > TextMax {
		return false
	}
	if m.State < fencemethods.Unknown || m.State > fencemethods.On {
		return false
	}
	for _, b := range m.text[m.size:] {
		if b != 0 {
			return false
		}
	}
	return utf8.Valid(m.Bytes()) && !slices.ContainsFunc(m.Bytes(), isControl)
}

func isControl(b byte) bool { return b < ' ' || b == 0x7f }

// Encode writes the datagram without its seal.
func (m *Message) Encode(p *[Size]byte) {
	*p = [Size]byte{4: version, 5: byte(m.Kind), 6: byte(m.Op), 7: byte(m.State), 8: byte(m.Failure), 9: m.size}
	copy(p[:], magic)
	if m.Requested {
		p[10] = 1
	}
	binary.BigEndian.PutUint32(p[12:], m.Attempt)
	copy(p[tagAt:], m.Node[:])
	copy(p[clientAt:], m.Client[:])
	copy(p[serverAt:], m.Server[:])
	copy(p[nextAt:], m.Next[:])
	binary.BigEndian.PutUint64(p[clockAt:], m.Clock)
	binary.BigEndian.PutUint32(p[leftAt:], m.Left)
	binary.BigEndian.PutUint32(p[silentAt:], m.Silent)
	binary.BigEndian.PutUint64(p[senderAt:], m.Sender)
	binary.BigEndian.PutUint64(p[requestAt:], m.Number)
	binary.BigEndian.PutUint64(p[lifeAt:], m.Incarnation)
	copy(p[textAt:], m.text[:m.size])
}

// A Seal makes and checks codes with one key. One goroutine uses it at a time.
type Seal struct {
	mac  hash.Hash
	code [sha256.Size]byte
}

// NewSeal allocates all that the Seal will ever need. What the hash made of the key cannot be wiped.
func NewSeal(key fencemethods.Secret) *Seal {
	s := &Seal{mac: hmac.New(sha256.New, key)}
	s.of(new([Size]byte)[:]) // what it allocates the first time
	return s
}

func (s *Seal) of(p []byte) []byte {
	s.mac.Reset()
	s.mac.Write(p[:macAt])
	return s.mac.Sum(s.code[:0])
}

// Close writes the code at the datagram's end.
func (s *Seal) Close(p *[Size]byte) { copy(p[macAt:], s.of(p[:])) }

// Genuine tells whether a datagram that Decode has taken was sealed with the key.
func (s *Seal) Genuine(p []byte) bool { return hmac.Equal(s.of(p), p[macAt:]) }
