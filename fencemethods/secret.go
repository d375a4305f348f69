// SPDX-License-Identifier: GPL-2.0-only

package fencemethods

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// maxSecret is the longest secret in bytes; none of the protocols takes one nearly as long.
const maxSecret = 1024

// A Secret is a password or key. However it is printed, marshalled or logged, it shows as
// "[redacted]"; whoever needs its bytes converts it to []byte in so many words.
type Secret []byte

const redacted = "[redacted]"

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// Format prints "[redacted]" for every verb: %d and %x would otherwise show the bytes.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "[redacted]", for encoding/json and log/slog.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Wipe overwrites the secret with zeros.
func (s Secret) Wipe() { clear(s) }

// ReadSecret reads the secret in the file of that name, without the newline that ends it. The file
// is refused unless it is a regular file that only its owner may read.
func ReadSecret(name string) (Secret, error) {
	// Not to block is for a FIFO, whose open would otherwise wait for a writer.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := private(f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// One fixed buffer: a growing one would leave copies of the secret behind.
	b := make([]byte, maxSecret+1)
	n, err := io.ReadFull(f, b)
	if err == nil {
		clear(b)
		return nil, fmt.Errorf("%s: longer than %d bytes", name, maxSecret)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	secret := bytes.TrimSuffix(bytes.TrimSuffix(b[:n], []byte("\n")), []byte("\r"))
	if len(secret) == 0 {
		return nil, fmt.Errorf("%s: empty", name)
	}
	return Secret(secret), nil
}

// private looks at the open file, not at its name, which may mean another file by now.
func private(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("mode %04o lets others than the owner at it; chmod it to 0600", mode)
	}
	return nil
}
