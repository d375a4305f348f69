// SPDX-License-Identifier: GPL-2.0-only

package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestASummaryHasTimesThatWereMeasured(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i)*time.Millisecond)
	}
	for _, c := range []struct {
		times []time.Duration
		want  Summary
	}{
		{nil, Summary{}},
		{hundred[:1], Summary{100, 100, 100}},
		{[]time.Duration{3 * time.Millisecond, time.Millisecond}, Summary{1, 3, 3}},
		{hundred, Summary{50, 99, 100}},
	} {
		if got := Summarize(c.times, time.Millisecond); got != c.want {
			t.Errorf("%d times: %v, want %v", len(c.times), got, c.want)
		}
	}
	if hundred[0] != 100*time.Millisecond {
		t.Error("the times were sorted in place")
	}
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0416: "0.0416", 1.2: "1.20", 34.56: "34.6", 345.6: "346", 6789: "6,790", 1234567: "1,230,000", 0.00001234: "1.23e-05",
	} {
		if got := Number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

func figure() *Figure {
	return &Figure{
		Title: "Fences & their cost", Notes: []string{"one line"}, Unit: "ms",
		RowsTitle: "one at a time",
		Rows: []Row{
			{"bridge", "alone", Summary{0.5, 1, 2}},
			{"bridge", "under pressure", Summary{0.6, 1.5, 3456}},
			{"nothing <measured>", "", Summary{}},
		},
		Growth: &Growth{Title: "growth", XName: "nodes", Lines: []Line{
			{"bridge", []Point{{1, 1}, {254, 100}}}, {"agent", []Point{{1, 10}, {16, 50}, {254, 101}}}, {"short", []Point{{1, 100}}},
		}},
	}
}

func TestATableShowsEveryFigure(t *testing.T) {
	var b strings.Builder
	figure().Print(&b)
	for _, row := range []string{
		`bridge +│ alone +│ +0\.500 │ +1\.00 │ +2\.00 `, ` +│ under pressure │ +0\.600 │ +1\.50 │ +3,460 `,
		`bridge │ +1\.00 │ +│ +100 `, `agent +│ +10\.0 │ +50\.0 │ +101 `,
	} {
		if !regexp.MustCompile(row).MatchString(b.String()) {
			t.Errorf("no %q in\n%s", row, b.String())
		}
	}
}

func TestAPictureIsXMLWithoutImpossibleNumbers(t *testing.T) {
	for what, f := range map[string]*Figure{
		"all":     figure(),
		"rows":    {Rows: figure().Rows},
		"growth":  {Growth: figure().Growth},
		"nothing": {},
		"one":     {Growth: &Growth{Lines: []Line{{"x", []Point{{1, 1}}}, {"y", nil}}}},
	} {
		svg := string(f.SVG())
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%s: a number that is none:\n%s", what, svg)
		}
	}
}

func TestNamesOfLinesDoNotCoverEachOther(t *testing.T) {
	var at []float64
	for _, m := range regexp.MustCompile(`<text x="737.0" y="([0-9.]+)"[^>]*>(?:bridge|agent)<`).FindAllStringSubmatch(string(figure().SVG()), -1) {
		y, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, y)
	}
	if len(at) != 2 || at[1]-at[0] < labelHigh-1 {
		t.Errorf("names at %v", at)
	}
}
