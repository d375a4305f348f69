// SPDX-License-Identifier: GPL-2.0-only

package plot

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
)

// The picture's measures, in its own units.
const (
	width      = 1000.0
	margin     = 30.0
	namesRight = 250.0 // of the rows' names
	axisRight  = 745.0 // of the rows' scale; the figures are beside it
	rowHigh    = 26.0
	groupApart = 16.0
	growthHigh = 320.0
	growthLeft = 100.0
	labelHigh  = 17.0
)

// figureColumns are where the figures of p50, p99 and max end.
var figureColumns = []float64{818, 892, 970}

// Colours that differ in lightness too; the first one is for what the benchmark is about.
var colours = []string{"#1f6f4a", "#2b6cb0", "#c8553d", "#8a5aa8", "#b7791f", "#5f6a75", "#0f8b8d", "#a83268"}

const (
	colourText  = "#24292f"
	colourFaint = "#6a737d"
	colourGrid  = "#e4e7eb"
)

// A drawing is a Figure that becomes a picture, from top to bottom.
type drawing struct {
	bytes.Buffer
	figure *Figure
	y      float64
	names  []string // in the order of their colours
}

// SVG draws the figure: a row for each distribution, with its figures beside it, and below them the
// curves, each with its name at its end.
func (f *Figure) SVG() []byte {
	d := &drawing{figure: f, y: 42}
	d.title()
	if len(f.Rows) > 0 {
		d.rows()
	}
	if f.Growth != nil {
		d.growth()
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="Helvetica, Arial, sans-serif" fill="%s">`+"\n", width, d.y, colourText)
	fmt.Fprintf(&out, `<rect width="%.0f" height="%.0f" fill="white"/>`+"\n", width, d.y)
	out.Write(d.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func (d *drawing) text(x, y, size float64, anchor, colour, s string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" font-size="%.0f" text-anchor="%s" fill="%s">%s</text>`+"\n",
		x, y, size, anchor, colour, html.EscapeString(s))
}

func (d *drawing) line(x1, y1, x2, y2, wide float64, colour string) {
	fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%.1f"/>`+"\n",
		x1, y1, x2, y2, colour, wide)
}

func (d *drawing) dot(x, y, radius float64, colour string) {
	fmt.Fprintf(d, `<circle cx="%.1f" cy="%.1f" r="%.1f" fill="%s"/>`+"\n", x, y, radius, colour)
}

// colour is always the same one for a name.
func (d *drawing) colour(name string) string {
	i := slices.Index(d.names, name)
	if i < 0 {
		i = len(d.names)
		d.names = append(d.names, name)
	}
	return colours[i%len(colours)]
}

func (d *drawing) title() {
	d.text(margin, d.y, 22, "start", colourText, d.figure.Title)
	for _, note := range d.figure.Notes {
		d.y += 20
		d.text(margin, d.y, 14, "start", colourFaint, note)
	}
	d.y += 16
}

// A scale is a logarithmic axis over whole decades.
type scale struct {
	low, high float64 // powers of ten
	from, to  float64 // in the picture
}

func newScale(from, to float64, values ...float64) scale {
	values = slices.DeleteFunc(values, func(v float64) bool { return v <= 0 })
	if len(values) == 0 {
		values = []float64{1}
	}
	s := scale{math.Floor(math.Log10(slices.Min(values))), math.Ceil(math.Log10(slices.Max(values))), from, to}
	s.high = max(s.high, s.low+1)
	return s
}

func (s scale) at(v float64) float64 {
	return s.from + (s.to-s.from)*(math.Log10(v)-s.low)/(s.high-s.low)
}

// decades calls draw for each power of ten.
func (s scale) decades(draw func(at float64, label string)) {
	for e := s.low; e <= s.high; e++ {
		v := math.Pow(10, e)
		draw(s.at(v), count(v))
	}
}

// rows draws for each row a thick line from p50 to p99 and a thin one from there to the maximum.
func (d *drawing) rows() {
	f := d.figure
	d.y += 24
	d.text(margin, d.y, 15, "start", colourText, fmt.Sprintf("%s, in %s", f.RowsTitle, f.Unit))
	d.y += 26
	top, bottom := d.y, d.y+8
	for i := range f.Rows {
		bottom += d.rowStep(i)
	}
	var values []float64
	for _, r := range f.Rows {
		values = append(values, r.P50, r.Max)
	}
	s := newScale(namesRight+20, axisRight-20, values...)
	s.decades(func(x float64, label string) {
		d.line(x, top, x, bottom, 1, colourGrid)
		d.text(x, top-6, 12, "middle", colourFaint, label)
	})
	for i, head := range []string{"p50", "p99", "max"} {
		d.text(figureColumns[i], top-6, 12, "end", colourFaint, head)
	}
	for i, r := range f.Rows {
		d.y += d.rowStep(i)
		d.row(s, r, i == 0 || f.Rows[i-1].Name != r.Name)
	}
	d.y = bottom + 22
	d.text((s.from+s.to)/2, d.y-4, 12, "middle", colourFaint,
		"● p50   ▬ to p99   ─ to the slowest")
	d.y += 16
}

// rowStep is how far row i is below the one before it.
func (d *drawing) rowStep(i int) float64 {
	rows := d.figure.Rows
	if i > 0 && rows[i-1].Name != rows[i].Name {
		return rowHigh + groupApart
	}
	return rowHigh
}

func (d *drawing) row(s scale, r Row, first bool) {
	colour := d.colour(r.Name)
	y := d.y - 5
	if first {
		d.text(margin, d.y, 14, "start", colour, r.Name)
	}
	if first && r.Note != "" && !d.grouped(r.Name) {
		d.text(margin, d.y+15, 11, "start", colourFaint, r.Note)
	} else if r.Note != "" {
		d.text(namesRight, d.y, 12, "end", colourFaint, r.Note)
	}
	if r.P50 > 0 {
		d.line(s.at(r.P50), y, s.at(r.Max), y, 1.5, colour)
		d.line(s.at(r.Max), y-5, s.at(r.Max), y+5, 1.5, colour)
		d.line(s.at(r.P50), y, s.at(r.P99), y, 7, colour)
		d.dot(s.at(r.P50), y, 7, colour)
	}
	for i, v := range []float64{r.P50, r.P99, r.Max} {
		d.text(figureColumns[i], d.y, 14, "end", colourText, Number(v))
	}
}

// grouped tells whether a name has more than one row; the notes of those stand beside them.
func (d *drawing) grouped(name string) bool {
	n := 0
	for _, r := range d.figure.Rows {
		if r.Name == name {
			n++
		}
	}
	return n > 1
}

func (d *drawing) growth() {
	g := d.figure.Growth
	d.y += 24
	d.text(margin, d.y, 15, "start", colourText, fmt.Sprintf("%s, in %s", g.Title, d.figure.Unit))
	top := d.y + 18
	bottom := top + growthHigh
	var ys []float64
	for _, l := range g.Lines {
		for _, p := range l.Points {
			ys = append(ys, p.Y)
		}
	}
	places := g.places()
	x := newScale(growthLeft, axisRight-20, places...)
	if len(places) > 1 { // they end where the last point is
		x.low, x.high = math.Log10(places[0]), math.Log10(places[len(places)-1])
	}
	y := newScale(bottom, top, ys...)
	y.decades(func(at float64, label string) {
		d.line(growthLeft, at, axisRight-20, at, 1, colourGrid)
		d.text(growthLeft-10, at+4, 12, "end", colourFaint, label)
	})
	for _, place := range places {
		d.line(x.at(place), bottom, x.at(place), bottom+5, 1, colourFaint)
		d.text(x.at(place), bottom+20, 12, "middle", colourFaint, count(place))
	}
	d.text((x.from+x.to)/2, bottom+40, 12, "middle", colourFaint, g.XName)
	d.lines(x, y)
	d.y = bottom + 60
}

// lines draws the curves, each with its name at its end.
func (d *drawing) lines(x, y scale) {
	type label struct {
		name string
		x, y float64
	}
	var labels []label
	for _, l := range d.figure.Growth.Lines {
		colour := d.colour(l.Name)
		var path bytes.Buffer
		for _, p := range l.Points {
			fmt.Fprintf(&path, "%.1f,%.1f ", x.at(p.X), y.at(p.Y))
			d.dot(x.at(p.X), y.at(p.Y), 4, colour)
		}
		fmt.Fprintf(d, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2.5"/>`+"\n", path.String(), colour)
		if n := len(l.Points); n > 0 {
			last := l.Points[n-1]
			labels = append(labels, label{l.Name, x.at(last.X) + 12, y.at(last.Y)})
		}
	}
	// Names that would cover each other are pushed apart.
	slices.SortFunc(labels, func(a, b label) int { return cmp.Or(cmp.Compare(a.x, b.x), cmp.Compare(a.y, b.y)) })
	for i, l := range labels {
		if i > 0 && labels[i-1].x == l.x {
			l.y = max(l.y, labels[i-1].y+labelHigh)
			labels[i] = l
		}
		d.text(l.x, l.y+4, 13, "start", d.colour(l.name), l.name)
	}
}
