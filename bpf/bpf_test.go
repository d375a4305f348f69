// SPDX-License-Identifier: GPL-2.0-only

package bpf

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

// As Linux 6.1 prints it, shortened.
const format61 = `print fmt: "gfp_flags=%s", (REC->gfp_flags) ? __print_flags(REC->gfp_flags, "|", ` +
	`{( unsigned long)((( gfp_t)(0x400u|0x800u)) | (( gfp_t)0x40u) | (( gfp_t)0x80u)), "GFP_KERNEL"}, ` +
	`{( unsigned long)((( gfp_t)0x20u)|(( gfp_t)0x200u)|(( gfp_t)0x800u)), "GFP_ATOMIC"}, ` +
	`{( unsigned long)(((( gfp_t)(0x400u|0x800u)) | (( gfp_t)0x2000u)) & ~(( gfp_t)(0x400u|0x800u))), "GFP_LIGHT"}, ` +
	`{( unsigned long)(( gfp_t)0x80000u), "__GFP_NOMEMALLOC"}, {( unsigned long)(( gfp_t)0x20000u), "__GFP_MEMALLOC"}, ` +
	`{( unsigned long)(( gfp_t)0x400u), "__GFP_DIRECT_RECLAIM"} ) : "none"`

// As newer ones do, where the bits have numbers that depend on the configuration.
const formatShifts = `{( unsigned long)(( gfp_t)((((1UL))) << (10))), "__GFP_DIRECT_RECLAIM"}, ` +
	`{( unsigned long)(( gfp_t)((((1UL))) << (16))), "__GFP_MEMALLOC"}, ` +
	`{( unsigned long)(( gfp_t)((((1UL))) << (18))), "__GFP_NOMEMALLOC"}`

func TestAllocationFlagsAreReadFromTheKernelsOwnTable(t *testing.T) {
	g, err := parseGFP(format61)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, gfp := range []uint32{0xcc0, 0xcc0 | 0x80000, 0xa20, 0x2000, 0, 0x1000000} {
		got = append(got, g.String(gfp))
	}
	want := []string{"GFP_KERNEL", "GFP_KERNEL|__GFP_NOMEMALLOC", "GFP_ATOMIC", "GFP_LIGHT", "0x0", "0x1000000"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if g, err = parseGFP(formatShifts); err != nil || g.reserve != 1<<16 || g.reclaim != 1<<10 || g.noReserve != 1<<18 {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestATableWithoutANeededFlagIsRefused(t *testing.T) {
	if _, err := parseGFP(strings.ReplaceAll(format61, "__GFP_MEMALLOC", "__GFP_OTHER")); !errors.Is(err, ErrNoTracepoint) {
		t.Error(err)
	}
}

func TestWhetherAnAllocationMayWaitAndUseTheReserve(t *testing.T) {
	g, err := parseGFP(format61)
	if err != nil {
		t.Fatal(err)
	}
	const kernel, atomic, memalloc, noMemalloc = 0xcc0, 0xa20, 0x20000, 0x80000
	for _, test := range []struct {
		name          string
		gfp           uint32
		flagged       bool
		wait, reserve bool
	}{
		{"an ordinary one", kernel, false, true, false},
		{"of a flagged task", kernel, true, false, true},
		{"atomic", atomic, false, false, false},
		{"that asks for the reserve", atomic | memalloc, false, false, true},
		{"that declines the reserve", atomic | noMemalloc, true, false, false},
	} {
		if got := g.MayWait(test.gfp, test.flagged); got != test.wait {
			t.Errorf("%s: may wait: %t", test.name, got)
		}
		if got := g.Reserve(test.gfp, test.flagged); got != test.reserve {
			t.Errorf("%s: may use the reserve: %t", test.name, got)
		}
	}
}

// kernelWith makes the types of a kernel that has all tracepoints but one, which it has so.
func kernelWith(t *testing.T, name string, args ...btf.Type) *btf.Spec {
	t.Helper()
	var types []btf.Type
	for _, s := range signatures {
		if s.name == name && args == nil {
			continue
		}
		proto := &btf.FuncProto{Return: &btf.Void{}, Params: []btf.FuncParam{{Type: &btf.Pointer{Target: &btf.Void{}}}}}
		for _, arg := range s.args {
			proto.Params = append(proto.Params, btf.FuncParam{Type: typeNamed(arg)})
		}
		if s.name == name {
			proto.Params = append(proto.Params[:1], btf.FuncParam{Type: args[0]})
		}
		types = append(types, &btf.Typedef{Name: "btf_trace_" + s.name, Type: &btf.Pointer{Target: proto}})
	}
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func typeNamed(name string) btf.Type {
	if target, ok := strings.CutPrefix(name, "*"); ok {
		return &btf.Pointer{Target: typeNamed(target)}
	}
	switch name {
	case "void":
		return &btf.Void{}
	case "int", "unsigned int", "long int", "long unsigned int", "bool":
		return &btf.Int{Name: name, Size: 4}
	case "size_t", "gfp_t":
		return &btf.Typedef{Name: name, Type: &btf.Int{Name: "unsigned int", Size: 4}}
	}
	return &btf.Struct{Name: name, Size: 0}
}

func TestATracepointThatIsMissingOrAnotherIsNamed(t *testing.T) {
	if err := checkTracepoints(kernelWith(t, "")); err != nil {
		t.Errorf("nothing is missing, and yet: %v", err)
	}
	err := checkTracepoints(kernelWith(t, "mm_page_alloc"))
	if !errors.Is(err, ErrNoTracepoint) || !strings.Contains(err.Error(), "no mm_page_alloc") {
		t.Errorf("missing: %v", err)
	}
	err = checkTracepoints(kernelWith(t, "page_fault_user", typeNamed("*void")))
	if !errors.Is(err, ErrNoTracepoint) || !strings.Contains(err.Error(), "page_fault_user has other arguments") {
		t.Errorf("another: %v", err)
	}
}

const fenceRecord = `name: o2fence_event
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;

	field:u32 event;	offset:8;	size:4;	signed:0;
	field:u64 request;	offset:32;	size:8;	signed:0;
`

func TestFieldsAreFoundWhereTheRecordHasThem(t *testing.T) {
	got, err := offsets(strings.NewReader(fenceRecord), "event", "request")
	if diff := cmp.Diff([]uint32{8, 32}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := offsets(strings.NewReader(fenceRecord), "attempt"); !errors.Is(err, ErrNoTracepoint) {
		t.Error(err)
	}
}

// The compiler that has generated what is committed; others make other code of the same source.
const clang = "clang version 14."

func TestGeneratedCodeIsOfThisSource(t *testing.T) {
	version, err := exec.Command("clang", "--version").Output()
	if err != nil || !strings.Contains(string(version), clang) {
		t.Skip("it needs " + clang)
	}
	// In the module, for go tool; the name keeps it out of ./...
	dir, err := os.MkdirTemp(".", "_drift")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, file := range []string{"audit.c", "event.h", "kernel.h", "gen.go"} {
		text, err := os.ReadFile(file)
		if err := errors.Join(err, os.WriteFile(filepath.Join(dir, file), text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "generate", ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, file := range []string{"audit_x86_bpfel.go", "audit_x86_bpfel.o"} {
		committed, err1 := os.ReadFile(file)
		generated, err2 := os.ReadFile(filepath.Join(dir, file))
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if string(committed) != string(generated) {
			t.Errorf("%s is not what go generate makes of the source", file)
		}
	}
}
