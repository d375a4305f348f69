// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// one ends a level: the methods below it stand alone again.
const one = "one"

// A levelText is a level while it is being read: "level =" and what belongs to it, or a method alone.
type levelText struct {
	head    []entry   // its first line is "level ="; empty for a method alone
	methods [][]entry // the first line of each is "method ="
}

// cutLevels cuts a stanza before each "level =" and "method =".
func cutLevels(entries []entry) (head []entry, levels []levelText) {
	inside := false
	for _, e := range entries {
		last := len(levels) - 1
		switch {
		case e.key == "level":
			inside = e.value != one
			levels = append(levels, levelText{head: []entry{e}})
		case e.key == "method" && !inside:
			levels = append(levels, levelText{methods: [][]entry{{e}}})
		case e.key == "method":
			levels[last].methods = append(levels[last].methods, []entry{e})
		case last < 0:
			head = append(head, e)
		case len(levels[last].methods) == 0:
			levels[last].head = append(levels[last].head, e)
		default:
			method := &levels[last].methods[len(levels[last].methods)-1]
			*method = append(*method, e)
		}
	}
	return head, levels
}

// level adds a level, or a method that stands alone, to a node's list.
func (f *fenceFile) level(c *Cluster, n *Node, text levelText) {
	if len(text.head) == 0 {
		if step, ok := f.step(c, n, text.methods[0], NoLevel, nil); ok {
			n.Steps = append(n.Steps, step)
		}
		return
	}
	line, word := text.head[0].line, text.head[0].value
	if word == one {
		f.fields("level one", line, text.head, "level")
		return
	}
	in := f.fields("level "+word, line, text.head, "level", "timeout_ms", "method")
	in.word("level", "", string(All), string(Any), one)
	level := Step{Level: Rule(word), TimeoutMS: in.number("timeout_ms", span{100, maxTimeout, f.timeouts[c]})}
	for _, m := range text.methods {
		if member, ok := f.step(c, n, m, level.Level, level.Members); ok {
			member.TimeoutMS = level.TimeoutMS
			f.member(level, member, m)
			level.Members = append(level.Members, member)
		}
	}
	if got := len(text.methods); got < 2 || got > maxMembers {
		f.add(line, "expected from 2 to %d methods in a level, found %d", maxMembers, got)
	}
	level.join()
	f.fits(level, line)
	n.Steps = append(n.Steps, level)
}

// member refuses what cannot be in a level.
func (f *fenceFile) member(level, m Step, text []entry) {
	line := text[0].line
	switch {
	case isKernel(m):
		f.add(line, "method %s runs in the kernel and stands alone: expected \"level = %s\" before it", m.Method, one)
	case f.methods[m.Method].Blind && level.Level == All:
		f.add(line, "method %s waits and cannot be read afterwards: expected it in \"level = %s\", or before this one", m.Method, Any)
	case m.AfterMS > 0 && uint64(m.AfterMS) >= ownTime(level.TimeoutMS):
		at := slices.IndexFunc(text, func(e entry) bool { return e.key == "after_ms" })
		f.add(text[at].line, "after_ms = %d: expected less than nine tenths of the level's timeout_ms, which is %d", m.AfterMS, level.TimeoutMS)
	}
}

// ownTime is what a method gets of a timeout; the kernel has the rest. See package dispatch.
func ownTime(timeoutMS uint32) uint64 { return uint64(timeoutMS) / 10 * 9 }

func isKernel(s Step) bool { return s.Level == NoLevel && (s.Method == Watchdog || s.Method == Manual) }

// join makes the level one method: its name says who is in it, for status and history, and its
// parameters change with anything of them.
func (s *Step) join() {
	var names []string
	hash := sha256.New()
	fmt.Fprintf(hash, "level=%s\n", s.Level)
	for _, m := range s.Members {
		names = append(names, m.Method)
		fmt.Fprintf(hash, "method=%s\n%s\n\n", m.Method, m.Params)
	}
	s.Method = strings.Join(names, s.Level.sign())
	s.Params = fmt.Appendf(nil, "sha256=%x\n", hash.Sum(nil))
}

func (r Rule) sign() string {
	if r == Any {
		return "|"
	}
	return "+"
}

// usage reads how a method is used, which is no parameter of its own.
func (f fields) usage(s *Step) {
	s.Retries = f.number("retries", span{high: 1000})
	if s.Retries > 0 {
		s.BackoffMS = 1000
	} else if e, ok := f.byKey["backoff_ms"]; ok {
		f.add(e.line, "backoff_ms without retries: expected \"retries\" in %s", f.what)
	}
	s.BackoffMS = f.number("backoff_ms", span{10, 600000, s.BackoffMS})
	s.AfterMS = f.number("after_ms", span{high: 600000})
}

// usage is the same as it is part of Params: behind an empty line, so that it is no parameter.
func (s Step) usage() []byte {
	var lines []byte
	for _, u := range []struct {
		key   string
		value uint32
	}{{"after_ms", s.AfterMS}, {"backoff_ms", s.BackoffMS}, {"retries", s.Retries}} {
		if u.value == 0 {
			continue
		}
		if lines == nil {
			lines = []byte("\n")
		}
		lines = fmt.Appendf(lines, "%s=%d\n", u.key, u.value)
	}
	return lines
}
