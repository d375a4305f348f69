// SPDX-License-Identifier: GPL-2.0-only
/*
 * node.c - what can be dumped, methods, and the nodes of clusters as they join and leave
 *
 * The problem: once joined, a fence must find all it needs: memory, a thread, methods, and modules
 * that stay (R5, R11, R19).
 *
 * The rule: NODE_ADD takes all of it or nothing, and LEAVE gives it back when nothing is under way.
 *
 * The races: a node is found under o2fence_lock and kept only that long, but for its own thread,
 * whose end LEAVE waits for, and for the regions that watch it, for which LEAVE is refused.
 */

#include <linux/kthread.h>
#include <linux/slab.h>
#include "o2fence.h"

spinlock_t o2fence_lock = __SPIN_LOCK_UNLOCKED(o2fence_lock);
EXPORT_SYMBOL_GPL(o2fence_lock);
struct list_head o2fence_objects[__O2FENCE_CMD_MAX];
EXPORT_SYMBOL_GPL(o2fence_objects);

/**
 * o2fence_find - an object that is shown in the dumps
 * @kind: the command that dumps it
 * @name: its name
 * @num: its number, where a name has several
 *
 * Context: any, with o2fence_lock held.
 * Return: the object or NULL.
 */
struct o2fence_object *o2fence_find(u8 kind, const char *name, u32 num)
{
	struct o2fence_object *ob;

	list_for_each_entry(ob, &o2fence_objects[kind], ob_list)
		if (ob->ob_num == num && !strcmp(ob->ob_name, name))
			return ob;
	return NULL;
}
EXPORT_SYMBOL_GPL(o2fence_find);

/**
 * o2fence_show - show an object in the dumps
 * @ob: stays valid until it is taken off the list, with list_del() under o2fence_lock; ob_put and
 *	ob_num are set
 * @kind: the command that dumps it
 * @name: up to O2FENCE_NAME_MAX bytes; that it is not taken yet, the caller has found out
 *
 * Context: any, with o2fence_lock held.
 */
void o2fence_show(struct o2fence_object *ob, u8 kind, const char *name)
{
	strscpy(ob->ob_name, name, sizeof(ob->ob_name));
	list_add_tail(&ob->ob_list, &o2fence_objects[kind]);
}
EXPORT_SYMBOL_GPL(o2fence_show);

static void put_method(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_method *fm = container_of(ob, struct o2fence_method, fm_ob);

	nla_put_string(skb, O2FENCE_A_METHOD, ob->ob_name);
	nla_put_string(skb, O2FENCE_A_MODULE, module_name(fm->fm_owner));
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
 * @owner: the module that @fn lives in; pinned while a joined node uses the method
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
	fm->fm_ob.ob_put = put_method;
	fm->fm_initiate = fn;
	fm->fm_owner = owner;
	guard(o2fence)();
	if (o2fence_method(name))
		return -EEXIST;
	o2fence_show(&no_free_ptr(fm)->fm_ob, O2FENCE_CMD_METHOD_GET, name);
	return 0;
}
EXPORT_SYMBOL_GPL(node_register_fence_method);

/**
 * node_unregister_fence_method - forget a fence method
 * @name: as it was registered
 *
 * To be called from the owner's exit only: then no joined node uses the method, for that pins the
 * owner. Does nothing when the name is not registered.
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

static void put_node(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_node *nd = container_of(ob, struct o2fence_node, nd_record.re_ob);

	o2fence_put_record(skb, ob);
	for (struct o2fence_step *st = nd->nd_steps; st < nd->nd_steps + nd->nd_nsteps; st++) {
		nla_put_string(skb, O2FENCE_A_METHOD, st->st_method->fm_ob.ob_name);
		nla_put_u32(skb, O2FENCE_A_TIMEOUT_MS, st->st_timeout_ms);
	}
}

/*
 * Read the methods, in order: what follows a METHOD belongs to it. A method is to be registered,
 * carried by someone, and its module is to stay (R5, R11).
 */
static int read_steps(struct o2fence_node *nd, struct genl_info *info)
{
	struct o2fence_step *st = NULL;
	struct nlattr *attr;
	int rem;

	guard(o2fence)();
	nlmsg_for_each_attr(attr, info->nlhdr, GENL_HDRLEN, rem) {
		if (nla_type(attr) == O2FENCE_A_METHOD) {
			struct o2fence_method *fm = o2fence_method(nla_data(attr));

			if (nd->nd_nsteps == O2FENCE_STEPS_MAX || !fm ||
			    (fm->fm_owner == THIS_MODULE && !fm->fm_portid) ||
			    !try_module_get(fm->fm_owner))
				return refuse(info, attr, -ENOENT, "not registered, or too many");
			st = &nd->nd_steps[nd->nd_nsteps++];
			st->st_method = fm;
			st->st_params = "";
		} else if (nla_type(attr) == O2FENCE_A_TIMEOUT_MS && st) {
			st->st_timeout_ms = nla_get_u32(attr);
		} else if (nla_type(attr) == O2FENCE_A_PARAMS && st) {
			st->st_params = nd->nd_message + (nla_data(attr) - (void *)info->nlhdr);
		}
	}
	/* A fence ends whatever user space does: in the end comes a method of the kernel. */
	if (!st || st->st_method->fm_owner == THIS_MODULE)
		return refuse(info, NULL, -EINVAL, "the last method is not the kernel's");
	return 0;
}

/* Nobody can start a request here any more, or yet. */
static void free_node(struct o2fence_node *nd)
{
	if (!IS_ERR_OR_NULL(nd->nd_thread))
		kthread_stop(nd->nd_thread);
	while (nd->nd_nsteps)
		module_put(nd->nd_steps[--nd->nd_nsteps].st_method->fm_owner);
	kfree(nd);
}

DEFINE_FREE(node, struct o2fence_node *, _T ? free_node(_T) : (void)0)

int o2fence_nl_node_add_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *name = info->attrs[O2FENCE_A_CLUSTER], *num = info->attrs[O2FENCE_A_NODE];
	int err;

	struct o2fence_node *nd __free(node) =
		kzalloc(struct_size(nd, nd_message, info->nlhdr->nlmsg_len), GFP_KERNEL);

	if (!nd)
		return -ENOMEM;
	memcpy(nd->nd_message, info->nlhdr, info->nlhdr->nlmsg_len);
	err = read_steps(nd, info);
	if (err)
		return err;
	nd->nd_record.re_ob.ob_put = put_node;
	nd->nd_record.re_ob.ob_num = nla_get_u32(num);
	init_waitqueue_head(&nd->nd_changed);
	nd->nd_thread = kthread_run(o2fence_thread, nd, "o2fence/%u", nla_get_u32(num));
	if (IS_ERR(nd->nd_thread))
		return PTR_ERR(nd->nd_thread);
	guard(o2fence)();
	if (o2fence_node(nla_data(name), nla_get_u32(num)))
		return refuse(info, num, -EEXIST, "already joined");
	o2fence_show(&no_free_ptr(nd)->nd_record.re_ob, O2FENCE_CMD_NODE_GET, nla_data(name));
	return 0;
}

int o2fence_nl_leave_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *name = info->attrs[O2FENCE_A_CLUSTER];
	struct o2fence_node *nd, *next;
	LIST_HEAD(gone);

	scoped_guard(o2fence) {
		for_each_joined(nd)
			if (!nla_strcmp(name, nd->nd_record.re_ob.ob_name) &&
			    (nd->nd_active || nd->nd_regions))
				return refuse(info, NULL, -EBUSY, "a fence or a region is active");
		list_for_each_entry_safe(nd, next, &o2fence_objects[O2FENCE_CMD_NODE_GET],
					 nd_record.re_ob.ob_list)
			if (!nla_strcmp(name, nd->nd_record.re_ob.ob_name))
				list_move(&nd->nd_record.re_ob.ob_list, &gone);
	}
	if (list_empty(&gone))
		return refuse(info, name, -ENOENT, "not joined");
	list_for_each_entry_safe(nd, next, &gone, nd_record.re_ob.ob_list)
		free_node(nd);
	return 0;
}
