/* SPDX-License-Identifier: GPL-2.0-only */
/* kernel.h - what audit.c knows of the kernel: types, flags, system calls */
#ifndef KERNEL_H
#define KERNEL_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* Of the kernel's own types, only what is read here; the loader finds it in the running kernel. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
typedef struct { int counter; } atomic_t;
struct signal_struct { atomic_t live; };
struct thread_struct { unsigned long fsbase; };
struct inode { unsigned short i_mode; };
struct file { struct inode *f_inode; };
struct fdtable { unsigned int max_fds; struct file **fd; };
struct files_struct { struct fdtable *fdt; };
struct task_struct {
	unsigned int flags;
	int pid, tgid, pagefault_disabled;
	char comm[16];
	struct signal_struct *signal;
	struct files_struct *files;
	struct thread_struct thread;
};
struct kmem_cache { unsigned int size; };
struct linux_binprm { const char *filename; };
struct pt_regs { unsigned long di, si, orig_ax; };
#pragma clang attribute pop

#define PAGE_BYTES	4096ULL
#define PF_MEMALLOC	0x00000800
#define PF_KTHREAD	0x00200000
#define TASK_SLEEPS	0x0003		/* interruptible or not */

/* amd64's system calls: those that change the address space, */
#define SYS_mmap	9
#define SYS_brk		12
#define SYS_mremap	25
/* those that name a file, in their first or second argument, */
#define SYS_open	2
#define SYS_creat	85
#define SYS_openat	257
#define SYS_openat2	437
/* those that move data, */
#define SYS_read	0
#define SYS_write	1
#define SYS_pread64	17
#define SYS_pwrite64	18
#define SYS_readv	19
#define SYS_writev	20
#define SYS_preadv	295
#define SYS_pwritev	296
/* and those that write back */
#define SYS_fsync	74
#define SYS_fdatasync	75
#define SYS_sync	162
#define SYS_syncfs	306
#define SYS_sync_file_range 277

#define S_IFMT		0170000
#define S_IFREG		0100000

#endif /* KERNEL_H */
