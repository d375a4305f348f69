// SPDX-License-Identifier: GPL-2.0-only
/*
 * The core of o2fence: methods, clusters, requests, and what user space sees of them
 *
 * The parts: what can be dumped; methods; requests; the bridge; joining and leaving; the netlink
 * family. The problem, the rule and the races are told where each begins.
 */

#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include "o2fence.h"
#define CREATE_TRACE_POINTS
#include "trace.h"

#define GFP_BRIDGE (GFP_NOWAIT | __GFP_NOWARN | __GFP_MEMALLOC)
#define GFP_EVENT (GFP_NOWAIT | __GFP_NOWARN | __GFP_NOMEMALLOC)

spinlock_t o2fence_lock = __SPIN_LOCK_UNLOCKED(o2fence_lock);
EXPORT_SYMBOL_GPL(o2fence_lock);
static LIST_HEAD(objects);					/* o2fence_lock */
static struct o2fence_record history[O2FENCE_HISTORY];		/* o2fence_lock */
static u64 last_request, nr_ended;				/* o2fence_lock */
static DECLARE_WAIT_QUEUE_HEAD(changed);	/* a node's re_state, or it is left */
static DEFINE_MUTEX(config_mutex);	/* JOIN allocates under it: never on the fence path */
static struct genl_family family;

/**
 * o2fence_find - the object of a kind and name
 * @kind: the command that dumps it
 * @name: its name
 *
 * Context: any, with o2fence_lock held.
 * Return: the object or NULL.
 */
struct o2fence_object *o2fence_find(u8 kind, const char *name)
{
	struct o2fence_object *ob;

	list_for_each_entry(ob, &objects, ob_list)
		if (ob->ob_kind == kind && !strcmp(ob->ob_name, name))
			return ob;
	return NULL;
}
EXPORT_SYMBOL_GPL(o2fence_find);

/**
 * o2fence_show - show an object in the dumps
 * @ob: stays valid until it is taken off the list, with list_del() under o2fence_lock
 * @kind: the command that dumps it
 * @name: up to O2FENCE_NAME_MAX bytes; that it is not taken yet, the caller has found out
 * @put: puts its attributes into a message
 *
 * Context: any, with o2fence_lock held.
 */
void o2fence_show(struct o2fence_object *ob, u8 kind, const char *name, o2fence_put_fn put)
{
	ob->ob_kind = kind;
	ob->ob_put = put;
	strscpy(ob->ob_name, name, sizeof(ob->ob_name));
	list_add_tail(&ob->ob_list, &objects);
}
EXPORT_SYMBOL_GPL(o2fence_show);

static int put_method(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_method *fm = container_of(ob, struct o2fence_method, fm_ob);

	return nla_put_string(skb, O2FENCE_A_METHOD, ob->ob_name) ?:
	       nla_put_string(skb, O2FENCE_A_MODULE, module_name(fm->fm_owner)) ?:
	       nla_put_u32(skb, O2FENCE_A_PORTID, fm->fm_portid);
}

static int put_cluster(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_cluster *cl = container_of(ob, struct o2fence_cluster, cl_ob);

	return nla_put_string(skb, O2FENCE_A_CLUSTER, ob->ob_name) ?:
	       nla_put_u32(skb, O2FENCE_A_THIS_NODE, cl->cl_this_node) ?:
	       nla_put_u32(skb, O2FENCE_A_MISSED, cl->cl_missed) ?:
	       nla_put_u32(skb, O2FENCE_A_PERIOD_MS, cl->cl_period_ms) ?:
	       nla_put_u32(skb, O2FENCE_A_GATE_MS, cl->cl_gate_ms) ?:
	       nla_put_u32(skb, O2FENCE_A_FENCE_DELAY_MS, cl->cl_fence_delay_ms) ?:
	       nla_put_u32(skb, O2FENCE_A_FENCING, cl->cl_fencing);
}

static int put_record(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_record *re = container_of(ob, struct o2fence_record, re_ob);
	int i, err = nla_put_string(skb, O2FENCE_A_CLUSTER, ob->ob_name) ?:
	      nla_put_u32(skb, O2FENCE_A_NODE, re->re_node) ?:
	      nla_put_u64_64bit(skb, O2FENCE_A_INCARNATION, re->re_incarnation, O2FENCE_A_PAD) ?:
	      nla_put_u64_64bit(skb, O2FENCE_A_REQUEST, re->re_id, O2FENCE_A_PAD) ?:
	      nla_put_u32(skb, O2FENCE_A_ATTEMPT, re->re_attempt) ?:
	      nla_put_u32(skb, O2FENCE_A_ERRNO, re->re_err) ?:
	      nla_put_u32(skb, O2FENCE_A_STATE, re->re_state) ?:
	      nla_put_string(skb, O2FENCE_A_METHOD, re->re_method) ?:
	      nla_put_string(skb, O2FENCE_A_REASON, re->re_reason) ?:
	      nla_put_string(skb, O2FENCE_A_ERRMSG, re->re_msg);
	struct nlattr *at = err ? NULL : nla_nest_start(skb, O2FENCE_A_AT);

	for (i = 1; at && !err && i < __O2FENCE_EVENT_MAX; i++)
		if (re->re_at[i])
			err = nla_put_u64_64bit(skb, i, re->re_at[i], O2FENCE_A_UNSPEC);
	if (at)
		nla_nest_end(skb, at);
	return at ? err : -EMSGSIZE;
}

static int put_node(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_node *nd = container_of(ob, struct o2fence_node, nd_record.re_ob);
	int i, err = put_record(skb, ob);

	for (i = 0; !err && i < nd->nd_nsteps; i++)
		err = nla_put_string(skb, O2FENCE_A_METHOD, nd->nd_methods[i]->fm_ob.ob_name) ?:
		      nla_put_u32(skb, O2FENCE_A_TIMEOUT_MS, nd->nd_timeouts_ms[i]);
	return err;
}

/**
 * node_register_fence_method - make a fence method known (R2)
 * @name: what the configuration calls it, up to O2FENCE_NAME_MAX bytes
 * @fn: called to begin fencing a node, in the node's thread, which has access to the memory
 *	reserve; it must neither wait for memory nor wait for the device. Zero means initiated, not
 *	done (R8): exactly one node_fence_result() must follow, or the attempt's timer ends it.
 *	Positive means the same, and that it wants to be called again after so many ms unless the
 *	attempt has ended. A negative errno means that it cannot go on.
 * @owner: the module that @fn lives in; pinned from join to leave by every cluster that uses it
 *
 * Context: process context, may sleep.
 * Return: 0, %-EEXIST when the name is taken, %-EINVAL for a name that is empty or too long,
 * %-ENOMEM.
 */
int node_register_fence_method(const char *name, node_fence_fn fn, struct module *owner)
{
	struct o2fence_method *fm __free(kfree) = kzalloc(sizeof(*fm), GFP_KERNEL);

	if (!fm)
		return -ENOMEM;
	if (!*name || strlen(name) > O2FENCE_NAME_MAX)
		return -EINVAL;
	fm->fm_initiate = fn;
	fm->fm_owner = owner;
	guard(o2fence)();
	if (o2fence_method(name))
		return -EEXIST;
	o2fence_show(&no_free_ptr(fm)->fm_ob, O2FENCE_CMD_METHOD_GET, name, put_method);
	return 0;
}
EXPORT_SYMBOL_GPL(node_register_fence_method);

/**
 * node_unregister_fence_method - forget a fence method
 * @name: as it was registered
 *
 * To be called from the owner's exit only: then no joined cluster uses the method, for that pins
 * the owner. Does nothing when the name is not registered.
 *
 * Context: process context.
 */
void node_unregister_fence_method(const char *name)
{
	guard(o2fence)();
	struct o2fence_method *fm = o2fence_method(name);

	if (fm)
		list_del(&fm->fm_ob.ob_list);
	kfree(fm);
}
EXPORT_SYMBOL_GPL(node_unregister_fence_method);

/* A message about a node; the caller adds what is missing, for which there is room, and ends it. */
static struct sk_buff *new_msg(u8 cmd, struct o2fence_node *nd, gfp_t gfp)
{
	struct sk_buff *skb = genlmsg_new(GENLMSG_DEFAULT_SIZE, gfp);

	if (skb && genlmsg_put(skb, 0, 0, &family, 0, cmd))
		put_record(skb, &nd->nd_record.re_ob);
	return skb;
}

/* A step of a request: its time, its tracepoint, its multicast. Caller holds o2fence_lock. */
static void tell(struct o2fence_node *nd, enum o2fence_event event)
{
	if (event <= O2FENCE_EVENT_OBSOLETE)
		nd->nd_record.re_state = event;
	nd->nd_record.re_at[event] = ktime_get_real_ns();
	trace_o2fence_event(&nd->nd_record, event);
	struct sk_buff *skb = new_msg(O2FENCE_CMD_EVENT, nd, GFP_EVENT);

	if (!skb)
		return;
	nla_put_u32(skb, O2FENCE_A_EVENT, event);
	nlmsg_end(skb, nlmsg_hdr(skb));
	genlmsg_multicast(&family, skb, 0, 0, GFP_EVENT);
}

/*
 * The bridge: the one linkage that carries every user-space method (R18). A method it has bound is
 * a method like any other, whose initiate sends a message to the socket that bound it.
 *
 * The problem: that message must get through when there is no memory left (R19), and when the
 * bridge dies nobody must wait for it.
 *
 * The rule: the message is taken from the reserve, without waiting, and there is never more than
 * one INITIATE and one CANCEL for an attempt, so their number is bounded. Events and dumps may get
 * lost; they must not draw on the reserve. A socket's death ends what it was asked.
 *
 * The races: an answer counts only for the attempt under way, from the socket that was asked.
 */

/* The initiate of all that a bridge carries: INITIATE, or CANCEL once the attempt has ended. */
static int ask_bridge(struct o2fence_node *nd)
{
	guard(o2fence)();
	bool wanted = nd->nd_record.re_state == O2FENCE_EVENT_INITIATED;
	u8 cmd = wanted ? O2FENCE_CMD_INITIATE : O2FENCE_CMD_CANCEL;
	struct sk_buff *skb = nd->nd_portid ? new_msg(cmd, nd, GFP_BRIDGE) : NULL;

	if (!skb)
		return nd->nd_portid ? -ENOMEM : -ENOTCONN;
	nla_put_u32(skb, O2FENCE_A_TIMEOUT_MS, nd->nd_timeouts_ms[nd->nd_step]);
	nla_put_string(skb, O2FENCE_A_PARAMS, nd->nd_params[nd->nd_step]);
	nlmsg_end(skb, nlmsg_hdr(skb));
	/* What came from the reserve would be dropped, as if it came in from a network. */
	skb->pfmemalloc = false;
	return genlmsg_unicast(&init_net, skb, nd->nd_portid);
}

/*
 * Requests: one fence of one node, from its start to its end
 *
 * The problem: an attempt can be ended by its method, its timer, the death of the bridge, a failed
 * initiate and the node's return, all at once, and must be counted exactly once (R9, R10).
 *
 * The rule: re_state says it all, and changes under o2fence_lock. Who finds an attempt INITIATED
 * ends it; whoever comes later finds that it is not, and is told so. What follows is done by the
 * node's own thread and nobody else: it tries one method after another, gives the notice, and
 * counts the request off. It was made at join and only ever sleeps, so that it needs no memory, no
 * worker and no rescuer to go on, and what it does have to ask for comes from the reserve (R19).
 *
 *   STARTED -> INITIATED -> ATTEMPT_FAILED -> INITIATED ... -> ATTEMPT_FAILED -> FAILED
 *                        -> FENCED -> NOTICE
 *   any but FENCED       -> OBSOLETE
 *
 * The races: nd_active is true from STARTED until the thread has counted the request off, so there
 * is no second request while it still works on the first. OBSOLETE may come between two attempts:
 * it is looked for before each. Once FENCED was said it comes too late.
 */

/* End the attempt under way. True for whoever was first. Caller holds o2fence_lock. */
static bool settle(struct o2fence_node *nd, int err, const char *msg)
{
	struct o2fence_record *re = &nd->nd_record;

	if (re->re_state != O2FENCE_EVENT_INITIATED)
		return false;
	re->re_err = -err;
	strscpy(re->re_msg, msg, sizeof(re->re_msg));
	tell(nd, err ? O2FENCE_EVENT_ATTEMPT_FAILED : O2FENCE_EVENT_FENCED);
	wake_up_all(&changed);
	return true;
}

/* Try one method. True when it failed, and the next one is to be tried. */
static bool attempt(struct o2fence_node *nd, u32 step)
{
	struct o2fence_record *re = &nd->nd_record;
	struct o2fence_method *fm = nd->nd_methods[step];
	unsigned long end = jiffies + msecs_to_jiffies(nd->nd_timeouts_ms[step]);
	int again_ms;
	long wait;

	scoped_guard(o2fence) {
		if (re->re_state == O2FENCE_EVENT_OBSOLETE)
			return false;
		nd->nd_step = step;
		nd->nd_portid = fm->fm_portid;
		nd->nd_ask_admin = false;
		nd->nd_began = jiffies;
		re->re_attempt++;
		strscpy(re->re_method, fm->fm_ob.ob_name, sizeof(re->re_method));
		tell(nd, O2FENCE_EVENT_INITIATED);
	}

	do {
		again_ms = fm->fm_initiate(nd);
		if (again_ms < 0)
			node_fence_result(re->re_id, re->re_attempt, again_ms, "not initiated");
		wait = max_t(long, end - jiffies, 0);
		if (again_ms > 0)
			wait = min_t(long, wait, msecs_to_jiffies(again_ms));
		wait_event_idle_timeout(changed, re->re_state != O2FENCE_EVENT_INITIATED, wait);
	} while (re->re_state == O2FENCE_EVENT_INITIATED && time_before(jiffies, end));

	scoped_guard(o2fence)
		settle(nd, -ETIMEDOUT, "no answer in time");
	if (re->re_err == ETIMEDOUT || re->re_state == O2FENCE_EVENT_OBSOLETE)
		ask_bridge(nd);		/* no longer: CANCEL */
	return re->re_state == O2FENCE_EVENT_ATTEMPT_FAILED;
}

/* A node's thread, from join to leave: carries its requests out, one after the other. */
static int request_thread(void *data)
{
	struct o2fence_node *nd = data;
	struct o2fence_heartbeat *hb = nd->nd_cluster->cl_heartbeat;
	struct o2fence_record *re = &nd->nd_record, *old;
	u32 i;

	current->flags |= PF_MEMALLOC;
	for (;;) {
		wait_event_idle(changed, nd->nd_active || kthread_should_stop());
		if (!nd->nd_active)
			return 0;
		for (i = 0; i < nd->nd_nsteps && attempt(nd, i); i++)
			;
		if (re->re_state == O2FENCE_EVENT_FENCED && hb)
			hb->hb_fenced(nd);
		guard(o2fence)();
		tell(nd, re->re_state == O2FENCE_EVENT_FENCED ? O2FENCE_EVENT_NOTICE :
			 re->re_state == O2FENCE_EVENT_OBSOLETE ? O2FENCE_EVENT_OBSOLETE :
								  O2FENCE_EVENT_FAILED);
		nd->nd_active = false;
		nd->nd_cluster->cl_fencing--;
		old = &history[nr_ended++ % O2FENCE_HISTORY];
		if (old->re_id)
			list_del(&old->re_ob.ob_list);
		*old = *re;
		old->re_ob.ob_kind = O2FENCE_CMD_REQUEST_GET;
		old->re_ob.ob_put = put_record;
		list_add(&old->re_ob.ob_list, &objects);
	}
}

/**
 * o2fence_fence - request that a node be fenced
 * @nd: a node of a joined cluster
 * @incarnation: which life of it, or 0
 * @reason: for the history, up to O2FENCE_TEXT_MAX bytes
 *
 * Context: process or softirq context, with o2fence_lock held.
 * Return: 0, or %-EALREADY when a request for the node is under way, %-EINVAL for this very node.
 */
int o2fence_fence(struct o2fence_node *nd, u64 incarnation, const char *reason)
{
	struct o2fence_record *re = &nd->nd_record;

	if (re->re_node == nd->nd_cluster->cl_this_node)
		return -EINVAL;
	if (nd->nd_active)
		return -EALREADY;
	if (re->re_state)
		memset_startat(re, 0, re_incarnation);
	re->re_incarnation = incarnation;
	re->re_id = ++last_request;
	strscpy(re->re_reason, reason, sizeof(re->re_reason));
	nd->nd_active = true;
	nd->nd_cluster->cl_fencing++;
	tell(nd, O2FENCE_EVENT_STARTED);
	wake_up_all(&changed);
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
 * Finds the request by its number, so a late answer never touches a cluster that was left.
 *
 * Context: process or softirq context; does not sleep, and never waits for memory.
 * Return: 0 when this ended the attempt, %-ESTALE when it is not, or no longer, under way.
 */
int node_fence_result(u64 request, u32 attempt, int err, const char *errmsg)
{
	struct o2fence_object *ob;
	struct o2fence_node *nd;

	guard(o2fence)();
	list_for_each_entry(ob, &objects, ob_list) {
		nd = container_of(ob, struct o2fence_node, nd_record.re_ob);
		if (ob->ob_kind == O2FENCE_CMD_NODE_GET && nd->nd_record.re_id == request &&
		    nd->nd_record.re_attempt == attempt && settle(nd, err, errmsg))
			return 0;
	}
	return -ESTALE;
}
EXPORT_SYMBOL_GPL(node_fence_result);

/**
 * o2fence_obsolete - the node does not need to be fenced any more
 * @nd: it came back, left cleanly, or another node has fenced it
 * @incarnation: which life of it; a request for another one goes on, or for no matter which
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
	wake_up_all(&changed);
}
EXPORT_SYMBOL_GPL(o2fence_obsolete);

/**
 * o2fence_node_event - tell what a heartbeat saw of a node
 * @nd: the node
 * @incarnation: which life of it, for O2FENCE_EVENT_SILENT
 * @event: O2FENCE_EVENT_SILENT or one that follows it
 *
 * Context: process or softirq context, with o2fence_lock held.
 */
void o2fence_node_event(struct o2fence_node *nd, u64 incarnation, enum o2fence_event event)
{
	if (event == O2FENCE_EVENT_SILENT && !nd->nd_active) {
		memset_startat(&nd->nd_record, 0, re_incarnation);
		nd->nd_record.re_incarnation = incarnation;
	}
	tell(nd, event);
}
EXPORT_SYMBOL_GPL(o2fence_node_event);

/*
 * Clusters
 *
 * The problem: once joined, a fence must find all it needs: memory, a thread, methods, and modules
 * that stay (R5, R11, R19).
 *
 * The rule: JOIN takes all of it or nothing, and LEAVE gives it back when nothing is under way.
 *
 * The races: a cluster is changed by JOIN, LEAVE and REGION_* only, which config_mutex serialises.
 * Everything else finds a cluster under o2fence_lock and keeps it only that long, but for the
 * threads of its nodes, whose end LEAVE waits for.
 */

/* Whether a message lacks one of the attributes from first to last, and is refused. */
static bool lacks(struct genl_info *info, int first, int last)
{
	for (; first <= last; first++)
		if (!info->attrs[first])
			return refuse(info, NULL, true, "an attribute is missing");
	return false;
}

/*
 * Read the nodes and their methods, in order: what follows a METHOD belongs to it. A method is to
 * be registered, carried by someone, and its module is to stay (R5, R11).
 */
static int read_nodes(struct o2fence_cluster *cl, struct genl_info *info)
{
	struct o2fence_node *nd = NULL;
	struct o2fence_method *fm;
	struct nlattr *attr;
	int rem;

	guard(o2fence)();
	nlmsg_for_each_attr(attr, info->nlhdr, GENL_HDRLEN, rem) {
		if (nla_type(attr) == O2FENCE_A_NODE) {
			nd = &cl->cl_nodes[nla_get_u32(attr)];
		} else if (nla_type(attr) == O2FENCE_A_METHOD) {
			fm = o2fence_method(nla_data(attr));
			if (!nd || nd->nd_nsteps == O2FENCE_STEPS_MAX)
				return refuse(info, attr, -E2BIG, "too many methods");
			if (!fm || (fm->fm_owner == THIS_MODULE && !fm->fm_portid) ||
			    !try_module_get(fm->fm_owner))
				return refuse(info, attr, -ENOENT, "method not registered");
			nd->nd_params[nd->nd_nsteps] = "";
			nd->nd_methods[nd->nd_nsteps++] = fm;
		} else if (nla_type(attr) == O2FENCE_A_TIMEOUT_MS && nd && nd->nd_nsteps) {
			nd->nd_timeouts_ms[nd->nd_nsteps - 1] = nla_get_u32(attr);
		} else if (nla_type(attr) == O2FENCE_A_PARAMS && nd && nd->nd_nsteps) {
			nd->nd_params[nd->nd_nsteps - 1] =
				cl->cl_join + (nla_data(attr) - (void *)info->nlhdr);
		}
	}
	return 0;
}

/* Nobody can start a request here any more, or yet. */
static void free_cluster(struct o2fence_cluster *cl)
{
	struct o2fence_node *nd;

	for (nd = cl->cl_nodes; nd < cl->cl_nodes + O2FENCE_NODES_MAX; nd++) {
		if (!IS_ERR_OR_NULL(nd->nd_thread))
			kthread_stop(nd->nd_thread);
		while (nd->nd_nsteps)
			module_put(nd->nd_methods[--nd->nd_nsteps]->fm_owner);
	}
	if (cl->cl_heartbeat)
		symbol_put(o2fence_heartbeat);
	kvfree(cl);
}

DEFINE_FREE(cluster, struct o2fence_cluster *, _T ? free_cluster(_T) : (void)0)

static int join(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **tb = info->attrs, *name = tb[O2FENCE_A_CLUSTER];
	struct o2fence_node *nd;
	int err;

	if (lacks(info, O2FENCE_A_CLUSTER, O2FENCE_A_FENCE_DELAY_MS))
		return -EINVAL;
	struct o2fence_cluster *cl __free(cluster) =
		kvzalloc(struct_size(cl, cl_join, info->nlhdr->nlmsg_len), GFP_KERNEL);

	if (!cl)
		return -ENOMEM;
	memcpy(cl->cl_join, info->nlhdr, info->nlhdr->nlmsg_len);
	cl->cl_this_node = nla_get_u32(tb[O2FENCE_A_THIS_NODE]);
	cl->cl_missed = nla_get_u32(tb[O2FENCE_A_MISSED]);
	cl->cl_period_ms = nla_get_u32(tb[O2FENCE_A_PERIOD_MS]);
	cl->cl_gate_ms = nla_get_u32(tb[O2FENCE_A_GATE_MS]);
	cl->cl_fence_delay_ms = nla_get_u32(tb[O2FENCE_A_FENCE_DELAY_MS]);
	cl->cl_heartbeat = symbol_get(o2fence_heartbeat);

	guard(mutex)(&config_mutex);
	err = read_nodes(cl, info);
	if (err)
		return err;
	for (nd = cl->cl_nodes; nd < cl->cl_nodes + O2FENCE_NODES_MAX; nd++) {
		if (!nd->nd_nsteps)
			continue;
		/* A fence ends whatever user space does: the last resort is a kernel method. */
		if (nd->nd_methods[nd->nd_nsteps - 1]->fm_owner == THIS_MODULE)
			return refuse(info, NULL, -EINVAL, "the last method is not the kernel's");
		nd->nd_cluster = cl;
		nd->nd_record.re_node = nd - cl->cl_nodes;
		nd->nd_thread = kthread_run(request_thread, nd, "o2fence/%td", nd - cl->cl_nodes);
		if (IS_ERR(nd->nd_thread))
			return PTR_ERR(nd->nd_thread);
	}
	guard(o2fence)();
	if (o2fence_cluster(nla_data(name)))
		return refuse(info, name, -EEXIST, "already joined");
	o2fence_show(&cl->cl_ob, O2FENCE_CMD_CLUSTER_GET, nla_data(name), put_cluster);
	for (nd = cl->cl_nodes; nd < cl->cl_nodes + O2FENCE_NODES_MAX; nd++)
		if (nd->nd_nsteps)
			o2fence_show(&nd->nd_record.re_ob, O2FENCE_CMD_NODE_GET, nla_data(name),
				     put_node);
	cl = NULL;	/* it is whole, and stays */
	return 0;
}

static int leave(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *name = info->attrs[O2FENCE_A_CLUSTER];
	struct o2fence_cluster *cl;
	struct o2fence_node *nd;

	if (lacks(info, O2FENCE_A_CLUSTER, O2FENCE_A_CLUSTER))
		return -EINVAL;
	guard(mutex)(&config_mutex);
	scoped_guard(o2fence) {
		cl = o2fence_cluster(nla_data(name));
		if (!cl)
			return refuse(info, name, -ENOENT, "not joined");
		if (cl->cl_fencing || cl->cl_regions)
			return refuse(info, NULL, -EBUSY, "it fences, or a region is watched");
		list_del(&cl->cl_ob.ob_list);
		for (nd = cl->cl_nodes; nd < cl->cl_nodes + O2FENCE_NODES_MAX; nd++)
			if (nd->nd_nsteps)
				list_del(&nd->nd_record.re_ob.ob_list);
	}
	free_cluster(cl);
	return 0;
}

static int change_region(struct sk_buff *skb, struct genl_info *info)
{
	bool add = info->genlhdr->cmd == O2FENCE_CMD_REGION_ADD;
	int err;

	if (lacks(info, O2FENCE_A_REGION, add ? O2FENCE_A_BLOCKS : O2FENCE_A_REGION))
		return -EINVAL;
	guard(mutex)(&config_mutex);
	struct o2fence_heartbeat *hb = symbol_get(o2fence_heartbeat);

	if (!hb)
		return refuse(info, NULL, -ENODEV, "no heartbeat: o2fence_o2cb is not loaded");
	err = hb->hb_region(info);
	symbol_put(o2fence_heartbeat);
	return err;
}

static int set_memalloc(struct sk_buff *skb, struct genl_info *info)
{
	if (!capable(CAP_SYS_RESOURCE))
		return refuse(info, NULL, -EPERM, "needs CAP_SYS_RESOURCE");
	/* A doit runs in the sender's context; only current may change its own flags. */
	current->flags |= PF_MEMALLOC;
	return 0;
}

/* BIND: refused to who breaks R19, as far as the kernel can see. */
static int bind_method(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *name = info->attrs[O2FENCE_A_METHOD];
	struct task_struct *thread;
	bool flagged = true;

	if (lacks(info, O2FENCE_A_METHOD, O2FENCE_A_METHOD))
		return -EINVAL;
	rcu_read_lock();
	for_each_thread(current, thread)
		flagged &= !!(thread->flags & PF_MEMALLOC);
	rcu_read_unlock();
	if (!flagged)
		return refuse(info, NULL, -EPERM, "a thread is not in PF_MEMALLOC mode");
	if ((current->mm->def_flags & (VM_LOCKED | VM_LOCKONFAULT)) != VM_LOCKED)
		return refuse(info, NULL, -EPERM, "memory is not locked, now and in future");
	node_register_fence_method(nla_data(name), ask_bridge, THIS_MODULE); /* if new */
	guard(o2fence)();
	struct o2fence_method *fm = o2fence_method(nla_data(name));

	if (!fm || fm->fm_owner != THIS_MODULE || fm->fm_portid)
		return refuse(info, name, -EBUSY, "another bridge or a module carries it");
	fm->fm_portid = info->snd_portid;
	return 0;
}

/*
 * FENCE: somebody privileged says that a node must be fenced, an administrator or a heartbeat.
 * FENCED: the answer, which must be to what was asked, and come from whoever was asked.
 */
static int node_command(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **tb = info->attrs, *life = tb[O2FENCE_A_INCARNATION];
	struct nlattr *reason = tb[O2FENCE_A_REASON];
	bool start = info->genlhdr->cmd == O2FENCE_CMD_FENCE, stale;
	int err;

	if (lacks(info, O2FENCE_A_CLUSTER, O2FENCE_A_CLUSTER) ||
	    lacks(info, O2FENCE_A_NODE, O2FENCE_A_NODE) ||
	    lacks(info, start ? O2FENCE_A_REASON : O2FENCE_A_INCARNATION,
		  start ? O2FENCE_A_REASON : O2FENCE_A_ERRMSG))
		return -EINVAL;
	guard(o2fence)();
	struct o2fence_cluster *cl = o2fence_cluster(nla_data(tb[O2FENCE_A_CLUSTER]));

	if (!cl)
		return refuse(info, tb[O2FENCE_A_CLUSTER], -ENOENT, "not joined");
	struct o2fence_node *nd = &cl->cl_nodes[nla_get_u32(tb[O2FENCE_A_NODE])];
	struct o2fence_record *re = &nd->nd_record;

	if (!nd->nd_nsteps)
		return refuse(info, tb[O2FENCE_A_NODE], -ENOENT, "no such node");
	if (start) {
		err = o2fence_fence(nd, life ? nla_get_u64(life) : 0, nla_data(reason));
		return err ? refuse(info, NULL, err, "a fence is under way, or of this node") : 0;
	}
	stale = re->re_state != O2FENCE_EVENT_INITIATED ||
		re->re_id != nla_get_u64(tb[O2FENCE_A_REQUEST]) ||
		re->re_incarnation != nla_get_u64(life) ||
		re->re_attempt != nla_get_u32(tb[O2FENCE_A_ATTEMPT]);
	if (!stale && (nd->nd_portid == info->snd_portid || nd->nd_ask_admin)) {
		settle(nd, -nla_get_u32(tb[O2FENCE_A_ERRNO]), nla_data(tb[O2FENCE_A_ERRMSG]));
		return 0;
	}
	tell(nd, O2FENCE_EVENT_REFUSED);
	if (stale)
		return refuse(info, NULL, -ESTALE, "stale: not the attempt under way");
	return refuse(info, NULL, -EPERM, "foreign: this socket was not asked");
}

/* The objects of one kind. A change between two calls may upset the count, as in any dump. */
static int dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	u8 kind = ((struct genlmsghdr *)nlmsg_data(cb->nlh))->cmd;
	struct o2fence_object *ob;
	long skip = cb->args[0];
	void *hdr;

	guard(o2fence)();
	list_for_each_entry(ob, &objects, ob_list) {
		if (ob->ob_kind != kind || skip-- > 0)
			continue;
		hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq, &family,
				  NLM_F_MULTI, kind);
		if (!hdr || ob->ob_put(skb, ob)) {
			genlmsg_cancel(skb, hdr);
			break;
		}
		genlmsg_end(skb, hdr);
		cb->args[0]++;
	}
	return skb->len;
}

#define STRING(max) { .type = NLA_NUL_STRING, .len = max }
#define RANGE(from, to) \
	NLA_POLICY_FULL_RANGE(NLA_U32, &((struct netlink_range_validation){ from, to }))
#define NAME	STRING(O2FENCE_NAME_MAX)
#define NODE	RANGE(0, O2FENCE_NODES_MAX - 1)

static const struct nla_policy policy[__O2FENCE_A_MAX] = {
	[O2FENCE_A_CLUSTER] = NAME, [O2FENCE_A_METHOD] = NAME, [O2FENCE_A_REGION] = NAME,
	[O2FENCE_A_PARAMS] = STRING(O2FENCE_PARAMS_MAX),
	[O2FENCE_A_ERRMSG ... O2FENCE_A_REASON] = STRING(O2FENCE_TEXT_MAX),
	[O2FENCE_A_THIS_NODE] = NODE, [O2FENCE_A_NODE] = NODE,
	[O2FENCE_A_MISSED] = RANGE(2, 1000), [O2FENCE_A_PERIOD_MS] = RANGE(100, 60000),
	[O2FENCE_A_GATE_MS] = RANGE(0, 60000), [O2FENCE_A_FENCE_DELAY_MS] = RANGE(0, 600000),
	[O2FENCE_A_TIMEOUT_MS] = RANGE(1, 86400000), [O2FENCE_A_ERRNO] = RANGE(0, MAX_ERRNO),
	[O2FENCE_A_BLOCK_BYTES] = RANGE(512, 4096),
	[O2FENCE_A_BLOCKS] = RANGE(1, O2FENCE_NODES_MAX),
	[O2FENCE_A_FD] = { .type = NLA_U32 }, [O2FENCE_A_ATTEMPT] = { .type = NLA_U32 },
	[O2FENCE_A_START_BLOCK] = { .type = NLA_U64 },
	[O2FENCE_A_INCARNATION ... O2FENCE_A_REQUEST] = { .type = NLA_U64 },
};

#define DO(command, function) { .cmd = command, .flags = GENL_ADMIN_PERM, .doit = function }
#define DUMP(command) { .cmd = command, .flags = GENL_ADMIN_PERM, .dumpit = dump }

static const struct genl_small_ops ops[] = {
	DO(O2FENCE_CMD_JOIN, join), DO(O2FENCE_CMD_LEAVE, leave),
	DO(O2FENCE_CMD_FENCE, node_command), DO(O2FENCE_CMD_FENCED, node_command),
	DO(O2FENCE_CMD_REGION_ADD, change_region), DO(O2FENCE_CMD_REGION_DEL, change_region),
	DO(O2FENCE_CMD_MEMALLOC, set_memalloc), DO(O2FENCE_CMD_BIND, bind_method),
	DUMP(O2FENCE_CMD_CLUSTER_GET), DUMP(O2FENCE_CMD_NODE_GET), DUMP(O2FENCE_CMD_METHOD_GET),
	DUMP(O2FENCE_CMD_REGION_GET), DUMP(O2FENCE_CMD_REQUEST_GET),
};

static const struct genl_multicast_group events = {
	.name = O2FENCE_MCGRP_EVENTS, .flags = GENL_MCAST_CAP_NET_ADMIN
};

static struct genl_family family __ro_after_init = {
	.name = O2FENCE_GENL_NAME, .version = O2FENCE_GENL_VERSION, .module = THIS_MODULE,
	.policy = policy, .maxattr = __O2FENCE_A_MAX - 1,
	.small_ops = ops, .n_small_ops = ARRAY_SIZE(ops),
	.mcgrps = &events, .n_mcgrps = 1,
	.parallel_ops = true,		/* a FENCED must not queue behind a JOIN that allocates */
};

/* A socket was closed, by its process or by its death, and what it was asked moves on at once. */
static int socket_closed(struct notifier_block *nb, unsigned long action, void *data)
{
	struct netlink_notify *notify = data;
	struct o2fence_object *ob;

	if (action != NETLINK_URELEASE || notify->protocol != NETLINK_GENERIC ||
	    !net_eq(notify->net, &init_net))
		return NOTIFY_DONE;
	guard(o2fence)();
	list_for_each_entry(ob, &objects, ob_list) {
		struct o2fence_method *fm = container_of(ob, struct o2fence_method, fm_ob);
		struct o2fence_node *nd = container_of(ob, struct o2fence_node, nd_record.re_ob);

		if (ob->ob_kind == O2FENCE_CMD_METHOD_GET && fm->fm_portid == notify->portid)
			fm->fm_portid = 0;
		if (ob->ob_kind == O2FENCE_CMD_NODE_GET && nd->nd_portid == notify->portid)
			settle(nd, -ECONNRESET, "the bridge is gone");
	}
	return NOTIFY_DONE;
}

static struct notifier_block notifier = { .notifier_call = socket_closed };

static int __init o2fence_init(void)
{
	int err = netlink_register_notifier(&notifier);

	if (err)
		return err;
	/* ORDER: last, for from here on user space can come in. */
	err = genl_register_family(&family);
	if (err)
		netlink_unregister_notifier(&notifier);
	return err;
}

/* A joined cluster pins its methods' modules, and these need us: none is joined. */
static void __exit o2fence_exit(void)
{
	struct o2fence_object *ob, *next;

	genl_unregister_family(&family);
	netlink_unregister_notifier(&notifier);
	/* What was bound is left; the history is not allocated. */
	list_for_each_entry_safe(ob, next, &objects, ob_list)
		if (ob->ob_kind == O2FENCE_CMD_METHOD_GET)
			kfree(container_of(ob, struct o2fence_method, fm_ob));
}

module_init(o2fence_init);
module_exit(o2fence_exit);
MODULE_DESCRIPTION("Fencing harness: methods, clusters, requests");
MODULE_LICENSE("GPL");
MODULE_ALIAS_GENL_FAMILY(O2FENCE_GENL_NAME);
