// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// What is read of a ledger is what is written of it.
func FuzzReadLedger(f *testing.F) {
	for _, s := range []string{
		`{"base":67584,"before":67584,"after":69632,"claims":[{"kib":2048,"holders":[{"pid":1,"start":5}]}]}`,
		`{"base":1}`, `{}`, `{"bose":1}`, `[`, ``, `{"claims":[{"holders":null}]}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "ledger")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := readLedger(file)
		if err != nil {
			return
		}
		if err := l.write(file); err != nil {
			t.Fatal(err)
		}
		again, err := readLedger(file)
		if diff := cmp.Diff(l, again, cmp.AllowUnexported(ledger{}), cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s", text, err, diff)
		}
	})
}
