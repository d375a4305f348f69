// SPDX-License-Identifier: GPL-2.0-only

// Package reserve is what the methods have in common that fence by persistent reservations, of SCSI
// or NVMe: each node registers a key with each disk, a reservation lets nobody write who has not, and
// to fence a node is to take its key away. (R15)
//
// That a key is missing proves nothing by itself: without a reservation anybody may write. So a node
// is cut off when the key is gone and a reservation of one type stands, Write Exclusive - All
// Registrants: it excludes all who have not registered, and lasts as long as anybody is. Those of
// type Registrants Only end when their one holder goes. Nor does it prove anything while there is a key
// that is none of this cluster's: it may be the node's own, of another program or the cluster's former
// name, and lets it write as well.
//
// A node whose own key is gone was fenced itself, and fences nobody: who takes whose key away is
// decided by the disk, in one command. With several disks all nodes begin with the same one, and go on
// to the next when they have won it, so that two nodes never win a disk each.
//
// A path that hangs holds its thread up, and nothing else: each has a thread of its own, started when
// the device is made.
package reserve

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/o2fence/o2fence/fencemethods"
)

// A Key is what a node registers with a disk. Zero is none.
type Key uint64

// keyMark begins all keys of ours: "o2".
const keyMark = 0x6f32

// KeyOf is the key of a node: "o2", the first 5 bytes of the SHA-256 of its cluster's name, and its
// number. It is the same on all nodes, and never zero.
func KeyOf(cluster string, node uint8) Key {
	sum := sha256.Sum256([]byte(cluster))
	var b [8]byte
	binary.BigEndian.PutUint16(b[:], keyMark)
	copy(b[2:7], sum[:])
	b[7] = node
	return Key(binary.BigEndian.Uint64(b[:]))
}

// SameCluster tells whether two keys are of nodes of one cluster.
func (k Key) SameCluster(other Key) bool { return k>>8 == other>>8 }

// Node is the number of the node, of a key of ours.
func (k Key) Node() uint8 { return uint8(k) }

// String is the key as sg_persist and nvme print it.
func (k Key) String() string { return fmt.Sprintf("0x%016x", uint64(k)) }

// A Table is what a disk says of its reservations at one moment.
type Table struct {
	Mine, Theirs int  // how many registrations there are with each of the two keys
	Foreign      int  // and with keys of no node of the cluster
	Held         bool // a reservation stands
	Right        bool // and is one for all registrants that excludes all others from writing
	Lasting      bool // all of this survives a loss of the disk's power
}

// Count counts one more registration.
func (t *Table) Count(key, mine, theirs Key) {
	switch {
	case key == mine:
		t.Mine++
	case key == theirs:
		t.Theirs++
	case !key.SameCluster(mine):
		t.Foreign++
	}
}

// A Failure is an error without the names that package fencemethods adds. They are made once, so that
// they can be compared.
type Failure = fencemethods.Error

// Conflict is how a Link says that the disk has declined for the sake of reservations: this path is
// not registered with that key, or the key that is to go is not there.
var Conflict = &Failure{
	Kind: fencemethods.ErrRefused, Detail: "reservation conflict",
	Advice: "look at the disk's reservations",
}

// A Link is a path to a disk. Its methods are called by one thread, and may hang with the path. Each
// makes sure that it is still the disk it should be. Those that change something succeed only when
// the disk says so.
type Link interface {
	// Name is what people call the path.
	Name() string
	// Read reads the table, all of it at one moment.
	Read(mine, theirs Key) (Table, *Failure)
	// Preempt takes a key away from all who have registered with it, and ends their commands.
	Preempt(mine, theirs Key) *Failure
	// Prove succeeds when this path is registered with that key, and the disk has stored all keys and
	// the reservation, if it is to. It changes none of them.
	Prove(mine Key) *Failure
	// Register registers this path, whatever it was registered with.
	Register(mine Key) *Failure
	// Reserve makes the reservation, or finds it there.
	Reserve(mine Key) *Failure
	// Close closes the path.
	Close() error
}

// A Disk is one that a node is to be cut off from, with all paths that lead there.
type Disk struct {
	Name  string // that tells it from all others
	Links []Link
}
