// SPDX-License-Identifier: GPL-2.0-only

// Package letter has what the method ask and an admin machine write to each other, in the text of the
// datagrams of package message: there, an Order is a question to people, and Done their answer.
//
//	Order    cluster, node, its number, who asks, "taken" or "-", reason
//	Done     who: why. Failure 0 and State Off: he vouches. Else: he declines.
//	Cancel   "taken" or "-", how it ended
//
// There is a space between two of them. "taken" says that the answer given by whoever gets
// this counts. Whoever does not ask any more says Cancel, also when all is well.
package letter

import (
	"slices"
	"strconv"
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
)

const (
	taken    = "taken"
	notTaken = "-"
)

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
	b = append(append(b, q.Target.Cluster...), ' ')
	b = append(append(b, q.Target.Name...), ' ')
	b = append(strconv.AppendUint(b, uint64(q.Target.Node), 10), ' ')
	b = append(append(b, q.Asker...), ' ')
	b = appendTaken(b, q.Taken)
	return append(b, q.Reason...)
}

func appendTaken(b []byte, is bool) []byte {
	word := notTaken
	if is {
		word = taken
	}
	return append(append(b, word...), ' ')
}

// ParseQuestion reads it. It is false for what Append does not write.
func ParseQuestion(text string) (Question, bool) {
	words := strings.SplitN(text, " ", 6)
	if len(words) != 6 || slices.Contains(words[:5], "") {
		return Question{}, false
	}
	number, err := strconv.ParseUint(words[2], 10, 8)
	q := Question{
		Target: fencemethods.Target{Cluster: words[0], Name: words[1], Node: uint8(number)},
		Asker:  words[3], Taken: words[4] == taken, Reason: []byte(words[5]),
	}
	return q, err == nil && (q.Taken || words[4] == notTaken)
}

// AppendEnd writes the text of a Cancel.
func AppendEnd(b []byte, isTaken bool, how string) []byte {
	return append(appendTaken(b, isTaken), how...)
}

// ParseEnd reads it. What AppendEnd does not write is an end without a word.
func ParseEnd(text string) (isTaken bool, how string) {
	first, how, ok := strings.Cut(text, " ")
	if !ok || first != taken && first != notTaken {
		return false, ""
	}
	return first == taken, how
}

// Room is enough for any letter with names and a reason of lengths that the kernel takes.
const Room = 1024
