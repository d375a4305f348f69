// SPDX-License-Identifier: GPL-2.0-only

package bpf

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// signatures are what the programs rely on: each tracepoint's arguments, as 6.1 and its successors
// have them.
var signatures = []struct {
	name string
	args []string
}{
	{"mm_page_alloc", []string{"*page", "unsigned int", "gfp_t"}},
	{"kmalloc", []string{"long unsigned int", "*void", "size_t", "size_t", "gfp_t"}},
	{"kmem_cache_alloc", []string{"long unsigned int", "*void", "*kmem_cache", "gfp_t"}},
	{"page_fault_user", []string{"long unsigned int"}},
	{"page_fault_kernel", []string{"long unsigned int"}},
	{"mm_vmscan_direct_reclaim_begin", []string{"int", "gfp_t"}},
	{"mm_compaction_try_to_compact_pages", []string{"int", "gfp_t"}},
	{"sys_enter", []string{"*pt_regs", "long int"}},
	{"sched_switch", []string{"bool", "*task_struct", "*task_struct", "unsigned int"}},
	{"sched_wakeup", []string{"*task_struct"}},
	{"sched_process_fork", []string{"*task_struct", "*task_struct"}},
	{"sched_process_exec", []string{"*task_struct", "int", "*linux_binprm"}},
	{"sched_process_exit", []string{"*task_struct"}},
}

// checkKernel says what this kernel lacks, in better words than the verifier would.
func checkKernel() error {
	if os.Geteuid() != 0 {
		return ErrPermission
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoBTF, err)
	}
	return checkTracepoints(types)
}

func checkTracepoints(types *btf.Spec) error {
	for _, s := range signatures {
		got, err := arguments(types, s.name)
		if err != nil {
			return err
		}
		if len(got) < len(s.args) || !slices.Equal(got[:len(s.args)], s.args) {
			return fmt.Errorf("%w: %s has other arguments than those of Linux 6.1 and newer: %s",
				ErrNoTracepoint, s.name, strings.Join(got, ", "))
		}
	}
	return nil
}

// arguments are a tracepoint's, without the first, which is the probe's own.
func arguments(types *btf.Spec, name string) ([]string, error) {
	var def *btf.Typedef
	if err := types.TypeByName("btf_trace_"+name, &def); err != nil {
		return nil, fmt.Errorf("%w: this kernel has no %s: %w", ErrNoTracepoint, name, err)
	}
	pointer, ok := def.Type.(*btf.Pointer)
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNoTracepoint, name)
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	if !ok || len(proto.Params) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoTracepoint, name)
	}
	var all []string
	for _, p := range proto.Params[1:] {
		all = append(all, typeName(p.Type))
	}
	return all, nil
}

func typeName(t btf.Type) string {
	switch t := t.(type) {
	case *btf.Pointer:
		return "*" + typeName(t.Target)
	case *btf.Const:
		return typeName(t.Type)
	case *btf.Void:
		return "void"
	case *btf.Typedef:
		if t.Name == "pid_t" { // newer kernels name the same argument so
			return "int"
		}
	}
	return t.TypeName()
}

// The tracepoint that windows follow.
const (
	fenceGroup = "o2fence"
	fenceName  = "o2fence_event"
)

// fenceFormat is where some fields lie in the record of o2fence's tracepoint, offsets in bytes. They
// are read because the record may grow.
func fenceFormat(fields ...string) ([]uint32, error) {
	f, err := openFormat(fenceGroup, fenceName)
	if err != nil {
		return nil, fmt.Errorf("%w; is the module o2fence loaded, and tracefs mounted on /sys/kernel/tracing?", err)
	}
	defer f.Close()
	return offsets(f, fields...)
}

// offsets reads lines such as "	field:u32 event;	offset:8;	size:4;	signed:0;".
func offsets(r io.Reader, fields ...string) ([]uint32, error) {
	known := make(map[string]uint32)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		decl, rest, ok := strings.Cut(strings.TrimPrefix(line, "field:"), ";")
		if !ok || !strings.HasPrefix(line, "field:") {
			continue
		}
		words := strings.Fields(decl)
		offset, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(rest), "offset:"), ";")
		n, err := strconv.ParseUint(offset, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("the format of %s: %q: %w", fenceName, line, err)
		}
		known[words[len(words)-1]] = uint32(n)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	var at []uint32
	for _, field := range fields {
		n, ok := known[field]
		if !ok {
			return nil, fmt.Errorf("%w: %s:%s has no field %q", ErrNoTracepoint, fenceGroup, fenceName, field)
		}
		at = append(at, n)
	}
	return at, nil
}
