// SPDX-License-Identifier: GPL-2.0-only
/*
 * watchdog.c - the methods that need no device: watchdog and manual
 *
 * watchdog (R13) relies on stock OCFS2's own rule: a node whose heartbeat could not be written for
 * dead_ms has reset itself. It is true of a node that runs; one that is merely frozen resets itself
 * when it wakes up, and may write before it does. So it is the last resort, not the first.
 */

#include "o2fence.h"

/* The target's clock and ours are not the same, and its last write may have been a period late. */
#define WATCHDOG_MARGIN_MS 2000
#define WATCHDOG_ASK_MS 100	/* slots are not looked at more often */

static int watchdog_result(struct o2fence_node *nd, int err, const char *msg)
{
	return node_fence_result(nd->nd_record.re_id, nd->nd_record.re_attempt, err, msg);
}

/* Called until the silence has lasted long enough: with every heartbeat it starts anew. */
static int watchdog_initiate(struct o2fence_node *nd)
{
	struct o2fence_heartbeat *hb = nd->nd_cluster->cl_heartbeat;
	const char *params = nd->nd_steps[nd->nd_step].st_params ?: "";
	u32 limit_ms = 0, margin_ms = WATCHDOG_MARGIN_MS;
	s64 silence_ms;

	if (sscanf(params, "wait=%u", &limit_ms) == 1) {
		silence_ms = jiffies_to_msecs(jiffies - nd->nd_began);
	} else {
		sscanf(params, "margin=%u", &margin_ms);
		silence_ms = hb ? hb->hb_silence(nd, &limit_ms) : -ENODATA;
		if (silence_ms < 0 || !limit_ms)
			return watchdog_result(nd, -ENODATA, "no heartbeat of the node is known");
		limit_ms += margin_ms;
	}
	if (silence_ms >= limit_ms)
		return watchdog_result(nd, 0, "");
	return max_t(s64, limit_ms - silence_ms, WATCHDOG_ASK_MS);
}

/* Nothing to do but ask: the event of the attempt is the question, FENCED the answer (R14). */
static int manual_initiate(struct o2fence_node *nd)
{
	pr_crit("o2fence: power node %u off by hand, then: o2fencectl confirm\n", nd->nd_num);
	nd->nd_ask_admin = true;
	return 0;
}

static int __init o2fence_methods_init(void)
{
	int err;

	err = node_register_fence_method("watchdog", watchdog_initiate, THIS_MODULE);
	if (err)
		return err;
	err = node_register_fence_method("manual", manual_initiate, THIS_MODULE);
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
