// SPDX-License-Identifier: GPL-2.0-only
/* method.c - objects, and those that are fence methods */

#include <linux/slab.h>
#include "core.h"

DEFINE_SPINLOCK(o2fence_lock);
LIST_HEAD(o2fence_objects);

/**
 * o2fence_find - the object of a kind and name
 * @kind: the command that dumps it
 * @name: a string attribute, which may be absent
 *
 * Context: any, with o2fence_lock held or, for what only JOIN, LEAVE and REGION_* change, in one
 * of these.
 * Return: the object or NULL.
 */
struct o2fence_object *o2fence_find(u8 kind, struct nlattr *name)
{
	struct o2fence_object *ob;

	list_for_each_entry(ob, &o2fence_objects, ob_list)
		if (name && ob->ob_kind == kind && !nla_strcmp(name, ob->ob_name))
			return ob;
	return NULL;
}
EXPORT_SYMBOL_GPL(o2fence_find);

/**
 * o2fence_add - show an object in the dumps
 * @ob: stays valid until o2fence_del()
 *
 * Context: process or softirq context.
 * Return: 0, or %-EEXIST when there is one of its kind and name; nameless objects may be many.
 */
int o2fence_add(struct o2fence_object *ob)
{
	struct o2fence_object *old;
	int err = 0;

	spin_lock_bh(&o2fence_lock);
	list_for_each_entry(old, &o2fence_objects, ob_list)
		if (*ob->ob_name && ob->ob_kind == old->ob_kind &&
		    !strcmp(ob->ob_name, old->ob_name))
			err = -EEXIST;
	if (!err)
		list_add_tail(&ob->ob_list, &o2fence_objects);
	spin_unlock_bh(&o2fence_lock);
	return err;
}
EXPORT_SYMBOL_GPL(o2fence_add);

/**
 * o2fence_del - take an object out of the dumps
 * @ob: as it was added
 *
 * Context: process or softirq context.
 */
void o2fence_del(struct o2fence_object *ob)
{
	spin_lock_bh(&o2fence_lock);
	list_del(&ob->ob_list);
	spin_unlock_bh(&o2fence_lock);
}
EXPORT_SYMBOL_GPL(o2fence_del);

static int o2fence_put_method(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2fence_method *fm = container_of(ob, struct o2fence_method, fm_ob);

	return nla_put_string(skb, O2FENCE_A_METHOD, ob->ob_name) ?:
	       nla_put_string(skb, O2FENCE_A_MODULE, module_name(fm->fm_owner)) ?:
	       nla_put_u32(skb, O2FENCE_A_PORTID, fm->fm_portid);
}

/**
 * node_register_fence_method - make a fence method known (R2)
 * @name: what the configuration calls it, up to O2FENCE_NAME_MAX bytes
 * @fn: called to begin fencing a node, on a workqueue with access to the memory reserve; it must
 *	neither wait for memory nor wait for the device. Zero means initiated, not done: exactly one
 *	node_fence_result() must follow, or the attempt's timer ends it. Positive means the same,
 *	and that it wants to be called again after so many ms unless the attempt has ended. A
 *	negative errno means that it cannot go on.
 * @owner: the module that @fn lives in; pinned from join to leave by every cluster that uses it
 *
 * Context: process context, may sleep.
 * Return: 0, %-EEXIST when the name is taken, %-EINVAL for a name that is empty or too long,
 * %-ENOMEM.
 */
int node_register_fence_method(const char *name, node_fence_fn fn, struct module *owner)
{
	struct o2fence_method *fm;
	int err;

	if (!*name || strlen(name) > O2FENCE_NAME_MAX)
		return -EINVAL;
	fm = kzalloc(sizeof(*fm), GFP_KERNEL);
	if (!fm)
		return -ENOMEM;
	strscpy(fm->fm_ob.ob_name, name, sizeof(fm->fm_ob.ob_name));
	fm->fm_ob.ob_kind = O2FENCE_CMD_METHOD_GET;
	fm->fm_ob.ob_put = o2fence_put_method;
	fm->fm_initiate = fn;
	fm->fm_owner = owner;
	err = o2fence_add(&fm->fm_ob);
	if (err)
		kfree(fm);
	return err;
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
	struct o2fence_object *ob, *next;

	spin_lock_bh(&o2fence_lock);
	list_for_each_entry_safe(ob, next, &o2fence_objects, ob_list) {
		if (ob->ob_kind == O2FENCE_CMD_METHOD_GET && !strcmp(ob->ob_name, name)) {
			list_del(&ob->ob_list);
			kfree(container_of(ob, struct o2fence_method, fm_ob));
		}
	}
	spin_unlock_bh(&o2fence_lock);
}
EXPORT_SYMBOL_GPL(node_unregister_fence_method);
