// SPDX-License-Identifier: GPL-2.0-only

package qmp

import (
	"encoding/json"
	"errors"
	"strings"
)

// A message is a line that QEMU sends. Those that matter are answers; there are events and a greeting
// too.
type message struct {
	Return json.RawMessage `json:"return"`
	Error  *refusal        `json:"error"`
	ID     string          `json:"id"`
}

// A refusal is why QEMU did not do something.
type refusal struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

// decodeMessage decodes a line.
func decodeMessage(line []byte) (message, bool) {
	var m message
	err := json.Unmarshal(line, &m)
	return m, err == nil
}

// answers reports whether m answers the question of that ID, and no other. The ID is one that nobody
// could know before.
func (m message) answers(id []byte) bool {
	return len(id) > 0 && m.ID == string(id) && (m.Return != nil) != (m.Error != nil)
}

// A status is what QEMU says of the machine (StatusInfo; RunState).
type status struct {
	Status  string `json:"status"`
	Running bool   `json:"running"`
}

const (
	statusPrelaunch = "prelaunch"
	statusShutdown  = "shutdown"
)

// decodeStatus decodes an answer to query-status, all of which has to be there.
func decodeStatus(b []byte) (status, bool) {
	var s status
	var info map[string]json.RawMessage // since names in a struct would match in any case
	if json.Unmarshal(b, &info) != nil {
		return status{}, false
	}
	err := errors.Join(json.Unmarshal(info["status"], &s.Status), json.Unmarshal(info["running"], &s.Running))
	return s, err == nil && s.Status != "" && string(info["running"]) != "null"
}

// on reports whether the machine runs, or could go on with what it has in memory.
func (s status) on() bool {
	if s.Running {
		return true
	}
	switch s.Status {
	case "paused", "suspended", "io-error", "internal-error", "guest-panicked", "watchdog", "debug":
		return true
	default:
		return false
	}
}

// off reports whether the machine does not run and can only start anew: it was reset and not
// started, or has switched itself off under -no-shutdown and QEMU insists on a reset.
func (s status) off() bool {
	return !s.Running && (s.Status == statusPrelaunch || s.Status == statusShutdown)
}

// A migration is what is known of a machine's moves.
type migration int

const (
	migrationActive migration = iota // it is on its way, or nobody knows
	migrationOver                    // it has been moved, or saved to a file
	migrationNone                    // never, or in vain
)

// decodeMigration decodes an answer to query-migrate (MigrationInfo).
func decodeMigration(b []byte) migration {
	var info map[string]json.RawMessage
	if json.Unmarshal(b, &info) != nil || info == nil {
		return migrationActive
	}
	word, ok := info["status"]
	if !ok {
		return migrationNone
	}
	switch strings.Trim(string(word), `"`) {
	case "none", "failed", "cancelled":
		return migrationNone
	case "completed":
		return migrationOver
	default:
		return migrationActive
	}
}

// decodeUUID decodes an answer to query-uuid.
func decodeUUID(b []byte) string {
	var info struct{ UUID string }
	if json.Unmarshal(b, &info) != nil {
		return ""
	}
	return strings.ToLower(info.UUID)
}
