// SPDX-License-Identifier: GPL-2.0-only
/*
 * cluster.c - what can be dumped, methods, and joining and leaving clusters
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

#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include "o2fence.h"

#define for_each_configured(nd, cl) \
	for (struct o2fence_node *nd = (cl)->cl_nodes; nd < &(cl)->cl_nodes[O2FENCE_NODES_MAX]; nd++) \
		if (nd->nd_nsteps)

DEFINE_SPINLOCK(o2fence_lock);
EXPORT_SYMBOL_GPL(o2fence_lock);
LIST_HEAD(o2fence_objects);
static DEFINE_MUTEX(config_mutex);	/* JOIN allocates under it: never on the fence path */

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

	list_for_each_entry(ob, &o2fence_objects, ob_list)
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
	list_add_tail(&ob->ob_list, &o2fence_objects);
}
EXPORT_SYMBOL_GPL(o2fence_show);

static int put_method(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_method *fm = container_of(ob, struct o2fence_method, fm_ob);

	return nla_put_string(skb, O2FENCE_A_METHOD, ob->ob_name) ?:
	       nla_put_string(skb, O2FENCE_A_MODULE, module_name(fm->fm_owner)) ?:
	       nla_put_u32(skb, O2FENCE_A_PORTID, fm->fm_portid);
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

static int put_node(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_node *nd = container_of(ob, struct o2fence_node, nd_record.re_ob);
	int err = o2fence_put_record(skb, ob);

	for (struct o2fence_step *st = nd->nd_steps; !err && st < nd->nd_steps + nd->nd_nsteps; st++)
		err = nla_put_string(skb, O2FENCE_A_METHOD, st->st_method->fm_ob.ob_name) ?:
		      nla_put_u32(skb, O2FENCE_A_TIMEOUT_MS, st->st_timeout_ms);
	return err;
}

/*
 * Read the nodes and their methods, in order: what follows a METHOD belongs to it. A method is to be
 * registered, carried by someone, and its module is to stay (R5, R11).
 */
static int read_nodes(struct o2fence_cluster *cl, struct genl_info *info)
{
	struct o2fence_step ignored, *st = &ignored;
	struct o2fence_node *nd = cl->cl_nodes;
	struct nlattr *attr;
	int rem;

	guard(o2fence)();
	nlmsg_for_each_attr(attr, info->nlhdr, GENL_HDRLEN, rem) {
		if (nla_type(attr) == O2FENCE_A_NODE) {
			nd = &cl->cl_nodes[nla_get_u32(attr)];
		} else if (nla_type(attr) == O2FENCE_A_METHOD) {
			struct o2fence_method *fm = o2fence_method(nla_data(attr));

			if (nd->nd_nsteps == O2FENCE_STEPS_MAX)
				return refuse(info, attr, -E2BIG, "more methods than a node may have");
			if (!fm || (fm->fm_owner == THIS_MODULE && !fm->fm_portid) ||
			    !try_module_get(fm->fm_owner))
				return refuse(info, attr, -ENOENT, "method not registered");
			st = &nd->nd_steps[nd->nd_nsteps++];
			st->st_method = fm;
			st->st_params = "";
		} else if (nla_type(attr) == O2FENCE_A_TIMEOUT_MS) {
			st->st_timeout_ms = nla_get_u32(attr);
		} else if (nla_type(attr) == O2FENCE_A_PARAMS) {
			st->st_params = cl->cl_join + (nla_data(attr) - (void *)info->nlhdr);
		}
	}
	return 0;
}

/* Nobody can start a request here any more, or yet. */
static void free_cluster(struct o2fence_cluster *cl)
{
	for_each_configured(nd, cl) {
		if (!IS_ERR_OR_NULL(nd->nd_thread))
			kthread_stop(nd->nd_thread);
		while (nd->nd_nsteps)
			module_put(nd->nd_steps[--nd->nd_nsteps].st_method->fm_owner);
	}
	if (cl->cl_heartbeat)
		symbol_put(o2fence_heartbeat);
	kvfree(cl);
}
DEFINE_FREE(cluster, struct o2fence_cluster *, if (_T) free_cluster(_T))

int o2fence_join(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **tb = info->attrs, *name = tb[O2FENCE_A_CLUSTER];
	int err;

	if (o2fence_lacks(info, O2FENCE_A_CLUSTER, O2FENCE_A_FENCE_DELAY_MS))
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
	for_each_configured(nd, cl) {
		/* A fence ends whatever user space does: in the end comes a method of the kernel. */
		if (nd->nd_steps[nd->nd_nsteps - 1].st_method->fm_owner == THIS_MODULE)
			return refuse(info, NULL, -EINVAL, "a node's last method is not the kernel's");
		nd->nd_cluster = cl;
		nd->nd_record.re_node = nd - cl->cl_nodes;
		nd->nd_thread = kthread_run(o2fence_thread, nd, "o2fence/%u", nd->nd_record.re_node);
		if (IS_ERR(nd->nd_thread))
			return PTR_ERR(nd->nd_thread);
	}
	guard(o2fence)();
	if (o2fence_cluster(nla_data(name)))
		return refuse(info, name, -EEXIST, "already joined");
	o2fence_show(&cl->cl_ob, O2FENCE_CMD_CLUSTER_GET, nla_data(name), put_cluster);
	for_each_configured(nd, cl)
		o2fence_show(&nd->nd_record.re_ob, O2FENCE_CMD_NODE_GET, nla_data(name), put_node);
	cl = NULL;	/* it is whole, and stays */
	return 0;
}

int o2fence_leave(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *name = info->attrs[O2FENCE_A_CLUSTER];
	struct o2fence_cluster *cl;

	if (o2fence_lacks(info, O2FENCE_A_CLUSTER, O2FENCE_A_CLUSTER))
		return -EINVAL;
	guard(mutex)(&config_mutex);
	scoped_guard(o2fence) {
		cl = o2fence_cluster(nla_data(name));
		if (!cl)
			return refuse(info, name, -ENOENT, "not joined");
		if (cl->cl_fencing || cl->cl_regions)
			return refuse(info, NULL, -EBUSY, "a fence is under way or a region watched");
		list_del(&cl->cl_ob.ob_list);
		for_each_configured(nd, cl)
			list_del(&nd->nd_record.re_ob.ob_list);
	}
	free_cluster(cl);
	return 0;
}

int o2fence_region(struct sk_buff *skb, struct genl_info *info)
{
	bool add = info->genlhdr->cmd == O2FENCE_CMD_REGION_ADD;
	int err;

	if (o2fence_lacks(info, O2FENCE_A_REGION, add ? O2FENCE_A_BLOCKS : O2FENCE_A_REGION))
		return -EINVAL;
	guard(mutex)(&config_mutex);
	struct o2fence_heartbeat *hb = symbol_get(o2fence_heartbeat);

	if (!hb)
		return refuse(info, NULL, -ENODEV, "no heartbeat: o2fence_o2cb is not loaded");
	err = hb->hb_region(info);
	symbol_put(o2fence_heartbeat);
	return err;
}
