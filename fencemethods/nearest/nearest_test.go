// SPDX-License-Identifier: GPL-2.0-only

package nearest

import "testing"

func TestNearestGuessesTheWordThatWasMeant(t *testing.T) {
	words := []string{"addr", "port", "user", "password_file", "cipher", "retry_ms"}
	for _, c := range []struct{ typed, want string }{
		{"addr", "addr"},
		{"adr", "addr"},
		{"prot", "port"}, // one swap, not two changes
		{"USER", "user"},
		{"pasword_fil", "password_file"},
		{"chiper", "cipher"},
		{"heartbeat", ""},
		{"", ""},
	} {
		if got := Nearest(c.typed, words); got != c.want {
			t.Errorf("Nearest(%q) = %q, want %q", c.typed, got, c.want)
		}
	}
}

func TestNearestOfNothingIsNothing(t *testing.T) {
	if got := Nearest("addr", nil); got != "" {
		t.Errorf("Nearest = %q, want none", got)
	}
}

func TestASwapCountsOnce(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "abc", 3},
		{"abc", "", 3},
		{"ipmi", "impi", 1},
		{"kitten", "sitting", 3},
		{"on", "off", 2},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
