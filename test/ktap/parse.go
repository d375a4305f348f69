// SPDX-License-Identifier: GPL-2.0-only

// Package ktap reads and writes KTAP version 1, the kernel's test output format
// (Documentation/dev-tools/ktap.rst), and turns it into subtests of go test. Success must be
// reported positively: a plan that is missing or not fulfilled, and any kernel fault between the
// lines, is a failure.
package ktap

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// A Result is one "ok" or "not ok" line.
type Result struct {
	Name        string
	OK          bool     // false for "not ok", whatever its directive
	Skip        bool     // directive SKIP
	Reason      string   // text of the SKIP, TODO, XFAIL, TIMEOUT or ERROR directive
	Diagnostics []string // "# " lines printed before the result, at its level
	Subtests    []Result
}

// A Report is one complete KTAP stream.
type Report struct {
	Results []Result
	// Problems say in what the stream is not proof of success: no version line, no plan, results
	// missing, repeated or unplanned, a bail-out, a kernel fault, a read that failed.
	Problems []string
}

// stampPattern is what printk and its consoles put before a line: "<6>[   12.345678][  T123] ".
var stampPattern = regexp.MustCompile(`^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])? ?`)

var (
	versionPattern = regexp.MustCompile(`^(?:K?TAP version \d+)$`)
	planPattern    = regexp.MustCompile(`^1\.\.(\d+)(?:\s+#.*)?$`)
	resultPattern  = regexp.MustCompile(`^(ok|not ok) (\d+)(?: -)?(?: (.*?))??(?:\s*# (SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b:?\s*(.*))?$`)
)

// Parse reads r to its end. It never fails: what is wrong with the stream is in Problems, so that
// the results before the fault are not lost.
func Parse(r io.Reader) Report {
	p := parser{levels: []level{{plan: -1}}}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		p.line(scanner.Text())
	}
	if err := scanner.Err(); err != nil {
		p.problem("reading: %v", err)
	}
	if !p.versioned {
		p.problem("no KTAP version line")
	}
	p.orphans(p.closeTo(0))
	p.check(p.levels[0], "")
	return Report{Results: p.levels[0].results, Problems: p.problems}
}

// A level is a list of results that share an indentation.
type level struct {
	indent      int
	plan        int // -1: none seen
	results     []Result
	diagnostics []string
}

type parser struct {
	levels    []level // outermost first, never empty
	versioned bool
	problems  []string
}

func (p *parser) problem(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

func (p *parser) line(raw string) {
	text := strings.TrimRight(stampPattern.ReplaceAllString(raw, ""), "\r ")
	body := strings.TrimLeft(text, " \t")
	indent := len(text) - len(body)
	switch {
	case versionPattern.MatchString(body):
		p.versioned = true
	case planPattern.MatchString(body):
		p.plan(indent, planPattern.FindStringSubmatch(body)[1])
	case resultPattern.MatchString(body):
		p.result(indent, resultPattern.FindStringSubmatch(body))
	case strings.HasPrefix(body, "Bail out!"):
		p.problem("%s", body)
	case strings.HasPrefix(body, "# "):
		top := p.at(indent)
		top.diagnostics = append(top.diagnostics, body[2:])
	case Fault(body):
		p.problem("kernel fault: %s", body)
	}
}

// at returns the level with this indentation, opening one when the line is indented deeper than
// the last.
func (p *parser) at(indent int) *level {
	if indent > p.top().indent {
		p.levels = append(p.levels, level{indent: indent, plan: -1})
	}
	return p.top()
}

func (p *parser) top() *level { return &p.levels[len(p.levels)-1] }

func (p *parser) plan(indent int, count string) {
	l := p.at(indent)
	if l.plan >= 0 {
		p.problem("a second plan: 1..%s", count)
		return
	}
	// Atoi fails only beyond the range of int; such a plan is not fulfilled either way.
	l.plan, _ = strconv.Atoi(count)
}

func (p *parser) result(indent int, match []string) {
	subtests := p.closeTo(indent)
	l := p.at(indent)
	r := Result{
		Name: match[3], OK: match[1] == "ok", Skip: match[4] == "SKIP", Reason: match[5],
		Diagnostics: l.diagnostics, Subtests: subtests,
	}
	if r.Name == "" {
		r.Name = match[2]
	}
	l.results, l.diagnostics = append(l.results, r), nil
	if match[2] != strconv.Itoa(len(l.results)) {
		p.problem("result %s (%s) where %d was due", match[2], r.Name, len(l.results))
	}
}

// closeTo ends the levels deeper than indent: a result line comes after the subtests that it sums up.
// It returns the results of the last level ended.
func (p *parser) closeTo(indent int) []Result {
	var ended []Result
	for len(p.levels) > 1 && p.top().indent > indent {
		l := *p.top()
		p.check(l, "subtests: ")
		p.levels = p.levels[:len(p.levels)-1]
		p.orphans(ended)
		ended = l.results
	}
	return ended
}

// orphans complains of subtests that no result line came after to take them in.
func (p *parser) orphans(results []Result) {
	if len(results) > 0 {
		p.problem("results of no test: %d", len(results))
	}
}

func (p *parser) check(l level, where string) {
	switch {
	case l.plan < 0 && len(l.results) == 0 && where != "":
		// Only diagnostics were indented.
	case l.plan < 0:
		p.problem("%sno plan", where)
	case l.plan != len(l.results):
		p.problem("%s%d planned, %d reported", where, l.plan, len(l.results))
	}
}
