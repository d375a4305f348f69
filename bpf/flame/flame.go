// SPDX-License-Identifier: GPL-2.0-only

// Package flame draws who allocated, as a flame graph: each frame is as wide as what was allocated in
// it and in what it called, with callers below and the allocation itself on top.
package flame

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"slices"
	"strings"

	"github.com/o2fence/o2fence/bpf/symbol"
	"github.com/o2fence/o2fence/bpf/verdict"
)

// The picture's measures, in its own units.
const (
	width   = 1200.0
	margin  = 20.0
	top     = 84.0
	rowHigh = 18.0
	letter  = 6.7 // of the font, at its size
	least   = 0.3 // what is narrower is not drawn
)

// Colours of frames by whose code they are, and of what is on top by its class.
const (
	colourProgram   = "#f2a65a"
	colourLibrary   = "#f6d9a8"
	colourKernel    = "#a9c3dd"
	colourThread    = "#d5d8dc"
	colourForbidden = "#c8553d"
	colourBounded   = "#2f7d4f"
	colourAside     = "#8a8f98"
	colourText      = "#24292f"
	colourFaint     = "#6a737d"
)

var classColour = map[verdict.Class]string{
	verdict.Forbidden: colourForbidden, verdict.Bounded: colourBounded, verdict.Aside: colourAside,
}

// A node is one frame with all that was allocated in it.
type node struct {
	label, full, colour string
	bytes, count        uint64
	children            map[string]*node
}

func (n *node) child(label, full, colour string) *node {
	if n.children == nil {
		n.children = make(map[string]*node)
	}
	c := n.children[full+colour]
	if c == nil {
		c = &node{label: label, full: full, colour: colour}
		n.children[full+colour] = c
	}
	return c
}

func (n *node) add(s *verdict.Site) {
	n.bytes += s.Bytes
	n.count += s.Count
}

func (n *node) depth() int {
	deepest := 0
	for _, c := range n.children {
		deepest = max(deepest, c.depth())
	}
	return deepest + 1
}

// Draw makes an SVG of all allocations of pages and of slab objects in a report.
func Draw(r *verdict.Report) []byte {
	root := tree(r)
	levels := root.depth()
	high := top + rowHigh*float64(levels) + 56
	var p picture
	fmt.Fprintf(&p, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="11" fill="%s">`+"\n", width, high, colourText)
	fmt.Fprintf(&p, `<rect width="%.0f" height="%.0f" fill="white"/>`+"\n", width, high)
	p.heading(34, 20, colourText, fmt.Sprintf("Who allocated: %s (%d)", r.Program, r.PID))
	p.heading(60, 13, colourFaint, fmt.Sprintf("%s: %s", r.Verdict, strings.Join(r.Reasons, "; ")))
	if root.bytes == 0 {
		p.heading(top+rowHigh, 14, colourText, "Nothing was allocated.")
	} else {
		p.draw(root, margin, top+rowHigh*float64(levels-1), (width-2*margin)/float64(root.bytes), root.bytes)
	}
	p.legend(high - 18)
	p.WriteString("</svg>\n")
	return p.Bytes()
}

func tree(r *verdict.Report) *node {
	root := &node{label: "all", full: "all", colour: colourThread}
	for _, s := range r.Sites {
		if s.Bytes == 0 || !strings.HasSuffix(s.Kind, "allocation") {
			continue
		}
		root.add(s)
		n := root.child(s.Comm, "thread "+s.Comm, colourThread)
		n.add(s)
		for _, f := range slices.Backward(s.Stack) {
			n = n.child(short(f), f.String(), colour(f))
			n.add(s)
		}
		n = n.child(s.Kind, fmt.Sprintf("%s, %s: %s, %s", s.Kind, s.Class, s.Why, s.GFP), classColour[s.Class])
		n.add(s)
	}
	return root
}

func colour(f symbol.Frame) string {
	switch {
	case f.Kernel:
		return colourKernel
	case f.Standard(), !f.Go:
		return colourLibrary
	}
	return colourProgram
}

// short leaves out the path of a package: "dispatch.(*worker).run dispatch.go:91".
func short(f symbol.Frame) string {
	if pkg := f.Package(); pkg != "" {
		place := f.Place()
		return f.Func[strings.LastIndexByte(pkg, '/')+1:] + " " + place[strings.LastIndexByte(place, '/')+1:]
	}
	return f.String()
}

type picture struct{ bytes.Buffer }

func (p *picture) heading(y, size float64, colour, text string) {
	fmt.Fprintf(p, `<text x="%.1f" y="%.1f" font-family="Helvetica, Arial, sans-serif" font-size="%.0f" fill="%s">%s</text>`+"\n",
		margin, y, size, colour, html.EscapeString(text))
}

// draw draws a node at x, y and its children above it, the widest first.
func (p *picture) draw(n *node, x, y, scale float64, all uint64) {
	w := float64(n.bytes) * scale
	if w < least {
		return
	}
	ink := colourText
	if n.colour == colourForbidden || n.colour == colourBounded || n.colour == colourAside {
		ink = "white"
	}
	fmt.Fprintf(p, `<g><title>%s&#10;%s in %d allocations, %.1f %%</title><rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5" fill="%s" stroke="white" stroke-width="0.6"/>`,
		html.EscapeString(n.full), size(n.bytes), n.count, 100*float64(n.bytes)/float64(all), x, y, w, rowHigh, n.colour)
	label := n.label
	if n.children == nil {
		label = fmt.Sprintf("%s, %s", n.label, size(n.bytes))
	}
	if text := fit(label, w-6); text != "" {
		fmt.Fprintf(p, `<text x="%.1f" y="%.1f" fill="%s">%s</text>`, x+3, y+rowHigh-5, ink, html.EscapeString(text))
	}
	p.WriteString("</g>\n")
	children := make([]*node, 0, len(n.children))
	for _, c := range n.children {
		children = append(children, c)
	}
	slices.SortFunc(children, func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.full, b.full))
	})
	for _, c := range children {
		p.draw(c, x, y-rowHigh, scale, all)
		x += float64(c.bytes) * scale
	}
}

// fit cuts a label to a width; of what has room for a few letters only, nothing is left.
func fit(label string, room float64) string {
	letters := int(room / letter)
	if letters >= len(label) {
		return label
	}
	if letters < 4 {
		return ""
	}
	return label[:letters-2] + ".."
}

func size(bytes uint64) string {
	if bytes < 10<<10 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%d KiB", bytes>>10)
}

func (p *picture) legend(y float64) {
	x := margin
	for _, l := range []struct{ colour, what string }{
		{colourForbidden, "forbidden"},
		{colourBounded, "bounded"},
		{colourAside, "not judged"},
		{colourKernel, "the kernel"},
		{colourProgram, "the program"},
		{colourLibrary, "its libraries"},
		{colourThread, "thread"},
	} {
		fmt.Fprintf(p, `<rect x="%.1f" y="%.1f" width="12" height="12" fill="%s"/>`+"\n", x, y-10, l.colour)
		fmt.Fprintf(p, `<text x="%.1f" y="%.1f">%s</text>`+"\n", x+18, y, l.what)
		x += 130
	}
}
