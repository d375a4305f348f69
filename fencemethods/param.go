// SPDX-License-Identifier: GPL-2.0-only

package fencemethods

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/o2fence/o2fence/fencemethods/nearest"
)

// A Param is one parameter that a method understands.
type Param struct {
	Name     string
	Help     string // one line: what it is, with its unit
	Required bool
	Default  string             // what an absent one means; "" is none
	Secret   bool               // the value names a file that holds a secret, see ReadSecret
	Identity bool               // with the others of these it names the one machine that is switched
	List     bool               // of values, separated by commas, each of which names a machine by itself
	Private  bool               // the value is not shown: there may be secrets in it that have no file
	Validate func(string) error // nil takes anything; its error says what would be right
}

// Values are a method's parameters after Parse: known names only, each valid, defaults filled in.
type Values map[string]string

// Int returns a parameter that Between has approved, and 0 for an absent one.
func (v Values) Int(name string) int {
	n, _ := strconv.Atoi(v[name])
	return n
}

// Parse checks the given parameters, without touching any device or file, and fills in defaults.
// The first that does not fit is returned as a *ParamError: unknown names, then the rest in the
// order of Params, then what Verify says.
func (m Method) Parse(given map[string]string) (Values, error) {
	names := m.names()
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(names, key) {
			return nil, &ParamError{m.Name, key, "unknown parameter, " + meant(key, names)}
		}
	}
	values := make(Values, len(m.Params))
	for _, p := range m.Params {
		value, ok := given[p.Name]
		if err := p.check(value, ok); err != nil {
			return nil, &ParamError{m.Name, p.Name, err.Error()}
		}
		if !ok {
			value = p.Default
		}
		if value != "" {
			values[p.Name] = value
		}
	}
	if m.Verify != nil {
		if err := m.Verify(values); err != nil {
			err.Method = m.Name
			return nil, err
		}
	}
	return values, nil
}

func (m Method) names() []string {
	var names []string
	for _, p := range m.Params {
		names = append(names, p.Name)
	}
	return names
}

func (p Param) check(value string, given bool) error {
	switch {
	case !given && p.Required:
		return fmt.Errorf("missing: %s", p.Help)
	case !given:
		return nil
	case value == "":
		return fmt.Errorf("empty: %s", p.Help)
	case p.Secret && !filepath.IsAbs(value):
		return errors.New("must be the absolute path of a file that holds the secret, not the secret")
	case p.Validate == nil:
		return nil
	}
	return p.Validate(value)
}

// OneOf approves the given words only.
func OneOf(words ...string) func(string) error {
	return func(value string) error {
		if slices.Contains(words, value) {
			return nil
		}
		return fmt.Errorf("%q is none of its values, %s", value, meant(value, words))
	}
}

// Between approves whole decimal numbers from low to high.
func Between(low, high int) func(string) error {
	return func(value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < low || n > high {
			return fmt.Errorf("%q is not a whole number from %d to %d", value, low, high)
		}
		return nil
	}
}

// IPAddr approves IP addresses without a zone.
func IPAddr(value string) error {
	addr, err := netip.ParseAddr(value)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not an IP address; names are not looked up, since that may fail or hang at fence time", value)
	case addr.Zone() != "":
		return fmt.Errorf("%q has a zone; give an address that is valid without one", value)
	}
	return nil
}

// IPAddrs approves lists of up to so many IP addresses of different machines, separated by commas.
func IPAddrs(most int) func(string) error {
	return func(value string) error {
		var seen []netip.Addr
		for text := range strings.SplitSeq(value, ",") {
			if err := IPAddr(text); err != nil {
				return err
			}
			addr := netip.MustParseAddr(text).Unmap()
			switch {
			case addr.IsUnspecified() || addr.IsMulticast():
				return fmt.Errorf("%q is no address of a machine's", text)
			case slices.Contains(seen, addr):
				return fmt.Errorf("%q is there twice", text)
			}
			seen = append(seen, addr)
		}
		if len(seen) > most {
			return fmt.Errorf("%q has %d addresses: expected at most %d", value, len(seen), most)
		}
		return nil
	}
}

// meant names the word that was probably meant, or all there are.
func meant(word string, words []string) string {
	if near := nearest.Nearest(word, words); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "expected one of " + strings.Join(words, ", ")
}
