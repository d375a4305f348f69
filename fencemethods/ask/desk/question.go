// SPDX-License-Identifier: GPL-2.0-only

// Package desk is what an admin machine has of the method ask: it keeps the questions of clusters
// until an administrator has answered them, and takes his answers on a Unix socket. It knows nothing
// of the network.
//
// None of it is on the path of a fence: it may wait for memory, and the machine need not have OCFS2.
package desk

import (
	"fmt"
	"time"
)

// An ID names one question. It is a random number, the same on all machines that are asked.
type ID uint64

// Request is how people name a question: by the number that the asking kernel gave to the request, as
// its events have it, and by a part of the ID, which tells apart what different nodes ask, and what
// one asks before and after a restart.
func (id ID) Request(number uint64) string { return fmt.Sprintf("%d-%06x", number, uint64(id)>>40) }

// A Question is what a node of a cluster asks: to make sure that another one is off, or cut off from
// the disks. Times are by this machine's clock.
type Question struct {
	Request     string    `json:"request"`      // see ID.Request
	Cluster     string    `json:"cluster"`      //
	Node        string    `json:"node"`         // whom it is about
	Number      uint8     `json:"node_number"`  // his number in the cluster
	Incarnation string    `json:"incarnation"`  // which life of his, as OCFS2 prints it; "" is not known
	Attempt     uint32    `json:"attempt"`      // counts from 1 within the request
	AskedBy     string    `json:"asked_by"`     // who has the duty to fence
	Reason      string    `json:"reason"`       // why
	SilentSince time.Time `json:"silent_since"` // zero: he is not silent, or it is not known
	AskedAt     time.Time `json:"asked_at"`     // when it came here
	Until       time.Time `json:"until"`        // when whoever asks gives up
}

// A State is how far a question has come.
type State string

// The states of a question.
const (
	Open      State = "open"      // nobody here has answered
	Confirmed State = "confirmed" // somebody here vouches for it, and the cluster is being told
	Declined  State = "declined"  // somebody here refuses to, and the cluster is being told
	Over      State = "over"      // the cluster has told how it ended, or its time is over
)

// A Record is a question with what has become of it.
type Record struct {
	Question
	State      State     `json:"state"`
	Who        string    `json:"who"`         // has answered here; "" is nobody
	Why        string    `json:"why"`         // in his words
	AnsweredAt time.Time `json:"answered_at"` //
	Taken      bool      `json:"taken"`       // the answer given here counts
	End        string    `json:"end"`         // how it ended, in the cluster's words
	EndedAt    time.Time `json:"ended_at"`    //
	HeardAt    time.Time `json:"heard_at"`    // when it last came
}
