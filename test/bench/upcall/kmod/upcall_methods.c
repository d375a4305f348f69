// SPDX-License-Identifier: GPL-2.0-only
/* upcall_methods.c - fence methods that fence nothing: one in the kernel, one by a user-mode helper */

#include <linux/umh.h>
#include "o2fence.h"

static char *helper = "/sbin/o2fence-helper";
module_param(helper, charp, 0444);
MODULE_PARM_DESC(helper, "the program that upcall-helper starts for each fence");

static int answer(struct o2fence_node *nd, int err, const char *msg)
{
	return node_fence_result(nd->nd_record.re_id, nd->nd_record.re_attempt, err, msg);
}

static int ok(struct o2fence_node *nd)
{
	answer(nd, 0, "");
	return 0;
}

/*
 * As DRBD calls its fence-peer handler, drbd_khelper(): in a thread of the one who asks, with its
 * arguments and environment, waiting for the exit code.
 */
static int by_helper(struct o2fence_node *nd)
{
	char node[8];
	char *argv[] = { helper, "fence-peer", node, NULL };
	char *envp[] = { "HOME=/", "TERM=linux", "PATH=/sbin:/usr/sbin:/bin:/usr/bin", NULL };
	int code;

	snprintf(node, sizeof(node), "%u", nd->nd_record.re_ob.ob_num);
	code = call_usermodehelper(helper, argv, envp, UMH_WAIT_PROC);
	answer(nd, code ? -EIO : 0, code ? "the helper failed" : "");
	return 0;
}

static int __init upcall_methods_init(void)
{
	int err = node_register_fence_method("upcall-kernel", ok, THIS_MODULE);

	if (err)
		return err;
	err = node_register_fence_method("upcall-helper", by_helper, THIS_MODULE);
	if (err)
		node_unregister_fence_method("upcall-kernel");
	return err;
}

static void __exit upcall_methods_exit(void)
{
	node_unregister_fence_method("upcall-helper");
	node_unregister_fence_method("upcall-kernel");
}

module_init(upcall_methods_init);
module_exit(upcall_methods_exit);
MODULE_DESCRIPTION("Fence methods that cost nothing, to measure what calling them costs");
MODULE_LICENSE("GPL");
