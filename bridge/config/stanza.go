// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A stanza is a word and a colon in the first column, and the indented lines below it.
type stanza struct {
	kind    string
	line    int
	entries []entry
}

// An entry is one line of "key = value".
type entry struct {
	key   string
	value string
	line  int
}

// A syntax is one of two readings of the same form.
type syntax int

const (
	// o2cbSyntax is what ocfs2-tools reads (its o2cb_ctl/jconfig.c). Where that takes white space
	// or a comment into a value, this refuses: both must understand the same file the same way.
	o2cbSyntax syntax = iota

	// fenceSyntax adds comments anywhere after white space, and ignores white space at the end.
	fenceSyntax
)

// A scanner turns lines into stanzas. A blank line ends a stanza, a comment does not.
type scanner struct {
	*problems
	syntax  syntax
	stanzas []stanza
	open    bool // the last stanza takes entries
	broken  bool // the stanza's first line was wrong: say nothing about the rest of it
}

// scan returns the stanzas of a text, and adds to p what is none.
func scan(p *problems, text string, as syntax) []stanza {
	s := scanner{problems: p, syntax: as}
	if before, _, ok := strings.Cut(text, "\r\n"); ok {
		s.add(1+strings.Count(before, "\n"), "a carriage return ends the line: expected Unix line ends throughout")
		text = strings.ReplaceAll(text, "\r\n", "\n")
	}
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		s.scanLine(n, line)
	}
	return s.stanzas
}

func (s *scanner) scanLine(n int, line string) {
	line, comment := s.cutComment(line)
	indented := line != "" && isBlank(rune(line[0]))
	line = strings.TrimLeftFunc(line, isBlank)
	switch {
	case line == "" && comment:
	case line == "":
		s.open, s.broken = false, false
	case !isPrintable(line):
		s.add(n, "expected printable UTF-8 characters only")
	case indented:
		s.scanEntry(n, line)
	default:
		s.scanHead(n, line)
	}
}

// cutComment also says whether there was one.
func (s *scanner) cutComment(line string) (string, bool) {
	if strings.HasPrefix(line, "#") {
		return "", true
	}
	if s.syntax == o2cbSyntax {
		return line, false
	}
	comment := false
	for i := 1; i < len(line); i++ {
		if line[i] == '#' && isBlank(rune(line[i-1])) {
			line, comment = line[:i], true
		}
	}
	return strings.TrimRightFunc(line, isBlank), comment
}

// scanHead shows no more than the first word, and scanEntry no value, of what they refuse: it could
// be a password in a wrong place.
func (s *scanner) scanHead(n int, line string) {
	kind, rest, ok := strings.Cut(line, ":")
	s.open, s.broken = false, true
	switch {
	case !ok && strings.Contains(line, "="):
		s.add(n, "expected a tab before %q: only stanzas begin in the first column", strings.Fields(line)[0])
	case !ok || !isWord(kind):
		s.add(n, "expected a stanza such as \"cluster:\", found %q", strings.Fields(line)[0])
	case strings.TrimLeftFunc(rest, isBlank) != "":
		s.add(n, "expected the end of the line after \"%s:\"", kind)
	default:
		s.open, s.broken = true, false
		s.stanzas = append(s.stanzas, stanza{kind: kind, line: n})
	}
}

func (s *scanner) scanEntry(n int, line string) {
	key, value, ok := strings.Cut(line, "=")
	key = strings.TrimRightFunc(key, isBlank)
	value = strings.TrimLeftFunc(value, isBlank)
	switch {
	case s.broken:
	case !ok:
		s.add(n, "expected \"key = value\", found no \"=\" after %q", strings.Fields(line)[0])
	case !isWord(key):
		s.add(n, "expected a key of letters, digits and _, found %q", key)
	case !s.open:
		s.add(n, "%q belongs to no stanza: expected no blank line between a stanza's lines", key)
	case value == "":
		s.add(n, "expected a value after \"%s =\"", key)
	case strings.HasSuffix(value, "\\"):
		s.add(n, "expected the whole value of %q on one line, found a backslash at its end", key)
	case strings.TrimRightFunc(value, isBlank) != value:
		s.add(n, "expected no white space at the end of the line: o2cb takes it as part of %q", key)
	default:
		last := &s.stanzas[len(s.stanzas)-1]
		last.entries = append(last.entries, entry{key, value, n})
	}
}

func isBlank(r rune) bool { return r == ' ' || r == '\t' }

func isPrintable(line string) bool {
	return utf8.ValidString(line) && !strings.ContainsFunc(line, func(r rune) bool {
		return r != '\t' && !unicode.IsPrint(r)
	})
}

// isWord is true of what o2cb takes as the name of a stanza or a key.
func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r != '_' && !isAlnum(r) })
}

func isAlnum(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}
