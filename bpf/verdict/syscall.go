// SPDX-License-Identifier: GPL-2.0-only

package verdict

import "fmt"

// names are of those system calls of amd64 that daemons make; the others are shown by number.
var names = map[int]string{
	1: "write", 2: "open", 3: "close", 8: "lseek", 9: "mmap", 10: "mprotect", 11: "munmap", 12: "brk",
	13: "rt_sigaction", 14: "rt_sigprocmask", 16: "ioctl", 17: "pread64", 18: "pwrite64", 20: "writev",
	21: "access", 22: "pipe", 24: "sched_yield", 25: "mremap", 28: "madvise", 32: "dup", 33: "dup2", 39: "getpid",
	41: "socket", 42: "connect", 44: "sendto", 46: "sendmsg", 48: "shutdown", 49: "bind", 50: "listen",
	51: "getsockname", 52: "getpeername", 54: "setsockopt", 55: "getsockopt", 56: "clone", 57: "fork", 58: "vfork",
	59: "execve", 60: "exit", 62: "kill", 72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync", 79: "getcwd",
	87: "unlink", 89: "readlink", 96: "gettimeofday", 131: "sigaltstack", 149: "mlock", 151: "mlockall",
	157: "prctl", 158: "arch_prctl", 162: "sync", 186: "gettid", 201: "time", 203: "sched_setaffinity",
	204: "sched_getaffinity", 228: "clock_gettime", 231: "exit_group", 233: "epoll_ctl", 234: "tgkill",
	257: "openat", 262: "newfstatat", 277: "sync_file_range", 290: "eventfd2", 291: "epoll_create1",
	293: "pipe2", 302: "prlimit64", 307: "sendmmsg", 318: "getrandom", 322: "execveat", 332: "statx",
	334: "rseq", 426: "io_uring_enter", 434: "pidfd_open", 435: "clone3",
}

// syscallName is empty for none.
func syscallName(number int) string {
	if name, ok := waiting[number]; ok {
		return name
	}
	if name, ok := names[number]; ok {
		return name
	}
	if number < 0 {
		return ""
	}
	return fmt.Sprintf("system call %d", number)
}
