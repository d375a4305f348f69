// SPDX-License-Identifier: GPL-2.0-only

package bpf

import (
	"errors"
	"fmt"
	"go/constant"
	"go/token"
	"go/types"
	"io"
	"os"
	"regexp"
	"strings"
)

// A GFP knows the names of allocation flags in the running kernel: their bits change from one release
// to the next.
type GFP struct {
	names                       []gfpName
	reclaim, reserve, noReserve uint32
}

type gfpName struct {
	bits uint32
	name string
}

// ReadGFP reads them from the format of a tracepoint. The error wraps ErrNoTracepoint.
func ReadGFP() (*GFP, error) {
	f, err := openFormat("kmem", "mm_page_alloc")
	if err != nil {
		return nil, fmt.Errorf("bpf: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("bpf: %w", err)
	}
	return ParseGFP(string(text))
}

// ParseGFP reads them from the text of that format.
func ParseGFP(format string) (*GFP, error) {
	g, err := parseGFP(format)
	if err != nil {
		return nil, fmt.Errorf("bpf: %w", err)
	}
	return g, nil
}

// String is as the kernel prints it: "GFP_KERNEL|__GFP_ZERO".
func (g *GFP) String(gfp uint32) string {
	var words []string
	for _, n := range g.names {
		if n.bits != 0 && gfp&n.bits == n.bits {
			words = append(words, n.name)
			gfp &^= n.bits
		}
	}
	if gfp != 0 || len(words) == 0 {
		words = append(words, fmt.Sprintf("%#x", gfp))
	}
	return strings.Join(words, "|")
}

// Reserve tells whether an allocation may use the reserve, made by a task that is flagged or not.
func (g *GFP) Reserve(gfp uint32, flagged bool) bool {
	return (flagged || gfp&g.reserve != 0) && gfp&g.noReserve == 0
}

// MayWait tells whether an allocation may wait for memory, made by a task that is flagged or not.
func (g *GFP) MayWait(gfp uint32, flagged bool) bool {
	return !flagged && gfp&g.reclaim != 0 && gfp&g.reserve == 0
}

var (
	gfpEntry = regexp.MustCompile(`\{([^{}"]+), "(_*GFP_[A-Z_0-9]+)"\}`)
	cast     = regexp.MustCompile(`\(\s*(?:gfp_t|unsigned long|unsigned int)\s*\)`)
	suffix   = regexp.MustCompile(`\b(0x[0-9a-fA-F]+|[0-9]+)[uUlL]+\b`)
)

// parseGFP reads the table that the kernel prints flags by. Its values are expressions, of C: without
// their casts and suffixes they are Go's as well.
func parseGFP(format string) (*GFP, error) {
	g := new(GFP)
	needed := map[string]*uint32{
		"__GFP_DIRECT_RECLAIM": &g.reclaim, "__GFP_MEMALLOC": &g.reserve, "__GFP_NOMEMALLOC": &g.noReserve,
	}
	for _, entry := range gfpEntry.FindAllStringSubmatch(format, -1) {
		expr := suffix.ReplaceAllString(cast.ReplaceAllString(entry[1], ""), "$1")
		value, err := types.Eval(token.NewFileSet(), nil, token.NoPos, strings.ReplaceAll(expr, "~", "^"))
		if err != nil {
			return nil, fmt.Errorf("%w: the flag %s in the format of mm_page_alloc: %w", ErrNoTracepoint, entry[2], err)
		}
		var bits uint64
		ok := value.Value != nil && value.Value.Kind() == constant.Int
		if ok {
			bits, ok = constant.Uint64Val(value.Value)
		}
		if !ok {
			return nil, fmt.Errorf("%w: the flag %s in the format of mm_page_alloc: %s", ErrNoTracepoint, entry[2], entry[1])
		}
		g.names = append(g.names, gfpName{uint32(bits), entry[2]})
		if to := needed[entry[2]]; to != nil {
			*to = uint32(bits)
		}
	}
	for name, to := range needed {
		if *to == 0 {
			return nil, fmt.Errorf("%w: mm_page_alloc has no flag %s in its format", ErrNoTracepoint, name)
		}
	}
	return g, nil
}

// openFormat opens the description of a tracepoint's record.
func openFormat(group, name string) (f *os.File, err error) {
	for _, dir := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		f, err = os.Open(dir + "/events/" + group + "/" + name + "/format")
		if !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s:%s: %w", ErrNoTracepoint, group, name, err)
	}
	return f, nil
}
