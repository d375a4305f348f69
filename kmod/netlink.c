// SPDX-License-Identifier: GPL-2.0-only
/* netlink.c - the family: policy, dumps, events; and o2fence.ko's coming and going */

#include <linux/netlink.h>
#include <linux/slab.h>
#include "core.h"
#define CREATE_TRACE_POINTS
#include "trace.h"

/* Events and dumps may fail; they must not draw on the reserve that the fence path needs. */
#define O2FENCE_GFP_EVENT (GFP_NOWAIT | __GFP_NOWARN | __GFP_NOMEMALLOC)

#define O2FENCE_STRING(max) { .type = NLA_NUL_STRING, .len = (max) }
#define O2FENCE_RANGE(from, to) \
	NLA_POLICY_FULL_RANGE(NLA_U32, &((struct netlink_range_validation){ (from), (to) }))

static const struct nla_policy o2fence_policy[__O2FENCE_A_MAX] = {
	[O2FENCE_A_CLUSTER]		= O2FENCE_STRING(O2FENCE_NAME_MAX),
	[O2FENCE_A_THIS_NODE]		= O2FENCE_RANGE(0, O2FENCE_NODES_MAX - 1),
	[O2FENCE_A_MISSED]		= O2FENCE_RANGE(2, 1000),
	[O2FENCE_A_PERIOD_MS]		= O2FENCE_RANGE(100, 60000),
	[O2FENCE_A_GATE_MS]		= O2FENCE_RANGE(0, 60000),
	[O2FENCE_A_FENCE_DELAY_MS]	= O2FENCE_RANGE(0, 600000),
	[O2FENCE_A_NODE]		= O2FENCE_RANGE(0, O2FENCE_NODES_MAX - 1),
	[O2FENCE_A_METHOD]		= O2FENCE_STRING(O2FENCE_NAME_MAX),
	[O2FENCE_A_TIMEOUT_MS]		= O2FENCE_RANGE(1, 86400000),
	[O2FENCE_A_PARAMS]		= O2FENCE_STRING(O2FENCE_PARAMS_MAX),
	[O2FENCE_A_REGION]		= O2FENCE_STRING(O2FENCE_NAME_MAX),
	[O2FENCE_A_FD]			= { .type = NLA_U32 },
	[O2FENCE_A_START_BLOCK]		= { .type = NLA_U64 },
	[O2FENCE_A_BLOCK_BYTES]		= O2FENCE_RANGE(512, 4096),
	[O2FENCE_A_BLOCKS]		= O2FENCE_RANGE(1, O2FENCE_NODES_MAX),
	[O2FENCE_A_INCARNATION]		= { .type = NLA_U64 },
	[O2FENCE_A_REQUEST]		= { .type = NLA_U64 },
	[O2FENCE_A_ATTEMPT]		= { .type = NLA_U32 },
	[O2FENCE_A_ERRNO]		= O2FENCE_RANGE(0, MAX_ERRNO),
	[O2FENCE_A_ERRMSG]		= O2FENCE_STRING(O2FENCE_TEXT_MAX),
	[O2FENCE_A_REASON]		= O2FENCE_STRING(O2FENCE_TEXT_MAX),
};

static struct genl_family o2fence_family;

int o2fence_put_record(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_record *re = container_of(ob, struct o2fence_record, re_ob);
	struct nlattr *at;
	int i, err;

	err = nla_put_string(skb, O2FENCE_A_CLUSTER, re->re_cluster) ?:
	      nla_put_u32(skb, O2FENCE_A_NODE, re->re_node) ?:
	      nla_put_u64_64bit(skb, O2FENCE_A_INCARNATION, re->re_incarnation, O2FENCE_A_PAD) ?:
	      nla_put_u64_64bit(skb, O2FENCE_A_REQUEST, re->re_id, O2FENCE_A_PAD) ?:
	      nla_put_u32(skb, O2FENCE_A_ATTEMPT, re->re_attempt) ?:
	      nla_put_u32(skb, O2FENCE_A_ERRNO, re->re_err) ?:
	      nla_put_u32(skb, O2FENCE_A_STATE, re->re_state) ?:
	      nla_put_string(skb, O2FENCE_A_METHOD, re->re_method) ?:
	      nla_put_string(skb, O2FENCE_A_REASON, re->re_reason) ?:
	      nla_put_string(skb, O2FENCE_A_ERRMSG, re->re_msg);
	at = nla_nest_start(skb, O2FENCE_A_AT);
	if (err || !at)
		return -EMSGSIZE;
	for (i = 1; !err && i < __O2FENCE_EVENT_MAX; i++)
		if (re->re_at[i])
			err = nla_put_u64_64bit(skb, i, re->re_at[i], O2FENCE_A_UNSPEC);
	nla_nest_end(skb, at);
	return err;
}

/* A message about a record; the caller may add attributes and ends it with nlmsg_end(). */
struct sk_buff *o2fence_new_msg(u8 cmd, struct o2fence_record *re, gfp_t gfp)
{
	struct sk_buff *skb = genlmsg_new(GENLMSG_DEFAULT_SIZE, gfp);

	if (skb && genlmsg_put(skb, 0, 0, &o2fence_family, 0, cmd) &&
	    !o2fence_put_record(skb, &re->re_ob))
		return skb;
	nlmsg_free(skb);
	return NULL;
}

/* A step of a request: its time, its tracepoint, its multicast. Caller holds o2fence_lock. */
void o2fence_tell(struct o2fence_record *re, enum o2fence_event event)
{
	struct sk_buff *skb;

	re->re_at[event] = ktime_get_real_ns();
	trace_o2fence_event(re, event);
	if (!genl_has_listeners(&o2fence_family, &init_net, 0))
		return;
	skb = o2fence_new_msg(O2FENCE_CMD_EVENT, re, O2FENCE_GFP_EVENT);
	if (!skb) {
		genl_set_err(&o2fence_family, &init_net, 0, 0, -ENOBUFS);	/* one was lost */
		return;
	}
	nla_put_u32(skb, O2FENCE_A_EVENT, event);
	nlmsg_end(skb, nlmsg_hdr(skb));
	genlmsg_multicast(&o2fence_family, skb, 0, 0, O2FENCE_GFP_EVENT);
}

/* The objects of one kind. A change between two calls may upset the count, as in any dump. */
static int o2fence_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	u8 kind = ((struct genlmsghdr *)nlmsg_data(cb->nlh))->cmd;
	struct o2fence_object *ob;
	long skip = cb->args[0];
	void *hdr;

	spin_lock_bh(&o2fence_lock);
	list_for_each_entry(ob, &o2fence_objects, ob_list) {
		if (ob->ob_kind != kind || skip-- > 0)
			continue;
		hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				  &o2fence_family, NLM_F_MULTI, kind);
		if (!hdr || ob->ob_put(skb, ob)) {
			genlmsg_cancel(skb, hdr);
			break;
		}
		genlmsg_end(skb, hdr);
		cb->args[0]++;
	}
	spin_unlock_bh(&o2fence_lock);
	return skb->len;
}

#define O2FENCE_DO(command, function) \
	{ .cmd = (command), .flags = GENL_ADMIN_PERM, .doit = (function) }
#define O2FENCE_DUMP(command) \
	{ .cmd = (command), .flags = GENL_ADMIN_PERM, .dumpit = o2fence_dump }

static const struct genl_small_ops o2fence_ops[] = {
	O2FENCE_DO(O2FENCE_CMD_JOIN, o2fence_join),
	O2FENCE_DO(O2FENCE_CMD_LEAVE, o2fence_leave),
	O2FENCE_DO(O2FENCE_CMD_FENCE, o2fence_order),
	O2FENCE_DO(O2FENCE_CMD_REGION_ADD, o2fence_region),
	O2FENCE_DO(O2FENCE_CMD_REGION_DEL, o2fence_region),
	O2FENCE_DO(O2FENCE_CMD_MEMALLOC, o2fence_memalloc),
	O2FENCE_DO(O2FENCE_CMD_BIND, o2fence_bind),
	O2FENCE_DO(O2FENCE_CMD_FENCED, o2fence_fenced),
	O2FENCE_DUMP(O2FENCE_CMD_CLUSTER_GET),
	O2FENCE_DUMP(O2FENCE_CMD_NODE_GET),
	O2FENCE_DUMP(O2FENCE_CMD_METHOD_GET),
	O2FENCE_DUMP(O2FENCE_CMD_REGION_GET),
	O2FENCE_DUMP(O2FENCE_CMD_REQUEST_GET),
};

static const struct genl_multicast_group o2fence_groups[] = {
	{ .name = O2FENCE_MCGRP_EVENTS, .flags = GENL_MCAST_CAP_NET_ADMIN },
};

static struct genl_family o2fence_family __ro_after_init = {
	.name		= O2FENCE_GENL_NAME,
	.version	= O2FENCE_GENL_VERSION,
	.maxattr	= __O2FENCE_A_MAX - 1,
	.policy		= o2fence_policy,
	.module		= THIS_MODULE,
	.parallel_ops	= true,		/* a FENCED must not queue behind a JOIN that allocates */
	.small_ops	= o2fence_ops,
	.n_small_ops	= ARRAY_SIZE(o2fence_ops),
	.resv_start_op	= __O2FENCE_CMD_MAX,
	.mcgrps		= o2fence_groups,
	.n_mcgrps	= ARRAY_SIZE(o2fence_groups),
};

/* A bridge's socket was closed, by its process or by its death. Atomic context. */
static int o2fence_socket_closed(struct notifier_block *nb, unsigned long action, void *data)
{
	struct netlink_notify *notify = data;

	if (action == NETLINK_URELEASE && notify->protocol == NETLINK_GENERIC &&
	    net_eq(notify->net, &init_net))
		o2fence_unbind(notify->portid);
	return NOTIFY_DONE;
}

static struct notifier_block o2fence_notifier = { .notifier_call = o2fence_socket_closed };

static int __init o2fence_init(void)
{
	int err;

	/* WQ_MEM_RECLAIM: its rescuer makes progress when no worker can be created (R19). */
	o2fence_wq = alloc_workqueue("o2fence", WQ_MEM_RECLAIM | WQ_UNBOUND | WQ_HIGHPRI, 0);
	if (!o2fence_wq)
		return -ENOMEM;
	err = netlink_register_notifier(&o2fence_notifier);
	if (err)
		goto out_wq;
	/* ORDER: last, for from here on user space can come in. */
	err = genl_register_family(&o2fence_family);
	if (err)
		goto out_notifier;
	return 0;

out_notifier:
	netlink_unregister_notifier(&o2fence_notifier);
out_wq:
	destroy_workqueue(o2fence_wq);
	return err;
}

/* A joined cluster pins its methods' modules, and these need us: none is joined. */
static void __exit o2fence_exit(void)
{
	struct o2fence_object *ob, *next;

	genl_unregister_family(&o2fence_family);
	netlink_unregister_notifier(&o2fence_notifier);
	destroy_workqueue(o2fence_wq);
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
