// SPDX-License-Identifier: GPL-2.0-only

// Package wire is what the host's test harness (test/vm) and the agent in the guest (test/guest)
// say to each other over a virtio serial port: a stream of JSON values each way, requests from the
// host, replies from the guest.
package wire

import (
	"io/fs"
	"syscall"
)

// PortName names the virtio serial port, /sys/class/virtio-ports/*/name in the guest.
const PortName = "o2fence.agent"

// RootTag is the 9p mount tag of the exported root file system.
const RootTag = "root"

// ModuleDir is where in the initramfs the modules lie that reach the root file system; their names
// sort in the order to load them.
const ModuleDir = "/modules"

// A Request asks for exactly one of its actions. ID is the host's number for it and, for a started
// process, the name by which Signal finds it.
type Request struct {
	ID       uint64
	Start    *Process       `json:",omitempty"`
	Signal   syscall.Signal `json:",omitempty"` // to the process group of process ID; not answered
	Write    *File          `json:",omitempty"`
	PowerOff bool           `json:",omitempty"` // sync and power off; answered only when it fails
}

// A Process is what to run: Args[0] is looked up in PATH.
type Process struct {
	Args  []string
	Env   []string `json:",omitempty"` // added to the agent's own
	Dir   string   `json:",omitempty"`
	Stdin []byte   `json:",omitempty"`
}

// A File is written whole; missing directories are made.
type File struct {
	Path string
	Mode fs.FileMode
	Data []byte
}

// A Reply carries output of request ID, or with Done its end: an Error when the action could not be
// carried out, otherwise the exit of the process. The first reply of all has ID 0: the guest is up.
type Reply struct {
	ID     uint64
	Stdout []byte         `json:",omitempty"`
	Stderr []byte         `json:",omitempty"`
	Done   bool           `json:",omitempty"`
	Error  string         `json:",omitempty"`
	Code   int            `json:",omitempty"` // exit code, -1 when a signal ended the process
	Signal syscall.Signal `json:",omitempty"` // the signal that ended the process
}
