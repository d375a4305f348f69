// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxName is what the kernel takes as a name, in bytes (O2FENCE_NAME_MAX, O2NM_MAX_NAME_LEN).
const maxName = 64

// fields are the entries of a stanza, or of one method within it, by key. Whatever is asked of them
// and is missing or wrong becomes a problem and a zero value.
type fields struct {
	*problems
	what    string // for the texts: "a node stanza"
	line    int    // where a missing key is reported
	byKey   map[string]entry
	allowed []string
}

// fields sorts entries by key, and refuses keys that come twice or are not among those allowed.
func (p *problems) fields(what string, line int, entries []entry, allowed ...string) fields {
	return p.fieldsOr(func(string) string { return "" }, what, line, entries, allowed...)
}

// fieldsOr is fields with a hint for a key that is not among those allowed.
func (p *problems) fieldsOr(hint func(key string) string, what string, line int, entries []entry, allowed ...string) fields {
	f := fields{p, what, line, map[string]entry{}, allowed}
	for _, e := range entries {
		first, twice := f.byKey[e.key]
		switch {
		case !slices.Contains(allowed, e.key):
			f.add(e.line, "unknown key %q in %s: %s%s", e.key, what, expected(e.key, allowed), hint(e.key))
		case twice:
			f.add(e.line, "%q is already set on line %d", e.key, first.line)
		default:
			f.byKey[e.key] = e
		}
	}
	return f
}

// need says whether the key is there; when it is not, that is a problem.
func (f fields) need(key string) bool {
	_, ok := f.byKey[key]
	if !ok {
		f.add(f.line, "expected %q in %s", key, f.what)
	}
	return ok
}

// name returns a required name, in the letters that are safe in a path, a message and a log.
func (f fields) name(key string) string {
	if !f.need(key) {
		return ""
	}
	e := f.byKey[key]
	outside := func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("._-", r) }
	if strings.ContainsFunc(e.value, outside) || e.value[0] == '.' || len(e.value) > maxName {
		f.add(e.line, "%q is no %s: expected up to %d letters, digits, \".\", \"_\" and \"-\"", e.value, key, maxName)
		return ""
	}
	return e.value
}

// A span is the range of a number, both ends included, and what it is when it is not set.
type span struct{ low, high, standard uint32 }

// parse reads a decimal number. Leading zeros do not make it octal: o2cb reads it so, too.
func (in span) parse(value string) (uint32, error) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n < uint64(in.low) || n > uint64(in.high) {
		return 0, fmt.Errorf("expected a whole number from %d to %d", in.low, in.high)
	}
	return uint32(n), nil
}

// number returns a number that need not be set.
func (f fields) number(key string, in span) uint32 {
	e, ok := f.byKey[key]
	if !ok {
		return in.standard
	}
	n, err := in.parse(e.value)
	if err != nil {
		f.add(e.line, "%s = %s: %w", key, e.value, err)
	}
	return n
}

// word returns one of words, or standard when it is not set.
func (f fields) word(key, standard string, words ...string) string {
	e, ok := f.byKey[key]
	if !ok {
		return standard
	}
	if !slices.Contains(words, e.value) {
		f.add(e.line, "%s = %s: %s", key, e.value, expected(e.value, words))
	}
	return e.value
}
