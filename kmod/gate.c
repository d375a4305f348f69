// SPDX-License-Identifier: GPL-2.0-only
/*
 * gate.c - o2fence_o2cb.ko comes and goes, and holds o2dlm's recovery until the node is fenced
 *
 * The problem: when a fence takes longer than o2hb's own threshold, o2dlm recovers the locks of a
 * node that may still write. The callback below runs between o2net's and o2dlm's and can wait.
 *
 * The rule: it waits in o2hb's thread, so this node's own heartbeat stops meanwhile, and others
 * may find it silent. Hence three limits, of which the least counts: what is configured, a quarter
 * of the time after which this node would reset itself, and half of the time after which the
 * others would fence it. Then it lets go, loudly: never worse than stock.
 */

#include "o2cb.h"

#define O2CB_GATE_PRIORITY 0x100000	/* behind o2net (0x1), before o2dlm (0xf000000) */

/* A clean leave comes here too; but it clears its slot, and is not silent. */
static void o2cb_node_down(struct o2nm_node *node, int num, void *data)
{
	struct o2cb_view vw = o2cb_view(num);
	struct o2fence_cluster *cl;
	u32 ms;

	if (!vw.vw_silent)
		return;
	cl = vw.vw_node->nd_cluster;
	ms = min3(cl->cl_gate_ms, o2cb_view(cl->cl_this_node).vw_dead_ms / 4,
		  cl->cl_missed * cl->cl_period_ms / 2);
	o2fence_node_event(vw.vw_node, 0, O2FENCE_EVENT_GATE_HELD);
	o2cb_look_now();
	if (wait_event_timeout(o2cb_looked, !o2cb_view(num).vw_silent, msecs_to_jiffies(ms))) {
		o2fence_node_event(vw.vw_node, 0, O2FENCE_EVENT_GATE_RELEASED);
		return;
	}
	o2fence_node_event(vw.vw_node, 0, O2FENCE_EVENT_GATE_EXPIRED);
	pr_crit("o2fence: node %d is NOT proven off after %u ms; OCFS2 recovers its locks anyway\n",
		num, ms);
}

static struct o2hb_callback_func o2cb_down;

static int __init o2cb_init(void)
{
	int err = o2fence_set_heartbeat(&o2cb_heartbeat);

	if (err)
		return err;
	o2hb_setup_callback(&o2cb_down, O2HB_NODE_DOWN_CB, o2cb_node_down, NULL,
			    O2CB_GATE_PRIORITY);
	err = o2hb_register_callback(NULL, &o2cb_down);
	if (err)
		o2fence_set_heartbeat(NULL);
	return err;
}

static void __exit o2cb_exit(void)
{
	o2hb_unregister_callback(NULL, &o2cb_down);
	o2fence_set_heartbeat(NULL);
}

module_init(o2cb_init);
module_exit(o2cb_exit);
MODULE_DESCRIPTION("Fencing harness: OCFS2's own cluster stack, unpatched");
MODULE_LICENSE("GPL");
