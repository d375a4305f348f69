// SPDX-License-Identifier: GPL-2.0-only
/*
 * watchdog.c - the methods that need no device: watchdog and manual
 *
 * watchdog (R13) relies on stock OCFS2's own rule: a node whose heartbeat could not be written for
 * dead_ms has reset itself. It is true of a node that runs; one that is merely frozen resets itself
 * when it wakes up, and may write before it does. So it is the last resort, not the first.
 */

#include "o2fence.h"

#define ASK_MS 100	/* slots are not looked at more often than this makes them */

/* Called until the silence has lasted long enough: with every heartbeat it starts anew. */
static int watchdog(struct o2fence_node *nd)
{
	struct o2fence_heartbeat *hb __free(heartbeat) = symbol_get(o2fence_heartbeat);
	s64 left_ms = hb ? hb->hb_resets_in(nd) : S64_MIN;
	u32 wait_ms;

	if (sscanf(nd->nd_step->st_params, "wait=%u", &wait_ms) == 1)
		left_ms = (s64)wait_ms - jiffies_to_msecs(jiffies - nd->nd_began);
	if (left_ms == S64_MIN)
		return node_fence_result_of(nd, -ENODATA, "no heartbeat of the node is known");
	if (left_ms <= 0)
		return node_fence_result_of(nd, 0, "");
	/* What is known of the silence is as old as the last look, and asking makes a new one. */
	return clamp_t(s64, left_ms / 2, ASK_MS, INT_MAX);
}

/* Nothing to do but ask: the event of the attempt is the question, FENCED the answer (R14). */
static int manual(struct o2fence_node *nd)
{
	pr_crit("o2fence: power node %u off by hand, then: o2fencectl confirm\n",
		nd->nd_record.re_ob.ob_num);
	nd->nd_ask_admin = true;
	return 0;
}

static int __init o2fence_methods_init(void)
{
	int err = node_register_fence_method("watchdog", watchdog, THIS_MODULE);

	if (err)
		return err;
	err = node_register_fence_method("manual", manual, THIS_MODULE);
	if (err)
		node_unregister_fence_method("watchdog");
	return err;
}

static void __exit o2fence_methods_exit(void)
{
	node_unregister_fence_method("manual");
	node_unregister_fence_method("watchdog");
}

module_init(o2fence_methods_init);
module_exit(o2fence_methods_exit);
MODULE_DESCRIPTION("Fence methods of the kernel: watchdog, manual");
MODULE_LICENSE("GPL");
