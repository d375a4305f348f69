// SPDX-License-Identifier: GPL-2.0-only

// Package plot shows what a benchmark has measured, distributions of times and how they grow: as
// tables on a terminal, as a picture, and as JSON. All scales are logarithmic, so that what differs
// by orders of magnitude can be seen side by side.
package plot

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Summary is what is told of a distribution: half of it is no larger than P50, 99 of 100 are no
// larger than P99. The zero value is that of nothing measured.
type Summary struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Summarize gives the summary of times in a unit, such as time.Millisecond. Its figures are times
// that were measured, and none in between (nearest rank).
func Summarize(times []time.Duration, unit time.Duration) Summary {
	if len(times) == 0 {
		return Summary{}
	}
	sorted := slices.Sorted(slices.Values(times))
	rank := func(q float64) float64 {
		i := int(math.Ceil(q*float64(len(sorted)))) - 1
		return float64(sorted[max(i, 0)]) / float64(unit)
	}
	return Summary{P50: rank(0.5), P99: rank(0.99), Max: rank(1)}
}

// A Figure is all that one benchmark shows.
type Figure struct {
	Title string
	Notes []string // lines below it
	Unit  string   // of all times, such as "µs"

	RowsTitle string
	Rows      []Row

	Growth *Growth // nil for none
}

// A Row is one distribution. Rows of one Name that follow each other are shown as one group; a Name
// has the same colour wherever it is.
type Row struct {
	Name string // what was measured
	Note string // in which case, such as "under pressure"
	Summary
}

// A Growth shows how times grow with something else.
type Growth struct {
	Title string
	XName string // of what is counted on the x axis
	Lines []Line
}

// A Line is how one of them grows, by ascending X.
type Line struct {
	Name   string
	Points []Point
}

// A Point is one value above 0 at one place above 0.
type Point struct{ X, Y float64 }

// WriteJSON writes a result for programs, indented for people.
func WriteJSON(path string, result any) error {
	text, err := json.MarshalIndent(result, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Number has three significant digits and groups of thousands: 0.042, 1.20, 345, 67,800.
func Number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.001:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	decimals := 2 - int(math.Floor(math.Log10(v)))
	if decimals < 0 {
		unit := math.Pow10(-decimals)
		return thousands(strconv.FormatFloat(math.Round(v/unit)*unit, 'f', 0, 64))
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// count is for what is counted, and for the marks of a scale.
func count(v float64) string {
	if v == math.Trunc(v) {
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

func thousands(digits string) string {
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}
