// SPDX-License-Identifier: GPL-2.0-only

package uapi

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// A contract is the protocol as one of its two sources states it. Names are in lower-case words.
type contract struct {
	Constants map[string]string
	Commands  []string // by number
	Attrs     []attr   // by number
	Events    []string // by number
}

type attr struct{ Name, Type string }

func TestGoAndSpecificationAgree(t *testing.T) {
	spec := ofSpec(t, "../../docs/netlink/o2fence.yaml")
	if diff := cmp.Diff(spec, ofGo(t, "uapi.go")); diff != "" {
		t.Errorf("uapi.go is not as the specification (-specification +go):\n%s", diff)
	}
}

func words(name string) string {
	return strings.ToLower(strings.NewReplacer("_", " ", "-", " ").Replace(name))
}

// ofGo reads the constants' names and values from the source, and checks the names that String
// gives against them.
func ofGo(t *testing.T, name string) contract {
	c := contract{Constants: make(map[string]string)}
	for _, k := range constants(t, name) {
		value, _ := strconv.ParseUint(k.Val().ExactString(), 10, 16)
		switch typ := types.TypeString(k.Type(), types.RelativeTo(k.Pkg())); typ {
		case "Cmd":
			c.Commands = append(c.Commands, named(t, k, typ, Cmd(value), len(c.Commands)))
		case "Attr":
			word := named(t, k, typ, Attr(value), len(c.Attrs))
			c.Attrs = append(c.Attrs, attr{word, string(Attr(value).Type())})
		case "Event":
			c.Events = append(c.Events, named(t, k, typ, Event(value), len(c.Events)))
		default:
			c.Constants[camelWords(k.Name())] = strings.Trim(k.Val().ExactString(), `"`)
		}
	}
	return c
}

// named is the constant's word, after a check that it is the one of its name and comes in order.
func named(t *testing.T, k *types.Const, prefix string, word fmt.Stringer, number int) string {
	t.Helper()
	if k.Val().ExactString() != strconv.Itoa(number) {
		t.Errorf("%s is %s, out of order", k.Name(), k.Val())
	}
	joined := strings.ReplaceAll(word.String(), " ", "")
	if want := strings.ToLower(strings.TrimPrefix(k.Name(), prefix)); joined != want {
		t.Errorf("%s has the name %q", k.Name(), word)
	}
	return word.String()
}

var hump = regexp.MustCompile(`([a-z])([A-Z])`)

func camelWords(name string) string { return strings.ToLower(hump.ReplaceAllString(name, "$1 $2")) }

func constants(t *testing.T, name string) []*types.Const {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := new(types.Config).Check("uapi", fset, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []*types.Const
	for _, decl := range file.Decls {
		for _, spec := range decl.(*ast.GenDecl).Specs {
			if values, ok := spec.(*ast.ValueSpec); ok {
				all = append(all, pkg.Scope().Lookup(values.Names[0].Name).(*types.Const))
			}
		}
	}
	return all
}

// A spec is what is needed of the kernel's netlink specification language.
type spec struct {
	Name        string
	Version     string
	Definitions []struct {
		Name, Type string
		Value      string
		Entries    []struct{ Name string }
	}
	AttributeSets []attributeSet `yaml:"attribute-sets"`
	Operations    struct {
		List []operation
	}
	McastGroups struct {
		List []struct{ Name string }
	} `yaml:"mcast-groups"`
}

type attributeSet struct {
	Name       string
	Attributes []struct {
		Name, Type, Enum string
		Nested           string `yaml:"nested-attributes"`
	}
}

type message struct{ Attributes []string }

type operation struct {
	Name  string
	Value int
	Do    struct{ Request, Reply message }
	Dump  struct{ Request, Reply message }
	Event message
}

func ofSpec(t *testing.T, name string) contract {
	var s spec
	if err := yaml.Unmarshal([]byte(read(t, name)), &s); err != nil {
		t.Fatal(err)
	}
	c := contract{Constants: map[string]string{
		"genl name": s.Name, "genl version": s.Version, "mcgrp events": s.McastGroups.List[0].Name,
	}}
	for _, d := range s.Definitions {
		if d.Type == "const" {
			c.Constants[words(d.Name)] = d.Value
		}
		for _, e := range d.Entries {
			c.Events = append(c.Events, words(e.Name))
		}
	}
	c.Commands = []string{"unspec"} // a specification counts from 1
	for _, op := range s.Operations.List {
		c.Commands = append(c.Commands, words(op.Name))
	}
	c.Attrs = []attr{{"unspec", "unused"}}
	for _, a := range s.AttributeSets[0].Attributes {
		c.Attrs = append(c.Attrs, attr{words(a.Name), a.Type})
	}
	checkMessages(t, s)
	return c
}

// No message names an attribute that does not exist.
func checkMessages(t *testing.T, s spec) {
	t.Helper()
	known := make(map[string]bool)
	for _, a := range s.AttributeSets[0].Attributes {
		known[a.Name] = true
	}
	for _, op := range s.Operations.List {
		for _, m := range []message{op.Do.Request, op.Do.Reply, op.Dump.Request, op.Dump.Reply, op.Event} {
			for _, a := range m.Attributes {
				if !known[a] {
					t.Errorf("%s: there is no attribute %q", op.Name, a)
				}
			}
		}
	}
}

func read(t *testing.T, name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestNumbersOfANewerKernelAreShownAsNumbers(t *testing.T) {
	got := []string{Cmd(200).String(), Attr(200).String(), Event(200).String()}
	if diff := cmp.Diff([]string{"command 200", "attribute 200", "event 200"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestEventsAreSnakeCaseInJSON(t *testing.T) {
	if got, err := EventAttemptFailed.MarshalText(); string(got) != "attempt_failed" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
}
