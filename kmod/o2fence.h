/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * o2fence.h - what a fence method or a heartbeat needs of the core
 *
 * One lock, o2fence_lock, protects all that changes after a join: the list of objects, each node's
 * request and the history. It is a spinlock: nobody sleeps or waits for memory under it, so the
 * fence path, which takes it, cannot wait for memory there.
 */
#ifndef O2FENCE_H
#define O2FENCE_H

#include <linux/list.h>
#include <linux/module.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>
#include "uapi/o2fence.h"

struct o2fence_cluster;
struct o2fence_heartbeat;
struct o2fence_node;

typedef int (*node_fence_fn)(struct o2fence_node *target);

/* Whatever has a dump: found by kind and name, and shown in the order of the list. */
struct o2fence_object {
	struct list_head	ob_list;	/* o2fence_lock */
	u8			ob_kind;	/* the command that dumps it */
	char			ob_name[O2FENCE_NAME_MAX + 1];
	int			(*ob_put)(struct sk_buff *skb, struct o2fence_object *ob);
};

struct o2fence_method {
	struct o2fence_object	fm_ob;
	node_fence_fn		fm_initiate;
	struct module		*fm_owner;
	u32			fm_portid;	/* bound methods: the socket, or 0; o2fence_lock */
};

struct o2fence_step {
	struct o2fence_method	*st_method;
	u32			st_timeout_ms;
	const char		*st_params;	/* opaque to the core (R4) */
};

/* What is remembered of a request: the last one of a node, or one of the history. */
struct o2fence_record {
	struct o2fence_object	re_ob;
	char			re_cluster[O2FENCE_NAME_MAX + 1];
	u32			re_node;
	u64			re_incarnation;
	u64			re_id;
	u32			re_attempt;
	u32			re_err;
	enum o2fence_event	re_state;
	u64			re_at[__O2FENCE_EVENT_MAX];
	char			re_method[O2FENCE_NAME_MAX + 1];
	char			re_reason[O2FENCE_TEXT_MAX + 1];
	char			re_msg[O2FENCE_TEXT_MAX + 1];
};

/*
 * A node is also the preallocated request that fences it: there is never more than one per node,
 * so the memory of all requests is bounded by the number of nodes and taken at join.
 */
struct o2fence_node {
	struct o2fence_cluster	*nd_cluster;
	u32			nd_num;
	u32			nd_nsteps;	/* 0: no such node */
	struct o2fence_step	nd_steps[O2FENCE_STEPS_MAX];
	struct delayed_work	nd_work;	/* drives the request */
	/* o2fence_lock protects the rest */
	struct o2fence_record	nd_record;
	u32			nd_step;
	u32			nd_portid;	/* the socket that was asked, 0 for a kernel method */
	unsigned long		nd_began;	/* jiffies when the attempt was initiated */
	unsigned long		nd_deadline;	/* jiffies when it fails */
	unsigned long		nd_wake;	/* jiffies when its method wants to be called again */
	bool			nd_settled;	/* the attempt has ended, re_err says how */
	bool			nd_obsolete;
	bool			nd_ask_admin;	/* set by a method: an administrator may answer (R14) */
};

struct o2fence_cluster {
	struct o2fence_object	cl_ob;
	u32			cl_this_node;
	u32			cl_missed;
	u32			cl_period_ms;
	u32			cl_gate_ms;
	u32			cl_fence_delay_ms;
	u32			cl_fencing;	/* requests under way (R10); o2fence_lock */
	u32			cl_regions;	/* regions watched; o2fence_lock */
	struct o2fence_heartbeat *cl_heartbeat;	/* pinned, or NULL */
	struct o2fence_node	cl_nodes[O2FENCE_NODES_MAX];
	char			cl_join[];	/* the JOIN message, for it holds the parameters */
};

/**
 * struct o2fence_heartbeat - a source of node deaths, pluggable like methods (R24)
 * @hb_owner: pinned from join to leave
 * @hb_region: carries out REGION_ADD and REGION_DEL; may sleep
 * @hb_silence: how long a node has been silent in every region, in ms, and the time after which it
 *	resets itself; negative when no region knows a life of it
 * @hb_fenced: the node is fenced: give notice, then call o2fence_noticed(); must not sleep
 */
struct o2fence_heartbeat {
	struct module		*hb_owner;
	int			(*hb_region)(struct genl_info *info);
	s64			(*hb_silence)(struct o2fence_node *nd, u32 *dead_ms);
	void			(*hb_fenced)(struct o2fence_node *nd);
};

/* Refuse a message: which attribute is to blame (or NULL), the errno, the text. */
#define o2fence_refuse(info, attr, err, text) ({			\
	NL_SET_ERR_MSG_ATTR((info)->extack, attr, text);		\
	(err);								\
})

int node_register_fence_method(const char *name, node_fence_fn fn, struct module *owner);
void node_unregister_fence_method(const char *name);
int node_fence_result(u64 request, u32 attempt, int err, const char *errmsg);
int o2fence_set_heartbeat(struct o2fence_heartbeat *hb);
int o2fence_fence(struct o2fence_node *nd, u64 incarnation, const char *reason);
void o2fence_obsolete(struct o2fence_node *nd, u64 incarnation, const char *why);
void o2fence_noticed(struct o2fence_node *nd);
void o2fence_node_event(struct o2fence_node *nd, u64 incarnation, enum o2fence_event event);
struct o2fence_object *o2fence_find(u8 kind, struct nlattr *name);
int o2fence_add(struct o2fence_object *ob);
void o2fence_del(struct o2fence_object *ob);

#endif /* O2FENCE_H */
