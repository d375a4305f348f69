/* SPDX-License-Identifier: GPL-2.0-only */
/* event.h - what is told to user space, and how it comes there; used by audit.c alone */
#ifndef EVENT_H
#define EVENT_H

#include "kernel.h"

/* Frames, the innermost first; what is deeper is cut off. */
#define KERNEL_FRAMES	64
#define USER_FRAMES	64
#define GO_FRAMES	24

enum kind {
	KIND_UNSPEC,
	KIND_PAGES,	/* value: bytes */
	KIND_SLAB,	/* value: bytes, as the slab has them */
	KIND_FAULT,	/* value: the address */
	KIND_MAP,	/* value: bytes, or for brk the address */
	KIND_FILE,	/* a regular file is opened (text: which), read, written or written back */
	KIND_RECLAIM,	/* value: the order asked for */
	KIND_WAIT,	/* value: ns; gfp: the task's state */
	KIND_THREAD,	/* value: the new thread */
	KIND_FORK,	/* value: the new process */
	KIND_EXEC,	/* text: the program */
	/* The rest are notices, which are sent whether a window is open or not. */
	KIND_BORN,	/* a process is followed as well; value: which, tgid: its parent */
	KIND_REPLACED,	/* a followed process runs another program now */
	KIND_EXITED,	/* a followed process */
};

struct event {
	__u64 at;		/* ns, CLOCK_MONOTONIC */
	__u64 value;
	__u32 kind;		/* enum kind */
	__u32 window;		/* which one it belongs to, from 1 */
	__u32 tgid, tid;
	__u32 flags;		/* the task's PF_ flags */
	__u32 gfp;
	__s32 syscall;		/* the one it is in, -1 for none */
	__u32 inside;		/* a window was open */
	__s32 kernel_bytes, user_bytes, go_frames;	/* negative: the stack could not be had */
	char comm[16];
	char text[64];
	__u64 kernel[KERNEL_FRAMES];
	__u64 user[USER_FRAMES];
	__u64 go[GO_FRAMES];	/* the goroutine's, when the thread is on its own stack: see go_stack */
};

/* Where Go's runtime keeps the goroutine of a thread; offsets in bytes, from the binary's DWARF. */
struct go_layout {
	__s32 tls;	/* of the g, from fsbase */
	__u32 g_m, m_curg, g_sched_sp, g_sched_pc, g_sched_bp;
};

/* Who is audited, by process. */
struct target {
	struct go_layout go;
	__u32 has_go;
};

/* Makes bpf2go generate the Go types. */
const struct event *unused_event __attribute__((unused));
const enum kind *unused_kind __attribute__((unused));

const volatile __u64 wait_bound_ns = 100 * 1000 * 1000;
/* Of the fields of o2fence:o2fence_event, and which events open and close a window, as bits. */
const volatile __u32 event_offset, request_offset;
const volatile __u64 opens, closes;
/* Bytes not yet read from which on the reader is woken; below, it looks by itself now and then. */
const volatile __u64 wake_bytes = 1 << 20;

__u32 forced;			/* a window is open whatever o2fence does */
__u32 under_way;		/* requests */
__u32 opened, closed;		/* windows so far */
__u64 opened_at, closed_at;	/* the last one */
__u64 watched_ns;		/* all that were closed */
__u64 lost;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);	/* tgid */
	__type(value, struct target);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);	/* one for each node */
	__type(key, __u64);
	__type(value, __u8);
} requests SEC(".maps");

/* What our threads that sleep now wait for, by tid. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct event);
} waits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 512);
	__type(key, __u32);
	__type(value, __u64);
} syscalls SEC(".maps");

static __always_inline bool watching(void) { return forced || under_way; }

static __always_inline void lose(void) { __sync_fetch_and_add(&lost, 1); }

/* Waking the reader for each event would make what is watched wait for it. */
static __always_inline __u64 wake(void)
{
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) < wake_bytes)
		return BPF_RB_NO_WAKEUP;
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline struct target *target_of(__u32 tgid)
{
	return bpf_map_lookup_elem(&targets, &tgid);
}

static __always_inline bool is_o2fence(struct task_struct *task)
{
	const char name[] = "o2fence/";
	int i;

	if (!(task->flags & PF_KTHREAD))
		return false;
	for (i = 0; i < (int)sizeof(name) - 1; i++)
		if (task->comm[i] != name[i])
			return false;
	return true;
}

static __always_inline __u64 user_word(__u64 at)
{
	__u64 word = 0;

	bpf_probe_read_user(&word, sizeof(word), (void *)at);
	return word;
}

/*
 * Go's runtime grows stacks, and parks goroutines, on the thread's own stack (g0), where the chain
 * of frame pointers ends. The goroutine's registers then lie in curg.sched. The first frame is where
 * it left its stack; the second the word at its stack pointer, which is the return address when a
 * function's first instructions found the stack too small; then the chain goes on.
 */
static __always_inline void go_stack(struct event *e, struct task_struct *task, struct go_layout *go)
{
	__u64 g = user_word(task->thread.fsbase + (__s64)go->tls), m, curg, bp;
	int i;

	if (!g)
		return;
	m = user_word(g + go->g_m);
	curg = m ? user_word(m + go->m_curg) : 0;
	if (!curg || curg == g)
		return;
	e->go[0] = user_word(curg + go->g_sched_pc);
	e->go[1] = user_word(user_word(curg + go->g_sched_sp));
	e->go_frames = 2;
	bp = user_word(curg + go->g_sched_bp);
	for (i = 2; i < GO_FRAMES && bp; i++) {
		e->go[i] = user_word(bp + 8);
		e->go_frames = i + 1;
		bp = user_word(bp);
	}
}

static __always_inline void
fill(void *ctx, struct event *e, struct task_struct *task, struct target *target, __u32 kind,
     __u64 value, __u32 gfp)
{
	e->at = bpf_ktime_get_ns();
	e->kind = kind;
	e->value = value;
	e->gfp = gfp;
	e->window = opened;
	e->inside = watching();
	e->tgid = task->tgid;
	e->tid = task->pid;
	e->flags = task->flags;
	e->syscall = -1;
	e->user_bytes = 0;
	e->go_frames = 0;
	e->text[0] = 0;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->kernel_bytes = bpf_get_stack(ctx, e->kernel, sizeof(e->kernel), 0);
	if (!target)
		return;
	e->syscall = BPF_CORE_READ((struct pt_regs *)bpf_task_pt_regs(task), orig_ax);
	e->user_bytes = bpf_get_stack(ctx, e->user, sizeof(e->user), BPF_F_USER_STACK);
	if (target->has_go)
		go_stack(e, task, &target->go);
}

/* Reserves an event of the current task, filled in, if it is ours. */
static __always_inline struct event *begin(void *ctx, __u32 kind, __u64 value, __u32 gfp)
{
	struct task_struct *task;
	struct target *target;
	struct event *e;

	if (!watching())
		return NULL;
	task = bpf_get_current_task_btf();
	target = target_of(task->tgid);
	if (!target && !is_o2fence(task))
		return NULL;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lose();
		return NULL;
	}
	fill(ctx, e, task, target, kind, value, gfp);
	return e;
}

static __always_inline int record(void *ctx, __u32 kind, __u64 value, __u32 gfp)
{
	struct event *e = begin(ctx, kind, value, gfp);

	if (e)
		bpf_ringbuf_submit(e, wake());
	return 0;
}

static __always_inline void notify(__u32 kind, __u32 tgid, __u64 value)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		lose();
		return;
	}
	e->at = bpf_ktime_get_ns();
	e->kind = kind;
	e->tgid = tgid;
	e->value = value;
	e->kernel_bytes = e->user_bytes = e->go_frames = 0;
	bpf_ringbuf_submit(e, wake());
}

#endif /* EVENT_H */
