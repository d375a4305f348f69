// SPDX-License-Identifier: GPL-2.0-only

package ktap

import "regexp"

// faultPattern matches the first line of what the kernel prints when something is wrong with it,
// and "Call Trace" for those reports whose first line is not listed. Only KERN_WARNING and graver
// lines look like this; OCFS2's and o2fence's own messages do not.
var faultPattern = regexp.MustCompile(`\bWARNING: (CPU|possible|suspicious|bad|inconsistent|held|Nested|kernel)` +
	`|\b(BUG|Oops|KASAN|KCSAN|UBSAN|kmemleak): ` +
	`|\bINFO: (task .* blocked for more than|possible|suspicious|trying to register|rcu|lockdep)` +
	`|\brcu: INFO:` +
	`|^Oops\b|kernel BUG at|Kernel panic|general protection fault|Call Trace:` +
	`|unable to handle (kernel|page fault)|refcount_t: |list_(add|del) corruption|DEBUG_LOCKS_WARN_ON`)

// Fault reports whether line, with or without the kernel's time stamp, belongs to a kernel WARN,
// BUG, oops, panic, stall, hung task, lockdep or sanitizer report.
func Fault(line string) bool {
	return faultPattern.MatchString(stampPattern.ReplaceAllString(line, ""))
}
