// SPDX-License-Identifier: GPL-2.0-only
//go:build ignore

/*
 * audit.c - what a process, and o2fence's threads in the kernel, ask of it during a fence
 *
 * The problem: "it does not wait for memory" can only be shown by seeing each place where it could.
 * These are the kernel's own tracepoints, by their BTF types; nothing is patched or probed.
 *
 * The rule: what is not recorded is counted as lost. An event is dropped for no other reason than
 * that it is not ours, or no window is open. A window is open from the INITIATED of the first
 * request under way to the end of the last one's attempt, or while user space forces it to be.
 *
 * The races: a tracepoint runs in the task that it is about, with preemption off, except
 * sched_wakeup, which runs in the waker. A wait is stored by the sleeper and sent by the waker, which
 * the scheduler orders: a task is woken only after it is off the CPU.
 */

#include "event.h"

char LICENSE[] SEC("license") = "GPL";

SEC("tp_btf/mm_page_alloc")
int BPF_PROG(on_pages, void *page, unsigned int order, unsigned int gfp)
{
	return record(ctx, KIND_PAGES, PAGE_BYTES << (order & 31), gfp);
}

SEC("tp_btf/kmalloc")
int BPF_PROG(on_kmalloc, unsigned long site, const void *ptr, __u64 asked, __u64 bytes,
	     unsigned int gfp)
{
	return record(ctx, KIND_SLAB, bytes, gfp);
}

SEC("tp_btf/kmem_cache_alloc")
int BPF_PROG(on_cache, unsigned long site, const void *ptr, struct kmem_cache *cache,
	     unsigned int gfp)
{
	return record(ctx, KIND_SLAB, cache->size, gfp);
}

SEC("tp_btf/page_fault_user")
int BPF_PROG(on_user_fault, unsigned long address)
{
	return record(ctx, KIND_FAULT, address, 0);
}

/* With faults disabled the access fails, and nothing is allocated. Reading stacks here does that. */
SEC("tp_btf/page_fault_kernel")
int BPF_PROG(on_kernel_fault, unsigned long address)
{
	if (bpf_get_current_task_btf()->pagefault_disabled)
		return 0;
	return record(ctx, KIND_FAULT, address, 0);
}

SEC("tp_btf/mm_vmscan_direct_reclaim_begin")
int BPF_PROG(on_reclaim, int order, unsigned int gfp)
{
	return record(ctx, KIND_RECLAIM, order, gfp);
}

SEC("tp_btf/mm_compaction_try_to_compact_pages")
int BPF_PROG(on_compaction, int order, unsigned int gfp)
{
	return record(ctx, KIND_RECLAIM, order, gfp);
}

static __always_inline bool is_regular(struct task_struct *task, __u32 fd)
{
	struct fdtable *table = task->files->fdt;
	struct file *file = NULL;

	if (fd >= table->max_fds)
		return false;
	bpf_probe_read_kernel(&file, sizeof(file), table->fd + fd);
	return file && (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) == S_IFREG;
}

static __always_inline int record_open(void *ctx, __u64 path)
{
	struct event *e = begin(ctx, KIND_FILE, 0, 0);

	if (!e)
		return 0;
	bpf_probe_read_user_str(e->text, sizeof(e->text), (void *)path);
	bpf_ringbuf_submit(e, wake());
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(on_syscall, struct pt_regs *regs, long id)
{
	__u32 number = id;
	__u64 *count;

	if (!watching() || !target_of(bpf_get_current_pid_tgid() >> 32))
		return 0;
	count = bpf_map_lookup_elem(&syscalls, &number);
	if (count)
		++*count;
	switch (id) {
	case SYS_mmap: case SYS_mremap:
		return record(ctx, KIND_MAP, regs->si, 0);
	case SYS_brk: /* brk(0) only asks */
		return regs->di ? record(ctx, KIND_MAP, regs->di, 0) : 0;
	case SYS_open: case SYS_creat:
		return record_open(ctx, regs->di);
	case SYS_openat: case SYS_openat2:
		return record_open(ctx, regs->si);
	case SYS_read: case SYS_write: case SYS_pread64: case SYS_pwrite64:
	case SYS_readv: case SYS_writev: case SYS_preadv: case SYS_pwritev:
		if (!is_regular(bpf_get_current_task_btf(), regs->di))
			return 0;
		return record(ctx, KIND_FILE, 0, 0);
	case SYS_fsync: case SYS_fdatasync: case SYS_sync: case SYS_syncfs: case SYS_sync_file_range:
		return record(ctx, KIND_FILE, 0, 0);
	}
	return 0;
}

/* Waits are stored even while no window is open: one may begin meanwhile. */
SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempted, struct task_struct *prev, struct task_struct *next,
	     unsigned int state)
{
	__u32 tid = prev->pid, zero = 0;
	struct target *target;
	struct event *e;

	if (preempted || !(state & TASK_SLEEPS))
		return 0;
	target = target_of(prev->tgid);
	if (!target && !is_o2fence(prev))
		return 0;
	e = bpf_map_lookup_elem(&scratch, &zero);
	if (!e)
		return 0;
	fill(ctx, e, bpf_get_current_task_btf(), target, KIND_WAIT, 0, state);
	if (bpf_map_update_elem(&waits, &tid, e, BPF_ANY))
		lose();
	return 0;
}

/*
 * How much of a wait fell into the last window. One that reaches over more than one counts in full,
 * the time between them included: there is no room to remember them all, and it is too long anyway.
 */
static __always_inline __u64 overlap(struct event *e, __u64 now)
{
	__u64 from = e->at > opened_at ? e->at : opened_at;
	__u64 to = watching() ? now : closed_at;

	if (opened - e->window > !e->inside)
		return now - e->at;
	return to > from ? to - from : 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(on_wakeup, struct task_struct *task)
{
	__u32 tid = task->pid;
	struct event *e;

	e = bpf_map_lookup_elem(&waits, &tid);
	if (!e)
		return 0;
	e->value = overlap(e, bpf_ktime_get_ns());
	e->window = opened;
	if (e->value > wait_bound_ns && bpf_ringbuf_output(&events, e, sizeof(*e), wake()))
		lose();
	bpf_map_delete_elem(&waits, &tid);
	return 0;
}

/* Children are audited as well: what they do, they do for our process. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct target *target = target_of(parent->tgid);
	__u32 tgid = child->tgid;

	if (!target)
		return 0;
	if (parent->tgid == child->tgid)
		return record(ctx, KIND_THREAD, child->pid, 0);
	if (bpf_map_update_elem(&targets, &tgid, target, BPF_ANY))
		lose();
	notify(KIND_BORN, parent->tgid, tgid);
	return record(ctx, KIND_FORK, child->tgid, 0);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct target *target = target_of(task->tgid);
	struct event *e;

	if (!target)
		return 0;
	target->has_go = 0; /* user space says whether this one is of Go, too */
	notify(KIND_REPLACED, task->tgid, 0);
	e = begin(ctx, KIND_EXEC, 0, 0);
	if (!e)
		return 0;
	bpf_probe_read_kernel_str(e->text, sizeof(e->text), bprm->filename);
	bpf_ringbuf_submit(e, wake());
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	__u32 tgid = task->tgid, tid = task->pid;

	if (!target_of(tgid))
		return 0;
	bpf_map_delete_elem(&waits, &tid);
	if (task->signal->live.counter)
		return 0;
	bpf_map_delete_elem(&targets, &tgid);
	notify(KIND_EXITED, tgid, 0);
	return 0;
}

static __always_inline void open_window(__u64 request)
{
	__u8 one = 1;

	if (bpf_map_lookup_elem(&requests, &request))
		return;
	if (bpf_map_update_elem(&requests, &request, &one, BPF_NOEXIST)) {
		lose();
		return;
	}
	if (__sync_fetch_and_add(&under_way, 1))
		return;
	opened_at = bpf_ktime_get_ns();
	opened++;
}

static __always_inline void close_window(__u64 request)
{
	if (bpf_map_delete_elem(&requests, &request) || __sync_fetch_and_sub(&under_way, 1) != 1)
		return;
	closed_at = bpf_ktime_get_ns();
	watched_ns += closed_at - opened_at;
	closed++;
}

/*
 * o2fence is built outside of the kernel's tree and has no BTF, so this is the tracepoint's record as
 * perf has it. It runs under o2fence's lock: windows open and close one after another.
 */
SEC("tracepoint/o2fence/o2fence_event")
int on_fence(void *ctx)
{
	__u32 event = 64;
	__u64 request = 0;

	bpf_probe_read_kernel(&event, sizeof(event), ctx + event_offset);
	bpf_probe_read_kernel(&request, sizeof(request), ctx + request_offset);
	if (event > 63)
		return 0;
	if (opens >> event & 1)
		open_window(request);
	if (closes >> event & 1)
		close_window(request);
	return 0;
}
