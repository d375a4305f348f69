// SPDX-License-Identifier: GPL-2.0-only

package fencemethods

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestASecretIsReadWithoutItsNewline(t *testing.T) {
	for content, want := range map[string]string{
		"s3cret": "s3cret", "s3cret\n": "s3cret", "s3cret\r\n": "s3cret", "s3\ncret\n\n": "s3\ncret\n", " s ": " s ",
	} {
		name := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(name, []byte(content), 0o400); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadSecret(name); string([]byte(got)) != want || err != nil {
			t.Errorf("%q is read as %q, %v; want %q", content, []byte(got), err, want)
		}
	}
}

func TestAFileThatIsNoPlaceForASecretIsRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		return name
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		file("group", "s3cret", 0o640):                     "mode 0640",
		file("world", "s3cret", 0o604):                     "mode 0604",
		file("writable", "s3cret", 0o602):                  "mode 0602",
		file("empty", "\n", 0o600):                         "empty",
		file("long", strings.Repeat("s3cret", 1e3), 0o600): "longer than 1024 bytes",
		fifo:                         "not a regular file",
		dir:                          "not a regular file",
		filepath.Join(dir, "absent"): "no such file",
	} {
		_, err := ReadSecret(name)
		if err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), name) {
			t.Errorf("ReadSecret(%s): %v, want %q", name, err, text)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: gives the secret away", err)
		}
	}
}

func TestASecretIsNeverShown(t *testing.T) {
	s := Secret("hunter2")
	holder := struct{ Password Secret }{s}
	asJSON, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("", "s", s, "h", holder)
	shown := fmt.Sprintf("%v %+v %#v %s %q %x %X %d %v %#v", s, s, s, s, s, s, s, s, holder, holder)
	for _, text := range []string{shown, string(asJSON), log.String(), s.String()} {
		if !strings.Contains(text, redacted) || strings.Contains(text, "hunter2") ||
			strings.Contains(text, "104 117") || strings.Contains(text, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("shown as %q", text)
		}
	}
}

func TestAWipedSecretIsGone(t *testing.T) {
	s := Secret("hunter2")
	s.Wipe()
	if string([]byte(s)) != strings.Repeat("\x00", 7) {
		t.Errorf("still %q", []byte(s))
	}
}
