// SPDX-License-Identifier: GPL-2.0-only
/*
 * request.c - one fence of one node, from the request to its end
 *
 * The problem: an attempt can be ended by its method, its timer, the death of the bridge, a failed
 * initiate and the node's return, all at once, and must be counted exactly once (R9, R10).
 *
 * The rule: only o2fence_settle() ends an attempt, under o2fence_lock. The first comer wins and is
 * told so; all others find it settled. What follows is done by one work item per node, which the
 * workqueue never runs twice at a time.
 *
 * The races: the work may run late, early or once too often. It acts on the state it finds, never
 * on why it was queued; before anything is due it just sets its timer again.
 */

#include <linux/sched/mm.h>
#include "core.h"

struct workqueue_struct *o2fence_wq;
static u64 o2fence_last_request;					/* o2fence_lock */
static struct o2fence_record o2fence_history[O2FENCE_HISTORY];		/* o2fence_lock */
static u32 o2fence_nr_ended;						/* o2fence_lock */

static bool o2fence_active(const struct o2fence_node *nd)
{
	return nd->nd_record.re_state >= O2FENCE_EVENT_STARTED &&
	       nd->nd_record.re_state <= O2FENCE_EVENT_FENCED;
}

/* End the attempt under way. True for whoever was first. Caller holds o2fence_lock. */
bool o2fence_settle(struct o2fence_node *nd, int err, const char *msg)
{
	if (nd->nd_record.re_state != O2FENCE_EVENT_INITIATED || nd->nd_settled)
		return false;
	nd->nd_settled = true;
	nd->nd_record.re_err = -err;
	strscpy(nd->nd_record.re_msg, msg, sizeof(nd->nd_record.re_msg));
	mod_delayed_work(o2fence_wq, &nd->nd_work, 0);
	return true;
}

static void o2fence_step_to(struct o2fence_node *nd, enum o2fence_event state)
{
	nd->nd_record.re_state = state;
	o2fence_tell(&nd->nd_record, state);
}

/* The request is over: count it off and remember it. Caller holds o2fence_lock. */
static void o2fence_end(struct o2fence_node *nd, enum o2fence_event state)
{
	struct o2fence_record *re = &o2fence_history[o2fence_nr_ended++ % O2FENCE_HISTORY];

	o2fence_step_to(nd, state);
	nd->nd_cluster->cl_fencing--;
	if (re->re_id)
		list_del(&re->re_ob.ob_list);
	*re = nd->nd_record;
	re->re_ob.ob_kind = O2FENCE_CMD_REQUEST_GET;
	re->re_ob.ob_put = o2fence_put_record;
	list_add(&re->re_ob.ob_list, &o2fence_objects);
}

static int o2fence_give_notice(struct o2fence_node *nd)
{
	if (nd->nd_cluster->cl_heartbeat)
		nd->nd_cluster->cl_heartbeat->hb_fenced(nd);
	else
		o2fence_noticed(nd);
	return 0;
}

/* Act on how the attempt ended. What is to be done next, or NULL to try the next method. */
static node_fence_fn o2fence_judge(struct o2fence_node *nd)
{
	if (nd->nd_obsolete || nd->nd_record.re_err == ETIMEDOUT)
		o2fence_tell_bridge(nd, O2FENCE_CMD_CANCEL);
	if (nd->nd_obsolete) {
		o2fence_end(nd, O2FENCE_EVENT_OBSOLETE);
		return NULL;
	}
	if (!nd->nd_record.re_err) {
		o2fence_step_to(nd, O2FENCE_EVENT_FENCED);
		return o2fence_give_notice;
	}
	o2fence_step_to(nd, O2FENCE_EVENT_ATTEMPT_FAILED);
	nd->nd_step++;
	return NULL;
}

static node_fence_fn o2fence_try(struct o2fence_node *nd)
{
	struct o2fence_step *st = &nd->nd_steps[nd->nd_step];

	if (nd->nd_step == nd->nd_nsteps) {
		o2fence_end(nd, O2FENCE_EVENT_FAILED);
		return NULL;
	}
	strscpy(nd->nd_record.re_method, st->st_method->fm_ob.ob_name, O2FENCE_NAME_MAX + 1);
	nd->nd_record.re_attempt++;
	nd->nd_portid = st->st_method->fm_portid;
	nd->nd_began = jiffies;
	nd->nd_deadline = jiffies + msecs_to_jiffies(st->st_timeout_ms);
	nd->nd_settled = false;
	nd->nd_ask_admin = false;
	o2fence_step_to(nd, O2FENCE_EVENT_INITIATED);
	return st->st_method->fm_initiate;
}

/* What is to be done now with a node, or NULL to wait. */
static node_fence_fn o2fence_next(struct o2fence_node *nd)
{
	node_fence_fn fn = NULL;

	spin_lock_bh(&o2fence_lock);
	if (nd->nd_record.re_state == O2FENCE_EVENT_INITIATED) {
		if (time_after_eq(jiffies, nd->nd_deadline))
			o2fence_settle(nd, -ETIMEDOUT, "no answer in time");
		if (nd->nd_settled)
			fn = o2fence_judge(nd);
		else if (time_after_eq(jiffies, nd->nd_wake))
			fn = nd->nd_steps[nd->nd_step].st_method->fm_initiate;
		else
			mod_delayed_work(o2fence_wq, &nd->nd_work, nd->nd_wake - jiffies);
	}
	if (nd->nd_record.re_state == O2FENCE_EVENT_STARTED ||
	    nd->nd_record.re_state == O2FENCE_EVENT_ATTEMPT_FAILED)
		fn = o2fence_try(nd);
	spin_unlock_bh(&o2fence_lock);
	return fn;
}

void o2fence_run(struct work_struct *work)
{
	struct o2fence_node *nd = container_of(to_delayed_work(work), struct o2fence_node, nd_work);
	unsigned int flags = memalloc_noreclaim_save();
	node_fence_fn fn;
	int ret;

	while ((fn = o2fence_next(nd))) {
		ret = fn(nd);
		spin_lock_bh(&o2fence_lock);
		nd->nd_wake = nd->nd_deadline;
		if (ret > 0 && time_before(jiffies + msecs_to_jiffies(ret), nd->nd_deadline))
			nd->nd_wake = jiffies + msecs_to_jiffies(ret);
		if (ret < 0)
			o2fence_settle(nd, ret, "could not be initiated");
		spin_unlock_bh(&o2fence_lock);
	}
	memalloc_noreclaim_restore(flags);
}

/* Forget the last request but for when the node fell silent. */
static void o2fence_fresh_record(struct o2fence_node *nd, u64 incarnation)
{
	struct o2fence_record *re = &nd->nd_record;
	u64 silent = re->re_state ? 0 : re->re_at[O2FENCE_EVENT_SILENT];

	memset_startat(re, 0, re_incarnation);
	re->re_incarnation = incarnation;
	re->re_at[O2FENCE_EVENT_SILENT] = silent;
}

/* Caller holds o2fence_lock. */
static int o2fence_request(struct o2fence_node *nd, u64 incarnation, const char *reason)
{
	if (nd->nd_num == nd->nd_cluster->cl_this_node)
		return -EINVAL;
	if (o2fence_active(nd))
		return -EALREADY;
	o2fence_fresh_record(nd, incarnation);
	nd->nd_record.re_id = ++o2fence_last_request;
	strscpy(nd->nd_record.re_reason, reason, sizeof(nd->nd_record.re_reason));
	nd->nd_step = 0;
	nd->nd_obsolete = false;
	nd->nd_cluster->cl_fencing++;
	o2fence_step_to(nd, O2FENCE_EVENT_STARTED);
	mod_delayed_work(o2fence_wq, &nd->nd_work, 0);
	return 0;
}

/* FENCE: somebody privileged says that a node must be fenced, an administrator or a heartbeat. */
int o2fence_order(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *incarnation = info->attrs[O2FENCE_A_INCARNATION];
	struct nlattr *reason = info->attrs[O2FENCE_A_REASON];
	struct o2fence_node *nd;
	int err = -ENOENT;

	if (!reason)
		return o2fence_refuse(info, NULL, -EINVAL, "a REASON is missing");
	spin_lock_bh(&o2fence_lock);
	nd = o2fence_named_node(info);
	if (nd)
		err = o2fence_request(nd, incarnation ? nla_get_u64(incarnation) : 0,
				      nla_data(reason));
	if (err == -EALREADY)
		NL_SET_ERR_MSG(info->extack, "a fence of this node is under way");
	else if (err == -EINVAL)
		NL_SET_ERR_MSG(info->extack, "a node does not fence itself");
	spin_unlock_bh(&o2fence_lock);
	return err;
}

/**
 * o2fence_fence - request that a node be fenced
 * @nd: a node of a joined cluster
 * @incarnation: which life of it, or 0
 * @reason: for the history, up to O2FENCE_TEXT_MAX bytes
 *
 * Context: process or softirq context; does not sleep, and never waits for memory.
 * Return: 0, %-EALREADY when a request for the node is under way, %-EINVAL for this very node.
 */
int o2fence_fence(struct o2fence_node *nd, u64 incarnation, const char *reason)
{
	int err;

	spin_lock_bh(&o2fence_lock);
	err = o2fence_request(nd, incarnation, reason);
	spin_unlock_bh(&o2fence_lock);
	return err;
}
EXPORT_SYMBOL_GPL(o2fence_fence);

/**
 * node_fence_result - a method reports how its attempt ended (R9)
 * @request: re_id of the target's record when the method was initiated
 * @attempt: its re_attempt
 * @err: 0 when the node is proven off or cut off, else a negative errno
 * @errmsg: what happened, empty on success
 *
 * Finds the request by its number, so a late answer never touches a cluster that was left.
 *
 * Context: process or softirq context; does not sleep, and never waits for memory.
 * Return: 0 when this ended the attempt, %-ESTALE when it is not, or no longer, under way.
 */
int node_fence_result(u64 request, u32 attempt, int err, const char *errmsg)
{
	struct o2fence_object *ob;
	int ret = -ESTALE;

	spin_lock_bh(&o2fence_lock);
	list_for_each_entry(ob, &o2fence_objects, ob_list) {
		struct o2fence_node *nd = container_of(ob, struct o2fence_node, nd_record.re_ob);

		if (ob->ob_kind == O2FENCE_CMD_NODE_GET && nd->nd_record.re_id == request &&
		    nd->nd_record.re_attempt == attempt && o2fence_settle(nd, err, errmsg))
			ret = 0;
	}
	spin_unlock_bh(&o2fence_lock);
	return ret;
}
EXPORT_SYMBOL_GPL(node_fence_result);

/**
 * o2fence_obsolete - the node does not need to be fenced any more
 * @nd: it came back, left cleanly, or another node has fenced it
 * @incarnation: which life of it; a request for another one goes on
 * @why: for the history
 *
 * Nothing happens once the node is FENCED: that cannot be taken back.
 *
 * Context: process or softirq context; does not sleep, and never waits for memory.
 */
void o2fence_obsolete(struct o2fence_node *nd, u64 incarnation, const char *why)
{
	spin_lock_bh(&o2fence_lock);
	if (nd->nd_record.re_incarnation == incarnation && o2fence_settle(nd, -ECANCELED, why))
		nd->nd_obsolete = true;
	spin_unlock_bh(&o2fence_lock);
}
EXPORT_SYMBOL_GPL(o2fence_obsolete);

/**
 * o2fence_noticed - the notice of a fenced node is on every region's disk
 * @nd: the node that o2fence_heartbeat.hb_fenced was called for
 *
 * Context: process or softirq context; does not sleep, and never waits for memory.
 */
void o2fence_noticed(struct o2fence_node *nd)
{
	spin_lock_bh(&o2fence_lock);
	if (nd->nd_record.re_state == O2FENCE_EVENT_FENCED)
		o2fence_end(nd, O2FENCE_EVENT_NOTICE);
	spin_unlock_bh(&o2fence_lock);
}
EXPORT_SYMBOL_GPL(o2fence_noticed);

/**
 * o2fence_node_event - tell what a heartbeat saw of a node
 * @nd: the node
 * @incarnation: which life of it
 * @event: O2FENCE_EVENT_SILENT or one that follows it
 *
 * Context: process or softirq context; does not sleep, and never waits for memory.
 */
void o2fence_node_event(struct o2fence_node *nd, u64 incarnation, enum o2fence_event event)
{
	spin_lock_bh(&o2fence_lock);
	if (event == O2FENCE_EVENT_SILENT && !o2fence_active(nd))
		o2fence_fresh_record(nd, incarnation);
	o2fence_tell(&nd->nd_record, event);
	spin_unlock_bh(&o2fence_lock);
}
EXPORT_SYMBOL_GPL(o2fence_node_event);
