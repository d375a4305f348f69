// SPDX-License-Identifier: GPL-2.0-only

// ynl makes the C side of a generic-netlink family of its specification: the header for user space,
// the policy, the table of operations, the check that a request is whole, and the family. The kernel's own generator does the same for families in
// the tree; it is in no package of Debian's, and does not know genl_small_ops.
//
//	go run ./scripts/ynl docs/netlink/o2fence.yaml DIRECTORY
//
// writes uapi/NAME.h, netlink_gen.h and netlink_gen.c into the directory, and leaves a file alone
// that says the same already, so that make does not build what has not changed.
package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"
)

//go:embed c.tmpl
var templates string

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: ynl SPECIFICATION DIRECTORY")
		os.Exit(2)
	}
	if err := generate(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "ynl:", err)
		os.Exit(1)
	}
}

// A spec is what is used of the specification language.
type spec struct {
	Name        string
	Version     int
	Doc         string
	Definitions []struct {
		Name, Type, Doc string
		Value           int
		Entries         []entry
	}
	AttributeSets []struct {
		Attributes []attribute
	} `yaml:"attribute-sets"`
	Operations struct {
		List []operation
	}
	McastGroups struct {
		List []entry
	} `yaml:"mcast-groups"`
}

type entry struct{ Name, Doc string }

type attribute struct {
	Name, Type, Doc string
	Checks          *struct {
		Min, Max uint64
		MaxLen   int `yaml:"max-len"`
	}
}

type operation struct {
	Name, Doc string
	Do        *struct{ Request message }
	Dump      *struct{ Reply message }
}

type message struct{ Attributes []string }

// Policy is the attribute's row, empty for one that only the kernel sends.
func (a attribute) Policy() (string, error) {
	switch {
	case a.Type == "string" && a.Checks != nil:
		return fmt.Sprintf("{ .type = NLA_NUL_STRING, .len = %d }", a.Checks.MaxLen), nil
	case a.Type == "u32" && a.Checks != nil:
		return fmt.Sprintf("RANGE(%d, %d)", a.Checks.Min, a.Checks.Max), nil
	case a.Type == "u32" || a.Type == "u64":
		return fmt.Sprintf("{ .type = NLA_%s }", strings.ToUpper(a.Type)), nil
	case a.Type == "string" || a.Type == "binary" || a.Type == "pad":
		return "", nil
	}
	return "", fmt.Errorf("attribute %s: type %q is new here", a.Name, a.Type)
}

// Needs are the attributes that an operation cannot do without: all that its request names.
func (s spec) Needs(op operation) []string {
	var needs []string
	for _, a := range s.AttributeSets[0].Attributes {
		if slices.Contains(op.Do.Request.Attributes, a.Name) {
			needs = append(needs, a.Name)
		}
	}
	return needs
}

// Sent tells whether user space sends the attribute in some command: only these are accepted.
func (s spec) Sent(a attribute) bool {
	for _, op := range s.Operations.List {
		if op.Do != nil && slices.Contains(op.Do.Request.Attributes, a.Name) {
			return true
		}
	}
	return false
}

// generate writes all files of the templates.
func generate(specFile, dir string) error {
	text, err := os.ReadFile(specFile)
	if err != nil {
		return err
	}
	var s spec
	if err := yaml.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("%s: %w", specFile, err)
	}
	if len(s.AttributeSets) != 1 || len(s.McastGroups.List) != 1 {
		return fmt.Errorf("%s: made for one attribute set and one multicast group", specFile)
	}
	t, err := template.New("").Funcs(template.FuncMap{
		"macro":   func(name string) string { return strings.ToUpper(function(name)) },
		"fn":      function,
		"comment": comment,
		"lines":   func(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") },
	}).Parse(templates)
	if err != nil {
		return err
	}
	return errors.Join(
		write(t, s, "header", filepath.Join(dir, "uapi", s.Name+".h")),
		write(t, s, "tables.h", filepath.Join(dir, "netlink_gen.h")),
		write(t, s, "tables.c", filepath.Join(dir, "netlink_gen.c")),
	)
}

func function(name string) string { return strings.ReplaceAll(name, "-", "_") }

// comment is a trailing one, or nothing.
func comment(text string) string {
	if text == "" {
		return ""
	}
	return "\t/* " + strings.Join(strings.Fields(text), " ") + " */"
}

func write(t *template.Template, s spec, name, file string) error {
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, name, s); err != nil {
		return err
	}
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, b.Bytes()) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}
