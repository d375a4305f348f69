// SPDX-License-Identifier: GPL-2.0-only
/* cluster.c - joining and leaving clusters, and the heartbeat they follow */

#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include "core.h"

/* Serialises JOIN, LEAVE and REGION_*; protects the heartbeat. Never on the fence path. */
static DEFINE_MUTEX(o2fence_config_mutex);
static struct o2fence_heartbeat *o2fence_heartbeat;

static int o2fence_put_cluster(struct sk_buff *skb, struct o2fence_object *ob)
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

static int o2fence_put_node(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_node *nd = container_of(ob, struct o2fence_node, nd_record.re_ob);
	int i, err = o2fence_put_record(skb, ob);

	for (i = 0; !err && i < nd->nd_nsteps; i++)
		err = nla_put_string(skb, O2FENCE_A_METHOD,
				     nd->nd_steps[i].st_method->fm_ob.ob_name) ?:
		      nla_put_u32(skb, O2FENCE_A_TIMEOUT_MS, nd->nd_steps[i].st_timeout_ms);
	return err;
}

static void o2fence_init_node(struct o2fence_cluster *cl, struct o2fence_node *nd)
{
	struct o2fence_record *re = &nd->nd_record;

	nd->nd_cluster = cl;
	nd->nd_num = re->re_node = nd - cl->cl_nodes;
	INIT_DELAYED_WORK(&nd->nd_work, o2fence_run);
	strscpy(re->re_cluster, cl->cl_ob.ob_name, sizeof(re->re_cluster));
	re->re_ob.ob_kind = O2FENCE_CMD_NODE_GET;
	re->re_ob.ob_put = o2fence_put_node;
}

/* The next method of a node: registered, carried by someone, and its module stays (R5, R11). */
static int o2fence_add_step(struct o2fence_node *nd, struct nlattr *name, struct genl_info *info)
{
	struct o2fence_object *ob;
	struct o2fence_method *fm;

	if (!nd || nd->nd_nsteps == O2FENCE_STEPS_MAX)
		return o2fence_refuse(info, name, -E2BIG, "more methods than a node may have");
	spin_lock_bh(&o2fence_lock);
	ob = o2fence_find(O2FENCE_CMD_METHOD_GET, name);
	fm = container_of(ob, struct o2fence_method, fm_ob);
	if (ob && ((fm->fm_initiate == o2fence_ask_bridge && !fm->fm_portid) ||
		   !try_module_get(fm->fm_owner)))
		ob = NULL;
	spin_unlock_bh(&o2fence_lock);
	if (!ob)
		return o2fence_refuse(info, name, -ENOENT, "method not registered");
	nd->nd_steps[nd->nd_nsteps++].st_method = fm;
	return 0;
}

/* Read the nodes and their methods, in order: what follows a METHOD belongs to it. */
static int o2fence_read_nodes(struct o2fence_cluster *cl, struct genl_info *info)
{
	struct o2fence_node *nd = NULL;
	struct o2fence_step *st = NULL;
	struct nlattr *attr;
	int rem, err = 0;

	nlmsg_for_each_attr(attr, info->nlhdr, GENL_HDRLEN, rem) {
		switch (nla_type(attr)) {
		case O2FENCE_A_NODE:
			nd = &cl->cl_nodes[nla_get_u32(attr)];
			if (nd->nd_nsteps)
				return o2fence_refuse(info, attr, -EEXIST, "node configured twice");
			o2fence_init_node(cl, nd);
			break;
		case O2FENCE_A_METHOD:
			err = o2fence_add_step(nd, attr, info);
			if (err)
				return err;
			st = &nd->nd_steps[nd->nd_nsteps - 1];
			break;
		case O2FENCE_A_TIMEOUT_MS:
			if (st)
				st->st_timeout_ms = nla_get_u32(attr);
			break;
		case O2FENCE_A_PARAMS:
			if (st)
				st->st_params = cl->cl_join + (nla_data(attr) - (void *)info->nlhdr);
			break;
		}
	}
	return 0;
}

/* So that a fence ends whatever user space does: each step has its time, the last its module. */
static int o2fence_check_nodes(struct o2fence_cluster *cl, struct genl_info *info)
{
	struct o2fence_node *nd;
	int i;

	if (!cl->cl_nodes[cl->cl_this_node].nd_nsteps)
		return o2fence_refuse(info, info->attrs[O2FENCE_A_THIS_NODE], -EINVAL,
				      "this node is not among the nodes");
	for (nd = cl->cl_nodes; nd < cl->cl_nodes + O2FENCE_NODES_MAX; nd++) {
		for (i = 0; i < nd->nd_nsteps; i++)
			if (!nd->nd_steps[i].st_timeout_ms)
				return o2fence_refuse(info, NULL, -EINVAL, "a METHOD needs TIMEOUT_MS");
		if (i && nd->nd_steps[i - 1].st_method->fm_initiate == o2fence_ask_bridge)
			return o2fence_refuse(info, NULL, -EINVAL,
					      "the last method of a node must run in the kernel");
	}
	return 0;
}

static void o2fence_free_cluster(struct o2fence_cluster *cl)
{
	struct o2fence_node *nd;
	int i;

	for (nd = cl->cl_nodes; nd < cl->cl_nodes + O2FENCE_NODES_MAX; nd++)
		for (i = 0; i < nd->nd_nsteps; i++)
			module_put(nd->nd_steps[i].st_method->fm_owner);
	if (cl->cl_heartbeat)
		module_put(cl->cl_heartbeat->hb_owner);
	kvfree(cl);
}

/* Make a cluster that is whole visible. */
static int o2fence_publish(struct o2fence_cluster *cl, struct genl_info *info)
{
	struct o2fence_node *nd;

	if (o2fence_add(&cl->cl_ob))
		return o2fence_refuse(info, info->attrs[O2FENCE_A_CLUSTER], -EEXIST,
				      "already joined");
	if (o2fence_heartbeat && try_module_get(o2fence_heartbeat->hb_owner))
		cl->cl_heartbeat = o2fence_heartbeat;
	for (nd = cl->cl_nodes; nd < cl->cl_nodes + O2FENCE_NODES_MAX; nd++)
		if (nd->nd_nsteps)
			o2fence_add(&nd->nd_record.re_ob);
	return 0;
}

int o2fence_join(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **tb = info->attrs;
	struct o2fence_cluster *cl;
	int err;

	if (!tb[O2FENCE_A_CLUSTER] || !tb[O2FENCE_A_THIS_NODE] || !tb[O2FENCE_A_MISSED] ||
	    !tb[O2FENCE_A_PERIOD_MS] || !tb[O2FENCE_A_GATE_MS] || !tb[O2FENCE_A_FENCE_DELAY_MS])
		return o2fence_refuse(info, NULL, -EINVAL, "an attribute is missing");
	cl = kvzalloc(struct_size(cl, cl_join, info->nlhdr->nlmsg_len), GFP_KERNEL);
	if (!cl)
		return -ENOMEM;
	memcpy(cl->cl_join, info->nlhdr, info->nlhdr->nlmsg_len);
	nla_strscpy(cl->cl_ob.ob_name, tb[O2FENCE_A_CLUSTER], sizeof(cl->cl_ob.ob_name));
	cl->cl_ob.ob_kind = O2FENCE_CMD_CLUSTER_GET;
	cl->cl_ob.ob_put = o2fence_put_cluster;
	cl->cl_this_node = nla_get_u32(tb[O2FENCE_A_THIS_NODE]);
	cl->cl_missed = nla_get_u32(tb[O2FENCE_A_MISSED]);
	cl->cl_period_ms = nla_get_u32(tb[O2FENCE_A_PERIOD_MS]);
	cl->cl_gate_ms = nla_get_u32(tb[O2FENCE_A_GATE_MS]);
	cl->cl_fence_delay_ms = nla_get_u32(tb[O2FENCE_A_FENCE_DELAY_MS]);

	mutex_lock(&o2fence_config_mutex);
	err = o2fence_read_nodes(cl, info) ?: o2fence_check_nodes(cl, info) ?:
	      o2fence_publish(cl, info);
	mutex_unlock(&o2fence_config_mutex);
	if (err)
		o2fence_free_cluster(cl);
	return err;
}

/* Caller holds o2fence_lock. */
struct o2fence_node *o2fence_named_node(struct genl_info *info)
{
	struct nlattr *cluster = info->attrs[O2FENCE_A_CLUSTER];
	struct nlattr *node = info->attrs[O2FENCE_A_NODE];
	struct o2fence_object *ob = o2fence_find(O2FENCE_CMD_CLUSTER_GET, cluster);
	struct o2fence_node *nd = NULL;

	if (ob && node)
		nd = &container_of(ob, struct o2fence_cluster, cl_ob)->cl_nodes[nla_get_u32(node)];
	if (nd && nd->nd_nsteps)
		return nd;
	NL_SET_ERR_MSG_ATTR(info->extack, ob ? node : cluster, "not joined, or no such node");
	return NULL;
}

int o2fence_leave(struct sk_buff *skb, struct genl_info *info)
{
	struct o2fence_cluster *cl;
	struct o2fence_object *ob;
	struct o2fence_node *nd;
	int err = 0;

	mutex_lock(&o2fence_config_mutex);
	spin_lock_bh(&o2fence_lock);
	ob = o2fence_find(O2FENCE_CMD_CLUSTER_GET, info->attrs[O2FENCE_A_CLUSTER]);
	cl = container_of(ob, struct o2fence_cluster, cl_ob);
	if (!ob)
		err = o2fence_refuse(info, info->attrs[O2FENCE_A_CLUSTER], -ENOENT, "not joined");
	else if (cl->cl_fencing)
		err = o2fence_refuse(info, NULL, -EBUSY, "a fence is under way");
	else if (cl->cl_regions)
		err = o2fence_refuse(info, NULL, -EBUSY, "a region is watched");
	else
		list_del(&ob->ob_list);
	for (nd = cl->cl_nodes; !err && nd < cl->cl_nodes + O2FENCE_NODES_MAX; nd++)
		if (nd->nd_nsteps)
			list_del(&nd->nd_record.re_ob.ob_list);
	spin_unlock_bh(&o2fence_lock);
	if (!err) {
		/* Nobody can start a request any more, but a work may be at its last line. */
		for (nd = cl->cl_nodes; nd < cl->cl_nodes + O2FENCE_NODES_MAX; nd++)
			if (nd->nd_nsteps)
				cancel_delayed_work_sync(&nd->nd_work);
		o2fence_free_cluster(cl);
	}
	mutex_unlock(&o2fence_config_mutex);
	return err;
}

int o2fence_region(struct sk_buff *skb, struct genl_info *info)
{
	int err;

	mutex_lock(&o2fence_config_mutex);
	if (o2fence_heartbeat)
		err = o2fence_heartbeat->hb_region(info);
	else
		err = o2fence_refuse(info, NULL, -ENODEV, "no heartbeat is loaded: o2fence_o2cb");
	mutex_unlock(&o2fence_config_mutex);
	return err;
}

/**
 * o2fence_set_heartbeat - offer a source of node deaths, or take it back (R24)
 * @hb: stays valid until it is taken back; NULL takes it back, in its owner's exit
 *
 * A cluster that joins follows it and pins its owner, so none does when the owner's exit runs.
 *
 * Context: process context, may sleep.
 * Return: 0, or %-EEXIST, for there is one kernel heartbeat at a time.
 */
int o2fence_set_heartbeat(struct o2fence_heartbeat *hb)
{
	int err = -EEXIST;

	mutex_lock(&o2fence_config_mutex);
	if (!hb || !o2fence_heartbeat) {
		o2fence_heartbeat = hb;
		err = 0;
	}
	mutex_unlock(&o2fence_config_mutex);
	return err;
}
EXPORT_SYMBOL_GPL(o2fence_set_heartbeat);
