// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// The picture's measures, in its own units.
const (
	width    = 1000
	left     = 130.0 // of the time axis
	right    = 960.0
	barTop   = 150.0
	barApart = 150.0
	barHigh  = 34.0
	rowHigh  = 16.0 // of a step's label
)

// Colours that differ in lightness too.
const (
	colourWork  = "#2f7d4f"
	colourStall = "#c8553d"
	colourAlive = "#8a8f98"
	colourOff   = "#24292f"
	colourText  = "#24292f"
	colourFaint = "#6a737d"
)

// A picture draws on one time axis, seconds from the freeze.
type picture struct {
	bytes.Buffer
	from, to float64
}

// timeline draws the two runs one above the other: when the writer worked and when it stood still,
// and what happened meanwhile.
func timeline(r *report, stock, fenced *play) []byte {
	p := &picture{from: -3, to: math.Ceil(r.Stock.Stall/5)*5 + 3}
	bottom := barTop + barApart + barHigh + 36 + rowHigh*float64(len(fenced.steps))
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" font-family="Helvetica, Arial, sans-serif" fill="%s">`+"\n", width, bottom+50, colourText)
	fmt.Fprintf(p, `<rect width="%d" height="%.0f" fill="white"/>`+"\n", width, bottom+50)
	p.text(30, 40, 22, "start", colourText, "A node hangs while it holds a lock that another one waits for")
	p.text(30, 66, 14, "start", colourFaint, fmt.Sprintf("It stands still for %.1f s on stock OCFS2, for %.1f s with o2fence: %.1f times less. %d heartbeats missed, Linux %s.",
		r.Stock.Stall, r.O2fence.Stall, r.Ratio, r.Missed, r.Kernel))
	p.axis(barTop-40, bottom)
	p.run(barTop, "stock OCFS2", stock)
	p.run(barTop+barApart, "with o2fence", fenced)
	p.legend(bottom + 32)
	p.WriteString("</svg>\n")
	return p.Bytes()
}

func (p *picture) x(seconds float64) float64 {
	return left + (right-left)*(seconds-p.from)/(p.to-p.from)
}

func (p *picture) text(x, y, size float64, anchor, colour, s string) {
	fmt.Fprintf(p, `<text x="%.1f" y="%.1f" font-size="%.0f" text-anchor="%s" fill="%s">%s</text>`+"\n",
		x, y, size, anchor, colour, html.EscapeString(s))
}

func (p *picture) bar(from, to, y, high float64, colour string) {
	fmt.Fprintf(p, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n",
		p.x(from), y, math.Max(p.x(to)-p.x(from), 1), high, colour)
}

func (p *picture) axis(top, bottom float64) {
	for s := 0.0; s <= p.to; s += 10 {
		fmt.Fprintf(p, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#e1e4e8"/>`+"\n", p.x(s), top, p.x(s), bottom)
		p.text(p.x(s), top-8, 12, "middle", colourFaint, fmt.Sprintf("%.0f s", s))
	}
	fmt.Fprintf(p, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="1.5" stroke-dasharray="4 3"/>`+"\n",
		p.x(0), top, p.x(0), bottom, colourOff)
	p.text(p.x(0)+5, top+12, 12, "start", colourText, "the node hangs")
}

// run draws the writer's bar, the frozen node's bar below it, and a flag for each step.
func (p *picture) run(y float64, title string, r *play) {
	stall, _ := r.since("stall")
	p.text(30, y+14, 14, "start", colourText, title)
	p.text(30, y+31, 11, "start", colourFaint, "the writer")
	p.bar(p.from, 0, y, barHigh, colourWork)
	p.bar(0, stall, y, barHigh, colourStall)
	p.bar(stall, p.to, y, barHigh, colourWork)
	label := fmt.Sprintf("stands still for %.1f s", stall)
	if p.x(stall)-p.x(0) < 200 {
		label = fmt.Sprintf("%.1f s", stall)
	}
	p.text((p.x(0)+p.x(stall))/2, y+22, 14, "middle", "white", label)
	p.victim(y+barHigh+6, r)
	p.flags(y+barHigh+24, r)
}

// victim shows when the frozen node could still have woken up and written.
func (p *picture) victim(y float64, r *play) {
	p.text(30, y+10, 11, "start", colourFaint, "the frozen node")
	off, ok := r.since("power_off")
	if !ok {
		p.bar(0, p.to, y, 12, colourAlive)
		p.text(p.x(p.to)-6, y+10, 11, "end", "white", "could wake up and write at any time")
		return
	}
	p.bar(0, off, y, 12, colourAlive)
	p.bar(off, p.to, y, 12, colourOff)
	p.text(p.x(p.to)-6, y+10, 11, "end", "white", "proven off")
}

// flags label the steps, each on a line of its own and all beside the last, so that none covers
// another; where there is no room on that side, beside the first.
func (p *picture) flags(y float64, r *play) {
	steps := r.ordered()
	at := func(i int) float64 { return p.x(steps[i].at.Sub(r.freeze).Seconds()) }
	labels, anchor := at(len(steps)-1)+14, "start"
	if labels > 700 {
		labels, anchor = at(0)-14, "end"
	}
	for i, s := range steps {
		low := y + rowHigh*float64(i+1)
		fmt.Fprintf(p, `<path d="M%.1f %.1f V%.1f H%.1f" fill="none" stroke="%s" stroke-width="0.7"/>`+"\n",
			at(i), y-4, low-4, labels, colourFaint)
		label := fmt.Sprintf("%.2f s  %s", s.at.Sub(r.freeze).Seconds(), meaning(s.name))
		if anchor == "start" {
			p.text(labels+4, low, 12, anchor, colourText, label)
		} else {
			p.text(labels-4, low, 12, anchor, colourText, label)
		}
	}
}

func (p *picture) legend(y float64) {
	x := left
	for _, l := range []struct{ colour, what string }{
		{colourWork, "the writer works"},
		{colourStall, "it waits for the lock"},
		{colourAlive, "the node is frozen, but alive"},
		{colourOff, "its power is off"},
	} {
		fmt.Fprintf(p, `<rect x="%.1f" y="%.1f" width="14" height="14" fill="%s"/>`+"\n", x, y-12, l.colour)
		p.text(x+20, y, 12, "start", colourText, l.what)
		x += 200
	}
}
