// SPDX-License-Identifier: GPL-2.0-only

package symbol

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// own is this very process.
func own(t *testing.T) *Process {
	t.Helper()
	p, err := NewCache().Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAGoAddressIsItsFunctionFileAndLine(t *testing.T) {
	pc, file, line, _ := runtime.Caller(0)
	got := own(t).Frame(uint64(pc), false)
	want := Frame{
		Func: "github.com/o2fence/o2fence/bpf/symbol.TestAGoAddressIsItsFunctionFileAndLine",
		File: file, Line: line, Module: own(t).Name, Go: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A binary of C with everything: symbols and lines. Its own addresses are those of the file.
func TestAnAddressOfAnotherLanguageIsFoundBySymbolAndDWARF(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("it needs gcc")
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.c"), filepath.Join(dir, "main")
	if err := os.WriteFile(source, []byte("int main(void)\n{\n\treturn 0;\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-g", "-no-pie", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := readImage("main", f)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range m.symbols {
		if s.Name == "main" {
			want := Frame{Func: "main", File: source, Line: 2, Module: "main"}
			if diff := cmp.Diff(want, m.frame(s.Value)); diff != "" {
				t.Error(diff)
			}
			return
		}
	}
	t.Error("it has no symbol main")
}

func TestAnUnknownAddressIsShownAsItIs(t *testing.T) {
	if got := own(t).Frame(0x10, true).Func; got != "<0x10>" {
		t.Error(got)
	}
}

func TestAProcessThatHasEndedIsAnError(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := NewCache().Process(cmd.Process.Pid); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// Tests are linked without DWARF, so another program has to show that it is found.
func TestTheRuntimeOfAGoProgramIsFoundByItsDWARF(t *testing.T) {
	program := filepath.Join(t.TempDir(), "guest")
	if out, err := exec.Command("go", "build", "-o", program, "../../test/guest").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := readImage("guest", f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.goLayout()
	if err != nil {
		t.Fatal(err)
	}
	// gobuf begins with sp and pc, and the g's own thread-local word is the one below the FS base.
	if got.TLS != -8 || got.SchedPC != got.SchedSP+8 || got.SchedBP <= got.SchedPC || got.GM == 0 || got.MCurg == 0 {
		t.Errorf("%+v", got)
	}
}

const kallsyms = `0000000000001000 A cpu_number
ffffffff81000000 T _text
ffffffff81000100 t do_it
ffffffff82000000 d data
ffffffffc0000000 t o2fence_tell	[o2fence]
`

func TestAKernelAddressIsItsFunctionAndModule(t *testing.T) {
	k, err := ParseKernel(strings.NewReader(kallsyms))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, address := range []uint64{0xffffffff81000000, 0xffffffff810000ff, 0xffffffff81000100, 0xffffffffc0000012, 0x10} {
		got = append(got, k.Frame(address).String())
	}
	want := []string{"_text", "_text", "do_it", "o2fence_tell [o2fence]", "<0x10>"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHiddenKernelAddressesAreAnError(t *testing.T) {
	_, err := ParseKernel(strings.NewReader("0000000000000000 T _text\n0000000000000000 t do_it\n"))
	if !errors.Is(err, ErrHidden) {
		t.Error(err)
	}
}

func TestTheInnermostLineOfTheProgramIsToBlame(t *testing.T) {
	kernel := Frame{Func: "kmalloc", Kernel: true}
	module := Frame{Func: "o2fence_tell", Module: "o2fence", Kernel: true}
	mmap := Frame{Func: "runtime.sysMmap", Go: true}
	write := Frame{Func: "os.(*File).Write", Go: true}
	lookup := Frame{Func: "net.(*Resolver).lookupIPAddr.func1", Go: true}
	goexit := Frame{Func: "runtime.goexit", Go: true}
	program := Frame{Func: "main.log", Go: true}
	dependency := Frame{Func: "example.org/snmp.(*Conn).Get", Go: true}
	libc := Frame{Func: "malloc", Module: "libc.so.6"}
	c := Frame{Func: "log_line", Module: "daemon"}
	for _, test := range []struct {
		name  string
		stack []Frame
		want  Frame
	}{
		{"the program behind the standard library", []Frame{kernel, mmap, write, program, goexit}, program},
		{"a dependency before the program", []Frame{kernel, mmap, dependency, program, goexit}, dependency},
		{"what a goroutine of the library is for", []Frame{kernel, mmap, write, lookup, goexit}, lookup},
		{"the runtime by itself", []Frame{kernel, mmap, goexit}, mmap},
		{"the binary behind a library", []Frame{kernel, libc, c}, c},
		{"a library without callers", []Frame{kernel, libc}, libc},
		{"a module of o2fence", []Frame{kernel, module, kernel}, module},
		{"the kernel alone", []Frame{kernel, {Func: "kthread", Kernel: true}}, kernel},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.stack[Blame(test.stack, "daemon")]; got != test.want {
				t.Errorf("%v", got)
			}
		})
	}
	if got := Blame(nil, "daemon"); got != -1 {
		t.Errorf("an empty stack: %d", got)
	}
}

func TestAPackageIsTakenFromTheName(t *testing.T) {
	for name, want := range map[string]string{
		"main.main": "main",
		"github.com/o2fence/o2fence/bridge/kernel.(*Bridge).Fenced": "github.com/o2fence/o2fence/bridge/kernel",
		"gopkg.in/yaml%2ev3.Unmarshal":                              "gopkg.in/yaml%2ev3",
		"slices.Sort[go.shape.[]github.com/a/b.T]":                  "slices",
	} {
		if got := (Frame{Func: name, Go: true}).Package(); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
