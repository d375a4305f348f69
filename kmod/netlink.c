// SPDX-License-Identifier: GPL-2.0-only
/*
 * netlink.c - the family, its dumps and events, and the bridge; o2fence.ko's coming and going
 *
 * The bridge is the one linkage that carries every user-space method (R18). A method it has bound
 * is a method like any other, whose initiate sends a message to the socket that bound it.
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

#include <linux/capability.h>
#include <linux/mm.h>
#include <linux/netlink.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include "o2fence.h"
#define CREATE_TRACE_POINTS
#include "trace.h"

#define GFP_BRIDGE (GFP_NOWAIT | __GFP_NOWARN | __GFP_MEMALLOC)
#define GFP_EVENT (GFP_NOWAIT | __GFP_NOWARN | __GFP_NOMEMALLOC)

static struct genl_family family;

/* Whether a message lacks one of the attributes from first to last, and is refused. */
bool o2fence_lacks(struct genl_info *info, int first, int last)
{
	for (; first <= last; first++)
		if (!info->attrs[first])
			return refuse(info, NULL, true, "an attribute is missing");
	return false;
}

int o2fence_put_record(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_record *re = container_of(ob, struct o2fence_record, re_ob);
	struct nlattr *at;
	int i, err;

	err = nla_put_string(skb, O2FENCE_A_CLUSTER, ob->ob_name) ?:
	      nla_put_u32(skb, O2FENCE_A_NODE, re->re_node) ?:
	      nla_put_u64_64bit(skb, O2FENCE_A_INCARNATION, re->re_incarnation, O2FENCE_A_PAD) ?:
	      nla_put_u64_64bit(skb, O2FENCE_A_REQUEST, re->re_id, O2FENCE_A_PAD) ?:
	      nla_put_u32(skb, O2FENCE_A_ATTEMPT, re->re_attempt) ?:
	      nla_put_u32(skb, O2FENCE_A_ERRNO, re->re_err) ?:
	      nla_put_u32(skb, O2FENCE_A_STATE, re->re_state) ?:
	      nla_put_string(skb, O2FENCE_A_METHOD, re->re_method) ?:
	      nla_put_string(skb, O2FENCE_A_REASON, re->re_reason) ?:
	      nla_put_string(skb, O2FENCE_A_ERRMSG, re->re_msg);
	at = err ? NULL : nla_nest_start(skb, O2FENCE_A_AT);
	if (!at)
		return -EMSGSIZE;
	for (i = 1; !err && i < __O2FENCE_EVENT_MAX; i++)
		if (re->re_at[i])
			err = nla_put_u64_64bit(skb, i, re->re_at[i], O2FENCE_A_UNSPEC);
	nla_nest_end(skb, at);
	return err;
}

/* A message about a node; the caller adds what is missing, for which there is room, and ends it. */
static struct sk_buff *new_msg(u8 cmd, struct o2fence_node *nd, gfp_t gfp)
{
	struct sk_buff *skb = genlmsg_new(GENLMSG_DEFAULT_SIZE, gfp);

	if (skb && genlmsg_put(skb, 0, 0, &family, 0, cmd))
		o2fence_put_record(skb, &nd->nd_record.re_ob);
	return skb;
}

/* A step of a request: its time, its tracepoint, its multicast. Caller holds o2fence_lock. */
void o2fence_tell(struct o2fence_node *nd, enum o2fence_event event)
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

/* The initiate of all that a bridge carries: INITIATE, or CANCEL once the attempt has ended. */
int o2fence_ask_bridge(struct o2fence_node *nd)
{
	guard(o2fence)();
	bool wanted = nd->nd_record.re_state == O2FENCE_EVENT_INITIATED;
	u8 cmd = wanted ? O2FENCE_CMD_INITIATE : O2FENCE_CMD_CANCEL;
	struct sk_buff *skb = nd->nd_portid ? new_msg(cmd, nd, GFP_BRIDGE) : NULL;

	if (!skb)
		return nd->nd_portid ? -ENOMEM : -ENOTCONN;
	nla_put_u32(skb, O2FENCE_A_TIMEOUT_MS, nd->nd_step->st_timeout_ms);
	nla_put_string(skb, O2FENCE_A_PARAMS, nd->nd_step->st_params);
	nlmsg_end(skb, nlmsg_hdr(skb));
	/* What came from the reserve would be dropped, as if it came in from a network. */
	skb->pfmemalloc = false;
	return genlmsg_unicast(&init_net, skb, nd->nd_portid);
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

	if (o2fence_lacks(info, O2FENCE_A_METHOD, O2FENCE_A_METHOD))
		return -EINVAL;
	rcu_read_lock();
	for_each_thread(current, thread)
		flagged &= !!(thread->flags & PF_MEMALLOC);
	rcu_read_unlock();
	if (!flagged)
		return refuse(info, NULL, -EPERM, "a thread is not in PF_MEMALLOC mode");
	if ((current->mm->def_flags & (VM_LOCKED | VM_LOCKONFAULT)) != VM_LOCKED)
		return refuse(info, NULL, -EPERM, "memory is not locked, now and in future");
	node_register_fence_method(nla_data(name), o2fence_ask_bridge, THIS_MODULE); /* if new */
	guard(o2fence)();
	struct o2fence_method *fm = o2fence_method(nla_data(name));

	if (!fm || fm->fm_owner != THIS_MODULE || fm->fm_portid)
		return refuse(info, name, -EBUSY, "another bridge or a module carries it");
	fm->fm_portid = info->snd_portid;
	return 0;
}

/* The node that a message names, or NULL. Caller holds o2fence_lock. */
static struct o2fence_node *named_node(struct genl_info *info)
{
	struct nlattr *name = info->attrs[O2FENCE_A_CLUSTER], *node = info->attrs[O2FENCE_A_NODE];
	struct o2fence_cluster *cl = name && node ? o2fence_cluster(nla_data(name)) : NULL;
	struct o2fence_node *nd = cl ? &cl->cl_nodes[nla_get_u32(node)] : NULL;

	if (nd && nd->nd_nsteps)
		return nd;
	return refuse(info, cl ? node : name, NULL, "not joined, or no such node");
}

/* FENCE: somebody privileged says that a node must be fenced, an administrator or a heartbeat. */
static int fence(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *incarnation = info->attrs[O2FENCE_A_INCARNATION];
	struct nlattr *reason = info->attrs[O2FENCE_A_REASON];
	int err;

	if (o2fence_lacks(info, O2FENCE_A_REASON, O2FENCE_A_REASON))
		return -EINVAL;
	guard(o2fence)();
	struct o2fence_node *nd = named_node(info);

	if (!nd)
		return -ENOENT;
	err = o2fence_fence(nd, incarnation ? nla_get_u64(incarnation) : 0, nla_data(reason));
	return err ? refuse(info, NULL, err, "a fence is under way, or it is this very node") : 0;
}

/* FENCED: the answer must be to what was asked, and come from whoever was asked. */
static int fenced(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **tb = info->attrs;

	if (o2fence_lacks(info, O2FENCE_A_INCARNATION, O2FENCE_A_ERRMSG))
		return -EINVAL;
	guard(o2fence)();
	struct o2fence_node *nd = named_node(info);

	if (!nd)
		return -ENOENT;
	struct o2fence_record *re = &nd->nd_record;
	bool stale = re->re_state != O2FENCE_EVENT_INITIATED ||
		     re->re_id != nla_get_u64(tb[O2FENCE_A_REQUEST]) ||
		     re->re_incarnation != nla_get_u64(tb[O2FENCE_A_INCARNATION]) ||
		     re->re_attempt != nla_get_u32(tb[O2FENCE_A_ATTEMPT]);

	if (!stale && (nd->nd_portid == info->snd_portid || nd->nd_ask_admin)) {
		o2fence_settle(nd, -nla_get_u32(tb[O2FENCE_A_ERRNO]), nla_data(tb[O2FENCE_A_ERRMSG]));
		return 0;
	}
	o2fence_tell(nd, O2FENCE_EVENT_REFUSED);
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
	list_for_each_entry(ob, &o2fence_objects, ob_list) {
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

static const struct nla_policy policy[__O2FENCE_A_MAX] = {
	[O2FENCE_A_CLUSTER]			= STRING(O2FENCE_NAME_MAX),
	[O2FENCE_A_THIS_NODE]			= RANGE(0, O2FENCE_NODES_MAX - 1),
	[O2FENCE_A_MISSED]			= RANGE(2, 1000),
	[O2FENCE_A_PERIOD_MS]			= RANGE(100, 60000),
	[O2FENCE_A_GATE_MS]			= RANGE(0, 60000),
	[O2FENCE_A_FENCE_DELAY_MS]		= RANGE(0, 600000),
	[O2FENCE_A_NODE]			= RANGE(0, O2FENCE_NODES_MAX - 1),
	[O2FENCE_A_METHOD]			= STRING(O2FENCE_NAME_MAX),
	[O2FENCE_A_TIMEOUT_MS]			= RANGE(1, 86400000),
	[O2FENCE_A_PARAMS]			= STRING(O2FENCE_PARAMS_MAX),
	[O2FENCE_A_REGION]			= STRING(O2FENCE_NAME_MAX),
	[O2FENCE_A_FD]				= { .type = NLA_U32 },
	[O2FENCE_A_START_BLOCK]			= { .type = NLA_U64 },
	[O2FENCE_A_BLOCK_BYTES]			= RANGE(512, 4096),
	[O2FENCE_A_BLOCKS]			= RANGE(1, O2FENCE_NODES_MAX),
	[O2FENCE_A_INCARNATION ... O2FENCE_A_REQUEST] = { .type = NLA_U64 },
	[O2FENCE_A_ATTEMPT]			= { .type = NLA_U32 },
	[O2FENCE_A_ERRNO]			= RANGE(0, MAX_ERRNO),
	[O2FENCE_A_ERRMSG ... O2FENCE_A_REASON]	= STRING(O2FENCE_TEXT_MAX),
};

#define DO(command, function) { .cmd = command, .flags = GENL_ADMIN_PERM, .doit = function }
#define DUMP(command) { .cmd = command, .flags = GENL_ADMIN_PERM, .dumpit = dump }

static const struct genl_small_ops ops[] = {
	DO(O2FENCE_CMD_JOIN, o2fence_join),
	DO(O2FENCE_CMD_LEAVE, o2fence_leave),
	DO(O2FENCE_CMD_FENCE, fence),
	DO(O2FENCE_CMD_REGION_ADD, o2fence_region),
	DO(O2FENCE_CMD_REGION_DEL, o2fence_region),
	DO(O2FENCE_CMD_MEMALLOC, set_memalloc),
	DO(O2FENCE_CMD_BIND, bind_method),
	DO(O2FENCE_CMD_FENCED, fenced),
	DUMP(O2FENCE_CMD_CLUSTER_GET),
	DUMP(O2FENCE_CMD_NODE_GET),
	DUMP(O2FENCE_CMD_METHOD_GET),
	DUMP(O2FENCE_CMD_REGION_GET),
	DUMP(O2FENCE_CMD_REQUEST_GET),
};

static const struct genl_multicast_group events = {
	.name = O2FENCE_MCGRP_EVENTS, .flags = GENL_MCAST_CAP_NET_ADMIN
};

static struct genl_family family __ro_after_init = {
	.name		= O2FENCE_GENL_NAME,
	.version	= O2FENCE_GENL_VERSION,
	.maxattr	= __O2FENCE_A_MAX - 1,
	.policy		= policy,
	.module		= THIS_MODULE,
	.parallel_ops	= true,		/* a FENCED must not queue behind a JOIN that allocates */
	.small_ops	= ops,
	.n_small_ops	= ARRAY_SIZE(ops),
	.mcgrps		= &events,
	.n_mcgrps	= 1,
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
	list_for_each_entry(ob, &o2fence_objects, ob_list) {
		struct o2fence_method *fm = container_of(ob, struct o2fence_method, fm_ob);
		struct o2fence_node *nd = container_of(ob, struct o2fence_node, nd_record.re_ob);

		if (ob->ob_kind == O2FENCE_CMD_METHOD_GET && fm->fm_portid == notify->portid)
			fm->fm_portid = 0;
		if (ob->ob_kind == O2FENCE_CMD_NODE_GET && nd->nd_portid == notify->portid)
			o2fence_settle(nd, -ECONNRESET, "the bridge is gone");
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
	list_for_each_entry_safe(ob, next, &o2fence_objects, ob_list)
		if (ob->ob_kind == O2FENCE_CMD_METHOD_GET)
			kfree(container_of(ob, struct o2fence_method, fm_ob));
}

module_init(o2fence_init);
module_exit(o2fence_exit);
MODULE_DESCRIPTION("Fencing harness: methods, clusters, requests");
MODULE_LICENSE("GPL");
MODULE_ALIAS_GENL_FAMILY(O2FENCE_GENL_NAME);
