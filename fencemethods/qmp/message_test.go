// SPDX-License-Identifier: GPL-2.0-only

package qmp

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// The words are those of RunState in QEMU 7.2, and some that it does not have.
func TestOnlyTwoWordsMeanOff(t *testing.T) {
	const on = "debug internal-error io-error paused suspended watchdog guest-panicked"
	const off = "prelaunch shutdown"
	const neither = "inmigrate finish-migrate postmigrate restore-vm save-vm colo Shutdown off quit"
	for _, running := range []bool{false, true} {
		for _, word := range strings.Fields(on + " " + off + " " + neither) {
			s, ok := decodeStatus(fmt.Appendf(nil, `{"status":%q,"running":%t}`, word, running))
			wantOn := running || strings.Contains(on, word)
			wantOff := !running && strings.Contains(off, word)
			if !ok || s.on() != wantOn || s.off() != wantOff {
				t.Errorf("%s, running %v: on %v, off %v", word, running, s.on(), s.off())
			}
		}
	}
}

// It ends in logs and on terminals, whoever is at the monitor.
func TestWhatQEMUSaysIsPrintableInAnError(t *testing.T) {
	f := refused("stop", &refusal{Desc: "\x1b[2Jdone\n" + strings.Repeat("\u00e4", 79)})
	if strings.ContainsFunc(f.Detail, unicode.IsControl) || !utf8.ValidString(f.Detail) || len(f.Detail) > 110 {
		t.Errorf("%q", f.Detail)
	}
}

func TestAnAnswerThatSaysTooLittleIsNone(t *testing.T) {
	for _, text := range []string{`{}`, `{"status":"prelaunch"}`, `{"running":false}`, `{"status":null,"running":false}`, `{"status":"prelaunch","running":null}`, `{"STATUS":"prelaunch","running":false}`, `null`, `"prelaunch"`, ``} {
		if s, ok := decodeStatus([]byte(text)); ok {
			t.Errorf("%s is taken for %v", text, s)
		}
	}
	for text, want := range map[string]migration{
		`{}`:                       migrationNone,
		`{"status":"none"}`:        migrationNone,
		`{"status":"failed"}`:      migrationNone,
		`{"status":"cancelled"}`:   migrationNone,
		`{"status":"completed"}`:   migrationOver,
		`{"status":"cancelling"}`:  migrationActive,
		`{"status":"pre-switch"}`:  migrationActive,
		`{"status":["completed"]}`: migrationActive,
		`null`:                     migrationActive,
		`[]`:                       migrationActive,
	} {
		if got := decodeMigration([]byte(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// FuzzDecodeMessage looks for a line that answers a question which it does not name.
func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(`{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}`))
	f.Add([]byte(`{"return": {"status": "running", "singlestep": false, "running": true}, "id": "0011223344556677-1"}`))
	f.Add([]byte(`{"id": "0011223344556677-1", "error": {"class": "CommandNotFound", "desc": "The command nosuch has not been found"}}`))
	f.Add([]byte(`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		const id = "0011223344556677-1"
		m, ok := decodeMessage(line)
		if ok && m.answers([]byte(id)) && !json.Valid(line) {
			t.Errorf("%q is an answer", line)
		}
		if ok && m.answers([]byte(id)) && m.answers([]byte("0011223344556677-2")) {
			t.Errorf("%q answers everything", line)
		}
	})
}

// FuzzDecodeAnswers looks for an answer that is taken for off, and does not have the word in it.
func FuzzDecodeAnswers(f *testing.F) {
	f.Add([]byte(`{"status": "prelaunch", "singlestep": false, "running": false}`))
	f.Add([]byte(`{"status": "completed", "total-time": 17}`))
	f.Add([]byte(`{"UUID": "00000000-0000-0000-0000-000000000000"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var other map[string]any
		err := json.Unmarshal(b, &other)
		if s, ok := decodeStatus(b); ok && s.off() && (err != nil || other["status"] != s.Status || other["running"] != false) {
			t.Errorf("%q is off", b)
		}
		if decodeMigration(b) == migrationNone && !json.Valid(b) {
			t.Errorf("%q is no migration", b)
		}
		decodeUUID(b)
	})
}
