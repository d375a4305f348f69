// SPDX-License-Identifier: GPL-2.0-only
/*
 * request.c - one fence of one node, from the request to its end
 *
 * The problem: an attempt can be ended by its method, its timer, the death of the bridge, a failed
 * initiate and the node's return, all at once, and must be counted exactly once (R9, R10).
 *
 * The rule: re_state says it all, and changes under o2fence_lock. Who finds an attempt INITIATED
 * ends it; whoever comes later finds that it is not, and is told so. What follows is done by the
 * node's own thread and nobody else: it tries one method after another, gives the notice, and
 * remembers the request. It was made at join and only ever sleeps, so that it needs no memory, no
 * worker and no rescuer to go on, and what it does have to ask for comes from the reserve (R19).
 *
 *   STARTED -> INITIATED -> ATTEMPT_FAILED -> INITIATED ... -> ATTEMPT_FAILED -> FAILED
 *                        -> FENCED -> NOTICE
 *   any but FENCED       -> OBSOLETE
 *
 * The races: nd_active is true from STARTED until the thread has remembered the request, so there
 * is no second request while it still works on the first. OBSOLETE may come between two attempts:
 * it is looked for before each. Once FENCED was said it comes too late.
 */

#include <linux/kthread.h>
#include "o2fence.h"

static u64 last_request, nr_ended;			/* o2fence_lock */
static struct o2fence_record history[O2FENCE_HISTORY];		/* o2fence_lock */

/* End the attempt under way. True for whoever was first. Caller holds o2fence_lock. */
bool o2fence_settle(struct o2fence_node *nd, int err, const char *msg)
{
	struct o2fence_record *re = &nd->nd_record;

	if (re->re_state != O2FENCE_EVENT_INITIATED)
		return false;
	re->re_err = -err;
	strscpy(re->re_msg, msg, sizeof(re->re_msg));
	o2fence_tell(nd, err ? O2FENCE_EVENT_ATTEMPT_FAILED : O2FENCE_EVENT_FENCED);
	wake_up(&nd->nd_changed);
	return true;
}

/* Try one method. True when it failed, and the next one is to be tried. */
static bool attempt(struct o2fence_node *nd, struct o2fence_step *st)
{
	struct o2fence_record *re = &nd->nd_record;
	unsigned long end = jiffies + msecs_to_jiffies(st->st_timeout_ms);
	long again_ms, wait;

	scoped_guard(o2fence) {
		if (re->re_state == O2FENCE_EVENT_OBSOLETE)
			return false;
		nd->nd_step = st;
		nd->nd_portid = st->st_method->fm_portid;
		nd->nd_ask_admin = false;
		nd->nd_began = jiffies;
		re->re_attempt++;
		strscpy(re->re_method, st->st_method->fm_ob.ob_name, sizeof(re->re_method));
		o2fence_tell(nd, O2FENCE_EVENT_INITIATED);
	}

	do {
		again_ms = st->st_method->fm_initiate(nd);
		if (again_ms < 0)
			node_fence_result_of(nd, again_ms, "could not be initiated");
		wait = max_t(long, end - jiffies, 0);
		if (again_ms > 0)
			wait = min_t(long, wait, msecs_to_jiffies(again_ms));
		wait_event_idle_timeout(nd->nd_changed, re->re_state != O2FENCE_EVENT_INITIATED,
					wait);
	} while (re->re_state == O2FENCE_EVENT_INITIATED && time_before(jiffies, end));

	scoped_guard(o2fence)
		o2fence_settle(nd, -ETIMEDOUT, "no answer in time");
	if (re->re_err == ETIMEDOUT || re->re_state == O2FENCE_EVENT_OBSOLETE)
		o2fence_ask_bridge(nd);		/* no longer: CANCEL */
	return re->re_state == O2FENCE_EVENT_ATTEMPT_FAILED;
}

/* No method is left to try: give the notice, and remember the request. */
static void end_request(struct o2fence_node *nd)
{
	struct o2fence_heartbeat *hb __free(heartbeat) = symbol_get(o2fence_heartbeat);
	struct o2fence_record *re = &nd->nd_record, *old;

	if (hb && re->re_state == O2FENCE_EVENT_FENCED)
		hb->hb_fenced(nd);
	guard(o2fence)();
	o2fence_tell(nd, re->re_state == O2FENCE_EVENT_FENCED ? O2FENCE_EVENT_NOTICE :
			 re->re_state == O2FENCE_EVENT_OBSOLETE ? O2FENCE_EVENT_OBSOLETE :
								  O2FENCE_EVENT_FAILED);
	nd->nd_active = false;
	old = &history[nr_ended++ % O2FENCE_HISTORY];
	if (old->re_id)
		list_del(&old->re_ob.ob_list);
	*old = *re;
	old->re_ob.ob_put = o2fence_put_record;
	list_add(&old->re_ob.ob_list, &o2fence_objects[O2FENCE_CMD_REQUEST_GET]);
}

/* A node's thread, from join to leave. */
int o2fence_thread(void *data)
{
	struct o2fence_node *nd = data;

	current->flags |= PF_MEMALLOC;
	for (;;) {
		wait_event_idle(nd->nd_changed, nd->nd_active || kthread_should_stop());
		if (!nd->nd_active)
			return 0;
		for (u32 i = 0; i < nd->nd_nsteps && attempt(nd, &nd->nd_steps[i]); i++)
			;
		end_request(nd);
	}
}

/**
 * o2fence_fence - request that a node be fenced
 * @nd: a node that was joined
 * @incarnation: which life of it, or 0
 * @reason: for the history, up to O2FENCE_TEXT_MAX bytes
 *
 * Context: process or softirq context, with o2fence_lock held.
 * Return: 0, or %-EALREADY when a request for the node is under way.
 */
int o2fence_fence(struct o2fence_node *nd, u64 incarnation, const char *reason)
{
	struct o2fence_record *re = &nd->nd_record;

	if (nd->nd_active)
		return -EALREADY;
	if (re->re_state)
		memset_startat(re, 0, re_incarnation);
	re->re_incarnation = incarnation;
	re->re_id = ++last_request;
	strscpy(re->re_reason, reason, sizeof(re->re_reason));
	nd->nd_active = true;
	o2fence_tell(nd, O2FENCE_EVENT_STARTED);
	wake_up(&nd->nd_changed);
	return 0;
}
EXPORT_SYMBOL_GPL(o2fence_fence);

/**
 * node_fence_result - a method reports how its attempt ended (R9)
 * @request: re_id of the target's record when the method was initiated
 * @attempt: its re_attempt
 * @err: 0 when the node is proven off or cut off, else a negative errno
 * @errmsg: what happened, empty on success
 *
 * Finds the request by its number, so a late answer never touches a node that was left.
 *
 * Context: process or softirq context; does not sleep, and never waits for memory.
 * Return: 0 when this ended the attempt, %-ESTALE when it is not, or no longer, under way.
 */
int node_fence_result(u64 request, u32 attempt, int err, const char *errmsg)
{
	struct o2fence_node *nd;

	guard(o2fence)();
	for_each_joined(nd)
		if (nd->nd_record.re_id == request && nd->nd_record.re_attempt == attempt &&
		    o2fence_settle(nd, err, errmsg))
			return 0;
	return -ESTALE;
}
EXPORT_SYMBOL_GPL(node_fence_result);

/**
 * o2fence_obsolete - the node does not need to be fenced any more
 * @nd: it came back, left cleanly, or another node has fenced it
 * @incarnation: which life of it; a request for another one, or for no matter which, goes on
 * @why: for the history
 *
 * Nothing happens once the node is FENCED: that cannot be taken back.
 *
 * Context: process or softirq context, with o2fence_lock held.
 */
void o2fence_obsolete(struct o2fence_node *nd, u64 incarnation, const char *why)
{
	struct o2fence_record *re = &nd->nd_record;

	if (!nd->nd_active || !incarnation || re->re_incarnation != incarnation ||
	    re->re_state >= O2FENCE_EVENT_FENCED)
		return;
	re->re_state = O2FENCE_EVENT_OBSOLETE;
	re->re_err = ECANCELED;
	strscpy(re->re_msg, why, sizeof(re->re_msg));
	wake_up(&nd->nd_changed);
}
EXPORT_SYMBOL_GPL(o2fence_obsolete);
