// SPDX-License-Identifier: GPL-2.0-only

package flame

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/o2fence/o2fence/bpf/symbol"
	"github.com/o2fence/o2fence/bpf/verdict"
)

func report() *verdict.Report {
	goexit := symbol.Frame{Func: "runtime.goexit", File: "runtime/asm_amd64.s", Line: 1771, Go: true}
	act := symbol.Frame{Func: "example.org/daemon/act.Log", File: "/src/act/log.go", Line: 42, Go: true}
	write := symbol.Frame{Func: "os.(*File).Write", File: "os/file.go", Line: 195, Go: true}
	vfs := symbol.Frame{Func: "vfs_write", Kernel: true}
	tell := symbol.Frame{Func: "o2fence_tell", Module: "o2fence", Kernel: true}
	return &verdict.Report{
		Verdict: verdict.Forbidden, Reasons: []string{"3 forbidden events"}, Program: "daemon", PID: 12,
		Sites: []*verdict.Site{
			{
				Class: verdict.Forbidden, Kind: "page allocation", Count: 3, Bytes: 12288, Comm: "daemon",
				GFP: "GFP_KERNEL", Stack: []symbol.Frame{vfs, write, act, goexit},
			},
			{
				Class: verdict.Bounded, Kind: "slab allocation", Count: 2, Bytes: 6144, Comm: "daemon",
				GFP: "GFP_KERNEL", Stack: []symbol.Frame{vfs, act, goexit},
			},
			{
				Class: verdict.Bounded, Kind: "slab allocation", Count: 1, Bytes: 4096, Comm: "o2fence/1",
				GFP: "GFP_NOWAIT", Stack: []symbol.Frame{tell},
			},
			{Class: verdict.Forbidden, Kind: "page fault", Count: 9, Comm: "daemon", Stack: []symbol.Frame{act}},
		},
	}
}

// texts are the labels and titles of an SVG, which must be well-formed.
func texts(t *testing.T, svg []byte) string {
	t.Helper()
	var all []string
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return strings.Join(all, "\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		if chars, ok := token.(xml.CharData); ok {
			all = append(all, string(chars))
		}
	}
}

func TestAFrameIsAsWideAsWhatWasAllocatedInIt(t *testing.T) {
	svg := Draw(report())
	if dir := os.Getenv("O2FENCE_KEEP"); dir != "" {
		_ = os.WriteFile(dir+"/flame.svg", svg, 0o644)
	}
	got := texts(t, svg)
	for _, want := range []string{
		"act.Log log.go:42",
		"example.org/daemon/act.Log /src/act/log.go:42\n18 KiB in 5 allocations, 81.8 %",
		"page allocation, 12 KiB",
		"o2fence_tell [o2fence]\n4096 B in 1 allocations, 18.2 %",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if strings.Contains(got, "page fault") {
		t.Error("a fault is drawn, which has no size")
	}
}

func TestWhereNothingWasAllocatedThePictureSaysSo(t *testing.T) {
	if got := texts(t, Draw(&verdict.Report{Program: "daemon"})); !strings.Contains(got, "Nothing was allocated.") {
		t.Error(got)
	}
}

func TestALabelIsCutToItsFrame(t *testing.T) {
	for room, want := range map[float64]string{1000: "runtime.goexit", 60: "runtim..", 20: ""} {
		if got := fit("runtime.goexit", room); got != want {
			t.Errorf("%v: %q", room, got)
		}
	}
}
