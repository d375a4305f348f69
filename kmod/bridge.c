// SPDX-License-Identifier: GPL-2.0-only
/*
 * bridge.c - the one linkage that carries every user-space method (R18)
 *
 * A bound method is a method like any other, whose initiate sends a message to the socket that
 * bound it. This cannot wait for memory because the work that sends runs in PF_MEMALLOC mode, asks
 * without reclaim, and the send does not block.
 */

#include <linux/capability.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include "core.h"

int o2fence_tell_bridge(struct o2fence_node *nd, u8 cmd)
{
	struct o2fence_step *st = &nd->nd_steps[nd->nd_step];
	struct sk_buff *skb;

	if (!nd->nd_portid)
		return -ENOTCONN;
	skb = o2fence_new_msg(cmd, &nd->nd_record, GFP_NOWAIT | __GFP_NOWARN);
	if (!skb)
		return -ENOMEM;
	/* There is room: the record and PARAMS are bounded. */
	nla_put_u32(skb, O2FENCE_A_TIMEOUT_MS, st->st_timeout_ms);
	nla_put_string(skb, O2FENCE_A_PARAMS, st->st_params ?: "");
	nlmsg_end(skb, nlmsg_hdr(skb));
	return genlmsg_unicast(&init_net, skb, nd->nd_portid);
}

int o2fence_ask_bridge(struct o2fence_node *nd)
{
	return o2fence_tell_bridge(nd, O2FENCE_CMD_INITIATE);
}

/* The socket is gone, and with it what it was asked. Atomic context. */
void o2fence_unbind(u32 portid)
{
	struct o2fence_object *ob;

	spin_lock_bh(&o2fence_lock);
	list_for_each_entry(ob, &o2fence_objects, ob_list) {
		struct o2fence_method *fm = container_of(ob, struct o2fence_method, fm_ob);
		struct o2fence_node *nd = container_of(ob, struct o2fence_node, nd_record.re_ob);

		if (ob->ob_kind == O2FENCE_CMD_METHOD_GET && fm->fm_portid == portid)
			fm->fm_portid = 0;
		if (ob->ob_kind == O2FENCE_CMD_NODE_GET && nd->nd_portid == portid)
			o2fence_settle(nd, -ECONNRESET, "the bridge is gone");
	}
	spin_unlock_bh(&o2fence_lock);
}

int o2fence_memalloc(struct sk_buff *skb, struct genl_info *info)
{
	if (!capable(CAP_SYS_RESOURCE))
		return o2fence_refuse(info, NULL, -EPERM, "needs CAP_SYS_RESOURCE");
	/* A doit runs in the sender's context; only current may change its own flags. */
	current->flags |= PF_MEMALLOC;
	return 0;
}

/* The part of R19 that the kernel can see; else the rule that is broken. */
static int o2fence_check_rules(struct genl_info *info)
{
	struct task_struct *thread;
	bool flagged = true;

	rcu_read_lock();
	for_each_thread(current, thread)
		flagged &= !!(thread->flags & PF_MEMALLOC);
	rcu_read_unlock();
	if (!flagged)
		return o2fence_refuse(info, NULL, -EPERM, "a thread is not in PF_MEMALLOC mode");
	if ((current->mm->def_flags & (VM_LOCKED | VM_LOCKONFAULT)) != VM_LOCKED)
		return o2fence_refuse(info, NULL, -EPERM,
				      "memory is not locked, now and in future, by mlockall");
	return 0;
}

int o2fence_bind(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *name = info->attrs[O2FENCE_A_METHOD];
	struct o2fence_object *ob;
	struct o2fence_method *fm;
	int err;

	if (!name)
		return o2fence_refuse(info, NULL, -EINVAL, "a METHOD is missing");
	err = o2fence_check_rules(info) ?:
	      node_register_fence_method(nla_data(name), o2fence_ask_bridge, THIS_MODULE);
	if (err && err != -EEXIST)
		return err;
	spin_lock_bh(&o2fence_lock);
	ob = o2fence_find(O2FENCE_CMD_METHOD_GET, name);
	fm = container_of(ob, struct o2fence_method, fm_ob);
	if (!ob || fm->fm_initiate != o2fence_ask_bridge || fm->fm_portid) {
		err = o2fence_refuse(info, name, -EBUSY, "another bridge or a module carries it");
	} else {
		fm->fm_portid = info->snd_portid;
		err = 0;
	}
	spin_unlock_bh(&o2fence_lock);
	return err;
}

/* The answer must be to what was asked, and come from whoever was asked. */
static int o2fence_check_answer(struct o2fence_node *nd, struct genl_info *info)
{
	struct nlattr **tb = info->attrs;
	struct o2fence_record *re = &nd->nd_record;

	if (re->re_id != nla_get_u64(tb[O2FENCE_A_REQUEST]))
		return o2fence_refuse(info, tb[O2FENCE_A_REQUEST], -ESTALE, "stale request");
	if (re->re_incarnation != nla_get_u64(tb[O2FENCE_A_INCARNATION]))
		return o2fence_refuse(info, tb[O2FENCE_A_INCARNATION], -ESTALE,
				      "stale incarnation");
	if (re->re_attempt != nla_get_u32(tb[O2FENCE_A_ATTEMPT]))
		return o2fence_refuse(info, tb[O2FENCE_A_ATTEMPT], -ESTALE, "stale attempt");
	if (nd->nd_portid != info->snd_portid && !nd->nd_ask_admin)
		return o2fence_refuse(info, NULL, -EPERM, "foreign: this socket was not asked");
	if (!o2fence_settle(nd, -(int)nla_get_u32(tb[O2FENCE_A_ERRNO]),
			    nla_data(tb[O2FENCE_A_ERRMSG])))
		return o2fence_refuse(info, NULL, -ESTALE, "stale: the attempt has ended");
	return 0;
}

int o2fence_fenced(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **tb = info->attrs;
	struct o2fence_node *nd;
	int err = -ENOENT;

	if (!tb[O2FENCE_A_REQUEST] || !tb[O2FENCE_A_INCARNATION] || !tb[O2FENCE_A_ATTEMPT] ||
	    !tb[O2FENCE_A_ERRNO] || !tb[O2FENCE_A_ERRMSG])
		return o2fence_refuse(info, NULL, -EINVAL, "an attribute is missing");
	spin_lock_bh(&o2fence_lock);
	nd = o2fence_named_node(info);
	if (nd) {
		err = o2fence_check_answer(nd, info);
		if (err)
			o2fence_tell(&nd->nd_record, O2FENCE_EVENT_REFUSED);
	}
	spin_unlock_bh(&o2fence_lock);
	return err;
}
