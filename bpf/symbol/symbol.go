// SPDX-License-Identifier: GPL-2.0-only

// Package symbol gives addresses on kernel and user stacks their names. Go programs are resolved to
// function, file and line by the table that every Go binary carries, also a stripped one; others by
// their symbols, and by their DWARF line tables where they have them.
package symbol

import (
	"fmt"
	"strings"
)

// A Frame is one place on a stack. What could not be found out is empty.
type Frame struct {
	Func   string `json:"func"`             // or, in angle brackets, where the address lies
	File   string `json:"file,omitempty"`   // as the compiler had it; with -trimpath it begins with the package's path
	Line   int    `json:"line,omitempty"`   // the innermost one, also where the function was inlined
	Module string `json:"module,omitempty"` // of a kernel module, or the base name of the binary
	Kernel bool   `json:"kernel,omitempty"`
	Go     bool   `json:"-"`
}

// String is the frame as on one line: "main.grow /src/offender/main.go:42".
func (f Frame) String() string {
	switch {
	case f.Kernel && f.Module != "":
		return f.Func + " [" + f.Module + "]"
	case f.File != "":
		return f.Func + " " + f.Place()
	}
	return f.Func
}

// Place is file and line, empty when the file is not known.
func (f Frame) Place() string {
	if f.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", f.File, f.Line)
}

// Package is the import path of a Go function's package, such as "net/netip", and empty for others.
func (f Frame) Package() string {
	if !f.Go {
		return ""
	}
	// Dots in the last element of a path are escaped, and type arguments may hold slashes.
	name, _, _ := strings.Cut(f.Func, "[")
	slash := strings.LastIndexByte(name, '/') + 1
	last, _, _ := strings.Cut(name[slash:], ".")
	return name[:slash] + last
}

// Standard tells whether a Go function is of the runtime or the standard library: the first element of
// its path has no dot, and it is not the program itself.
func (f Frame) Standard() bool {
	path := f.Package()
	first, _, _ := strings.Cut(path, "/")
	return path != "" && path != "main" && !strings.Contains(first, ".")
}

// Blame is the index of the frame that has to answer for a stack, innermost first: the innermost one
// of the program's own code, not of the runtime, the standard library or another binary. Where there is
// none, the outermost of the standard library, which is what a goroutine of it was started for; then
// the innermost of the process; in a stack of the kernel alone the innermost of o2fence's modules.
// -1 for an empty stack. Main is the base name of the program's binary.
func Blame(stack []Frame, main string) int {
	library, process := -1, -1
	for i, f := range stack {
		switch {
		case f.Kernel:
			continue
		case f.Standard():
			if f.Package() != "runtime" {
				library = i
			}
		case f.Go, f.Module == main && main != "" && !strings.HasPrefix(f.Func, "<"):
			return i
		}
		if process < 0 {
			process = i
		}
	}
	if library >= 0 {
		return library
	}
	if process >= 0 {
		return process
	}
	for i, f := range stack {
		if strings.HasPrefix(f.Module, "o2fence") {
			return i
		}
	}
	return min(0, len(stack)-1)
}
