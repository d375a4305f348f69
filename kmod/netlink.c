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
#include <linux/pid_namespace.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <net/sock.h>
#include "o2fence.h"
#define CREATE_TRACE_POINTS
#include "trace.h"

#define GFP_BRIDGE (GFP_NOWAIT | __GFP_NOWARN | __GFP_MEMALLOC)
#define GFP_EVENT (GFP_NOWAIT | __GFP_NOWARN | __GFP_NOMEMALLOC)
#define MESSAGE_BYTES 384	/* of attributes, but for reason, errmsg and params */

void o2fence_put_record(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_record *re = container_of(ob, struct o2fence_record, re_ob);

	nla_put_string(skb, O2FENCE_A_CLUSTER, ob->ob_name);
	nla_put_u32(skb, O2FENCE_A_NODE, ob->ob_num);
	nla_put_u64_64bit(skb, O2FENCE_A_INCARNATION, re->re_incarnation, O2FENCE_A_PAD);
	nla_put_u64_64bit(skb, O2FENCE_A_REQUEST, re->re_id, O2FENCE_A_PAD);
	nla_put_u32(skb, O2FENCE_A_ATTEMPT, re->re_attempt);
	nla_put_u32(skb, O2FENCE_A_ERRNO, re->re_err);
	nla_put_u32(skb, O2FENCE_A_STATE, re->re_state);
	nla_put_string(skb, O2FENCE_A_METHOD, re->re_method);
	nla_put_string(skb, O2FENCE_A_REASON, re->re_reason);
	nla_put_string(skb, O2FENCE_A_ERRMSG, re->re_msg);
	nla_put(skb, O2FENCE_A_AT, sizeof(re->re_at), re->re_at);
}

/*
 * A message about a node, as large as it has to be: to zero a page, and then to copy it because
 * netlink finds it half empty, takes longer than all else here. The caller adds what is missing,
 * for which there is room, and ends it.
 */
static struct sk_buff *new_msg(u8 cmd, struct o2fence_node *nd, const char *params, gfp_t gfp)
{
	struct o2fence_record *re = &nd->nd_record;
	size_t texts = strlen(re->re_reason) + strlen(re->re_msg) + strlen(params);
	struct sk_buff *skb = genlmsg_new(MESSAGE_BYTES + texts, gfp);

	if (skb && genlmsg_put(skb, 0, 0, &o2fence_nl_family, 0, cmd))
		o2fence_put_record(skb, &re->re_ob);
	return skb;
}

/**
 * o2fence_tell - a step of a request, or what a heartbeat saw of a node
 * @nd: the node
 * @event: which one; those up to O2FENCE_EVENT_OBSOLETE are a request's state
 *
 * Remembers its time, and tells it by a tracepoint and a multicast. Who listens and does not get it
 * for want of memory is told that something was lost.
 *
 * Context: process or softirq context, with o2fence_lock held.
 */
void o2fence_tell(struct o2fence_node *nd, enum o2fence_event event)
{
	struct sk_buff *skb;

	if (event <= O2FENCE_EVENT_OBSOLETE)
		nd->nd_record.re_state = event;
	nd->nd_record.re_at[event] = ktime_get_real_ns();
	trace_o2fence_event(&nd->nd_record, event);
	if (!genl_has_listeners(&o2fence_nl_family, &init_net, 0))
		return;
	skb = new_msg(O2FENCE_CMD_EVENT, nd, "", GFP_EVENT);
	if (!skb) {
		genl_set_err(&o2fence_nl_family, &init_net, 0, 0, -ENOBUFS);
		return;
	}
	nla_put_u32(skb, O2FENCE_A_EVENT, event);
	nlmsg_end(skb, nlmsg_hdr(skb));
	genlmsg_multicast(&o2fence_nl_family, skb, 0, 0, GFP_EVENT);
}
EXPORT_SYMBOL_GPL(o2fence_tell);

/* What a process breaks of R19, as far as the kernel can see, or NULL. */
static const char *broken_rule(pid_t pid)
{
	const char *broken = "the process has ended";
	struct task_struct *task, *thread;

	rcu_read_lock();
	task = pid_task(find_pid_ns(pid, &init_pid_ns), PIDTYPE_TGID);
	if (task) {
		broken = "memory is not locked, now and in future";
		task_lock(task);
		if (task->mm && (task->mm->def_flags & (VM_LOCKED | VM_LOCKONFAULT)) == VM_LOCKED)
			broken = NULL;
		task_unlock(task);
		for_each_thread(task, thread)
			if (!(thread->flags & PF_MEMALLOC))
				broken = "a thread is not in PF_MEMALLOC mode";
	}
	rcu_read_unlock();
	return broken;
}

/* The initiate of all that a bridge carries: INITIATE, or CANCEL once the attempt has ended. */
int o2fence_ask_bridge(struct o2fence_node *nd)
{
	struct o2fence_step *st = nd->nd_step;

	if (!nd->nd_portid)
		return -ENOTCONN;
	/* Not under o2fence_lock, for which softirqs wait that may have interrupted a task_lock. */
	if (nd->nd_record.re_state == O2FENCE_EVENT_INITIATED &&
	    broken_rule(st->st_method->fm_process))
		return -EPERM;
	guard(o2fence)();
	u8 cmd = nd->nd_record.re_state == O2FENCE_EVENT_INITIATED ? O2FENCE_CMD_INITIATE :
								     O2FENCE_CMD_CANCEL;
	struct sk_buff *skb = new_msg(cmd, nd, st->st_params, GFP_BRIDGE);

	if (!skb)
		return -ENOMEM;
	nla_put_u32(skb, O2FENCE_A_TIMEOUT_MS, st->st_timeout_ms);
	nla_put_string(skb, O2FENCE_A_PARAMS, st->st_params);
	nlmsg_end(skb, nlmsg_hdr(skb));
	/* What came from the reserve would be dropped, as if it came in from a network. */
	skb->pfmemalloc = false;
	return genlmsg_unicast(&init_net, skb, nd->nd_portid);
}

int o2fence_nl_memalloc_doit(struct sk_buff *skb, struct genl_info *info)
{
	if (!capable(CAP_SYS_RESOURCE))
		return refuse(info, NULL, -EPERM, "needs CAP_SYS_RESOURCE");
	/* A doit runs in the sender's context; only current may change its own flags. */
	current->flags |= PF_MEMALLOC;
	return 0;
}

/* What is received on a socket may take from the reserve from now on (R20), as for nbd's. */
int o2fence_nl_memalloc_socket_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *fd = info->attrs[O2FENCE_A_FD];
	int err;
	struct socket *sock = sockfd_lookup(nla_get_u32(fd), &err);

	if (!sock)
		return refuse(info, fd, err, "not a socket");
	sk_set_memalloc(sock->sk);
	sockfd_put(sock);
	return 0;
}

/* BIND: refused to who breaks R19, as far as the kernel can see. */
int o2fence_nl_bind_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *name = info->attrs[O2FENCE_A_METHOD];

	info->extack->_msg = broken_rule(current->tgid);
	if (info->extack->_msg)
		return -EPERM;
	node_register_fence_method(nla_data(name), o2fence_ask_bridge, THIS_MODULE); /* if new */
	guard(o2fence)();
	struct o2fence_method *fm = o2fence_method(nla_data(name));

	if (!fm || fm->fm_owner != THIS_MODULE || fm->fm_portid)
		return refuse(info, name, -EBUSY, "another bridge or a module carries it");
	fm->fm_portid = info->snd_portid;
	fm->fm_process = current->tgid;
	return 0;
}

/* The node that a message names. o2fence_lock is held. */
static struct o2fence_node *named_node(struct genl_info *info)
{
	struct nlattr *cluster = info->attrs[O2FENCE_A_CLUSTER], *num = info->attrs[O2FENCE_A_NODE];

	return o2fence_node(nla_data(cluster), nla_get_u32(num)) ?:
	       refuse(info, num, NULL, "no such node is joined");
}

/* FENCE: somebody privileged says that a node must be fenced, an administrator or a heartbeat. */
int o2fence_nl_fence_doit(struct sk_buff *skb, struct genl_info *info)
{
	u64 incarnation = nla_get_u64(info->attrs[O2FENCE_A_INCARNATION]);
	int err;

	guard(o2fence)();
	struct o2fence_node *nd = named_node(info);

	if (!nd)
		return -ENOENT;
	err = o2fence_fence(nd, incarnation, nla_data(info->attrs[O2FENCE_A_REASON]));
	return err ? refuse(info, NULL, err, "a fence of it is under way") : 0;
}

/* FENCED: the answer must be to what was asked, and come from whoever was asked. */
int o2fence_nl_fenced_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **tb = info->attrs, *msg = tb[O2FENCE_A_ERRMSG];

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
		o2fence_settle(nd, -nla_get_u32(tb[O2FENCE_A_ERRNO]), nla_data(msg));
		return 0;
	}
	o2fence_tell(nd, O2FENCE_EVENT_REFUSED);
	if (stale)
		return refuse(info, NULL, -ESTALE, "stale: not the attempt under way");
	return refuse(info, NULL, -EPERM, "foreign: this socket was not asked");
}

/* Regions are the heartbeat's affair. */
int o2fence_nl_region_add_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct o2fence_heartbeat *hb __free(heartbeat) = symbol_get(o2fence_heartbeat);

	if (!hb)
		return refuse(info, NULL, -ENODEV, "no heartbeat: o2fence_o2cb is not loaded");
	return hb->hb_watch(info);
}

int o2fence_nl_region_del_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *name = info->attrs[O2FENCE_A_REGION];
	struct o2fence_object *ob;

	scoped_guard(o2fence) {
		ob = o2fence_find(O2FENCE_CMD_REGION_GET, nla_data(name), 0);
		if (!ob)
			return refuse(info, name, -ENOENT, "not watched");
		list_del(&ob->ob_list);
	}
	ob->ob_del(ob);
	symbol_put(o2fence_heartbeat);	/* taken by hb_watch */
	return 0;
}

/* The objects of one kind. A change between two calls may upset the count, as in any dump. */
int o2fence_nl_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	u8 kind = ((struct genlmsghdr *)nlmsg_data(cb->nlh))->cmd;
	struct o2fence_object *ob;
	long skip = cb->args[0];
	void *hdr;

	guard(o2fence)();
	list_for_each_entry(ob, &o2fence_objects[kind], ob_list) {
		if (skip-- > 0)
			continue;
		if (skb_tailroom(skb) < O2FENCE_OBJECT_BYTES)
			break;
		hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				  &o2fence_nl_family, NLM_F_MULTI, kind);
		ob->ob_put(skb, ob);
		genlmsg_end(skb, hdr);
		cb->args[0]++;
	}
	return skb->len;
}

/* A socket was closed, by its process or by its death, and what it was asked moves on at once. */
static int socket_closed(struct notifier_block *nb, unsigned long action, void *data)
{
	struct netlink_notify *notify = data;
	struct o2fence_method *fm;
	struct o2fence_node *nd;

	if (action != NETLINK_URELEASE || notify->protocol != NETLINK_GENERIC ||
	    !net_eq(notify->net, &init_net))
		return NOTIFY_DONE;
	guard(o2fence)();
	list_for_each_entry(fm, &o2fence_objects[O2FENCE_CMD_METHOD_GET], fm_ob.ob_list)
		if (fm->fm_portid == notify->portid)
			fm->fm_portid = 0;
	for_each_joined(nd)
		if (nd->nd_portid == notify->portid)
			o2fence_settle(nd, -ECONNRESET, "the bridge is gone");
	return NOTIFY_DONE;
}

static struct notifier_block notifier = { .notifier_call = socket_closed };

static int __init o2fence_init(void)
{
	int i, err;

	for (i = 0; i < __O2FENCE_CMD_MAX; i++)
		INIT_LIST_HEAD(&o2fence_objects[i]);
	err = netlink_register_notifier(&notifier);
	if (err)
		return err;
	/* ORDER: last, for from here on user space can come in. */
	err = genl_register_family(&o2fence_nl_family);
	if (err)
		netlink_unregister_notifier(&notifier);
	return err;
}

/* A joined node pins its methods' modules, and these need us: none is joined. */
static void __exit o2fence_exit(void)
{
	struct o2fence_method *fm, *next;

	genl_unregister_family(&o2fence_nl_family);
	netlink_unregister_notifier(&notifier);
	/* What was bound is left; the history is not allocated. */
	list_for_each_entry_safe(fm, next, &o2fence_objects[O2FENCE_CMD_METHOD_GET], fm_ob.ob_list)
		kfree(fm);
}

module_init(o2fence_init);
module_exit(o2fence_exit);
MODULE_DESCRIPTION("Fencing harness: methods, clusters, requests");
MODULE_LICENSE("GPL");
MODULE_ALIAS_GENL_FAMILY(O2FENCE_GENL_NAME);
