// SPDX-License-Identifier: GPL-2.0-only

// Package letter has what the method ask and an admin machine write to each other, in the text of the
// datagrams of package message: there, an Order is a question to people, and Done their answer.
//
//	Order    cluster, node, its number, who asks, "taken" or "", reason
//	Done     who: why. Failure 0 and State Off: he vouches. Else: he declines.
//	Cancel   "taken" or "", how it ended
//
// Lines end in a newline, the last one excepted. "taken" says that the answer given by whoever gets
// this counts. Whoever does not ask any more says Cancel, also when all is well.
package letter

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
)

const taken = "taken"

// A Question is the text of an Order.
type Question struct {
	Target fencemethods.Target
	Asker  string // the name of the node that asks
	Taken  bool
	Reason []byte
}

// Append writes the letter without allocating where b has room. What does not fit a datagram is cut off
// the reason, which comes last.
func (q *Question) Append(b []byte) []byte {
	b = append(append(b, q.Target.Cluster...), '\n')
	b = append(append(b, q.Target.Name...), '\n')
	b = append(strconv.AppendUint(b, uint64(q.Target.Node), 10), '\n')
	b = append(append(b, q.Asker...), '\n')
	b = appendTaken(b, q.Taken)
	return append(b, q.Reason...)
}

func appendTaken(b []byte, is bool) []byte {
	if is {
		b = append(b, taken...)
	}
	return append(b, '\n')
}

// ParseQuestion reads it. It is false for what Append does not write.
func ParseQuestion(text string) (Question, bool) {
	lines := strings.SplitN(text, "\n", 6)
	if len(lines) != 6 {
		return Question{}, false
	}
	number, err := strconv.ParseUint(lines[2], 10, 8)
	ok := err == nil && isTaken(lines[4])
	q := Question{
		Target: fencemethods.Target{Cluster: lines[0], Name: lines[1], Node: uint8(number)},
		Asker:  lines[3], Taken: lines[4] == taken, Reason: []byte(lines[5]),
	}
	return q, ok && q.plain()
}

// plain tells whether people can be shown it on a terminal, and type the names.
func (q *Question) plain() bool {
	for _, s := range []string{q.Target.Cluster, q.Target.Name, q.Asker} {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return false
		}
	}
	return !bytes.ContainsFunc(q.Reason, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func isTaken(line string) bool { return line == "" || line == taken }

// AppendEnd writes the text of a Cancel.
func AppendEnd(b []byte, isTaken bool, how string) []byte {
	return append(appendTaken(b, isTaken), how...)
}

// ParseEnd reads it. What AppendEnd does not write is an end without a word.
func ParseEnd(text string) (isTaken bool, how string) {
	first, how, ok := strings.Cut(text, "\n")
	if !ok || strings.ContainsFunc(how, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return first == taken, ""
	}
	return first == taken, how
}

// Room is enough for any letter with names and a reason of lengths that the kernel takes.
const Room = 1024
