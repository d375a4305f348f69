// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/o2fence/o2fence/fencemethods/nearest"
)

// An Error is one thing that is wrong, or as a warning doubtful, in a configuration file.
type Error struct {
	File string
	Line int // counts from 1
	Err  error
}

// Error returns "file:line: text".
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

// Unwrap returns the error without its place.
func (e *Error) Unwrap() error { return e.Err }

// problems collects what is wrong and what is doubtful in one file: somebody who corrects a file
// wants all of it at once.
type problems struct {
	file     string
	errors   []*Error
	warnings []*Error
}

func (p *problems) add(line int, format string, args ...any) {
	p.errors = append(p.errors, &Error{p.file, line, fmt.Errorf(format, args...)})
}

func (p *problems) warn(line int, format string, args ...any) {
	p.warnings = append(p.warnings, &Error{p.file, line, fmt.Errorf(format, args...)})
}

// err joins the errors in the order of their lines: syntax is checked before meaning, so that is not
// the order in which they were found.
func (p *problems) err() error {
	byLine(p.errors)
	var all []error
	for _, e := range p.errors {
		all = append(all, e)
	}
	return errors.Join(all...)
}

func (p *problems) warned() []*Error {
	byLine(p.warnings)
	return p.warnings
}

func byLine(list []*Error) {
	slices.SortStableFunc(list, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
}

// expected lists the words that are right, and says which of them was probably meant.
func expected(word string, words []string) string {
	text := "expected " + strings.Join(words, ", ")
	if len(words) > 1 {
		text = "expected one of " + strings.Join(words, ", ")
	}
	if near := nearest.Nearest(word, words); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return text
}
