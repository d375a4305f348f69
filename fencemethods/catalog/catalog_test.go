// SPDX-License-Identifier: GPL-2.0-only

package catalog

import (
	"strings"
	"testing"
)

// What every method owes to configurations and to people who choose one.
func TestEveryMethodIsDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range Methods() {
		if m.Name == "" || m.Summary == "" || m.New == nil || len(m.Name) >= 64 {
			t.Errorf("method %q: name, summary or New missing, or the name too long for the wire", m.Name)
		}
		if seen[m.Name] {
			t.Errorf("method %q is there twice", m.Name)
		}
		seen[m.Name] = true
		for _, p := range m.Params {
			if p.Help == "" {
				t.Errorf("method %q: parameter %q has no help", m.Name, p.Name)
			}
			if p.Secret != strings.HasSuffix(p.Name, "_file") && p.Name != "file" {
				t.Errorf("method %q: parameter %q: what names a secret ends in _file, and nothing else does", m.Name, p.Name)
			}
			if p.Default != "" && p.Validate != nil && p.Validate(p.Default) != nil {
				t.Errorf("method %q: parameter %q: its default is invalid", m.Name, p.Name)
			}
		}
	}
}

func TestFindNamesWhatWasMeant(t *testing.T) {
	if m, err := Methods().Find("ipmi"); err != nil || m.Name != "ipmi" {
		t.Errorf("Find(ipmi) = %q, %v", m.Name, err)
	}
	for name, want := range map[string]string{"impi": `did you mean "ipmi"?`, "telepathy": "expected one of ipmi, "} {
		if _, err := Methods().Find(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Find(%s): %v, want %q", name, err, want)
		}
	}
}

func TestTheTestMethodSaysThatItFencesNothing(t *testing.T) {
	m, err := Methods().Find("test")
	if err != nil || !strings.Contains(m.Summary, "FENCES NOTHING") {
		t.Errorf("summary %q, %v", m.Summary, err)
	}
}
