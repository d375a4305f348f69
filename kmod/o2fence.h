/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * o2fence.h - what a fence method or a heartbeat needs of the core
 *
 * One spinlock, o2fence_lock, protects all that changes after a join: the lists of objects, each
 * node's request, the history, and what a heartbeat knows of its regions. Nobody sleeps or waits
 * for memory under it, so the fence path, which takes it, cannot wait for memory there. It is
 * always taken by guard(o2fence), for bottom halves: a method may report from a softirq, and
 * netlink sends without waiting only where it sees that it must not sleep.
 */
#ifndef O2FENCE_H
#define O2FENCE_H

#include <linux/cleanup.h>
#include <linux/module.h>
#include <linux/wait.h>
#include "netlink_gen.h"

struct o2fence_node;
typedef int (*node_fence_fn)(struct o2fence_node *target);

extern spinlock_t o2fence_lock;
/* Sparse does not see when a guard is left: for it, none is taken. */
DEFINE_LOCK_GUARD_0(o2fence, ({ spin_lock_bh(&o2fence_lock); __release(&o2fence_lock); }),
		    ({ __acquire(&o2fence_lock); spin_unlock_bh(&o2fence_lock); }))

/* Whatever has a dump: found by name and number, and shown in the order of its list. */
struct o2fence_object {
	struct list_head	ob_list;	/* o2fence_lock */
	char			ob_name[O2FENCE_NAME_MAX + 1];
	u32			ob_num;		/* of a node; ob_name is its cluster's */
	/* Puts its attributes, O2FENCE_OBJECT_BYTES at most; o2fence_lock is held. */
	void			(*ob_put)(struct sk_buff *skb, struct o2fence_object *ob);
	/* Ends what REGION_DEL has taken off the list; may sleep. */
	void			(*ob_del)(struct o2fence_object *ob);
};

#define O2FENCE_OBJECT_BYTES 2560	/* a region with 255 nodes */

struct o2fence_method {
	struct o2fence_object	fm_ob;
	node_fence_fn		fm_initiate;
	struct module		*fm_owner;	/* the core itself for what a bridge carries */
	u32			fm_portid;	/* the bridge's socket, or 0; o2fence_lock */
	pid_t			fm_process;	/* who bound it */
};

struct o2fence_step {
	struct o2fence_method	*st_method;
	const char		*st_params;	/* opaque to the core (R4) */
	u32			st_timeout_ms;
};

/* What is remembered of a request: the last one of a node, or one of the history. */
struct o2fence_record {
	struct o2fence_object	re_ob;		/* the node's cluster and number */
	/* o2fence_lock protects the rest, which is forgotten when the node's next request begins */
	u64			re_incarnation, re_id;
	u32			re_attempt, re_err;
	enum o2fence_event	re_state;	/* 0: fell silent, but no request was made yet */
	u64			re_at[__O2FENCE_EVENT_MAX];
	char			re_method[O2FENCE_NAME_MAX + 1];
	char			re_reason[O2FENCE_TEXT_MAX + 1], re_msg[O2FENCE_TEXT_MAX + 1];
};

/*
 * A node that may have to be fenced is also the preallocated request that fences it, with the
 * thread that carries it out: there is never more than one per node, so the memory of all requests
 * is bounded by the number of nodes and taken when they are joined.
 */
struct o2fence_node {
	struct o2fence_record	nd_record;
	struct o2fence_step	nd_steps[O2FENCE_STEPS_MAX];
	u32			nd_nsteps;
	struct task_struct	*nd_thread;
	wait_queue_head_t	nd_changed;	/* for the thread alone: re_state, or it leaves */
	/* o2fence_lock protects the rest */
	u32			nd_regions;	/* that watch it */
	bool			nd_active;	/* a request is under way: it cannot leave (R10) */
	bool			nd_ask_admin;	/* by a method: anybody may answer (R14) */
	struct o2fence_step	*nd_step;	/* the attempt under way */
	u32			nd_portid;	/* the socket that was asked, or 0 */
	unsigned long		nd_began;	/* jiffies when the attempt began */
	char			nd_message[];	/* NODE_ADD, for it holds the parameters */
};

/**
 * struct o2fence_heartbeat - a source of node deaths, pluggable like methods (R24)
 * @hb_watch: carries REGION_ADD out; may sleep. With a region it takes a reference to its module,
 *	which REGION_DEL gives back
 * @hb_resets_in: ms until a node that cannot reach its disks must have reset itself, zero or
 *	negative when that time is over; S64_MIN when no life of it is known
 * @hb_fenced: the node is fenced: returns when notice of it was given; may sleep, in the node's
 *	thread, but not wait for memory
 *
 * A module offers one by exporting it under the name o2fence_heartbeat, so there is one at a time.
 * It stays while it watches a region.
 */
struct o2fence_heartbeat {
	int			(*hb_watch)(struct genl_info *info);
	s64			(*hb_resets_in)(struct o2fence_node *nd);
	void			(*hb_fenced)(struct o2fence_node *nd);
};

extern struct o2fence_heartbeat o2fence_heartbeat;
DEFINE_FREE(heartbeat, struct o2fence_heartbeat *, if (_T) symbol_put(o2fence_heartbeat))

/* Refuse a message: which attribute is to blame (or NULL), the errno, the text. */
#define refuse(info, attr, err, text) ({ NL_SET_ERR_MSG_ATTR((info)->extack, attr, text); err; })

/* Found by name, or NULL. Caller holds o2fence_lock. */
#define o2fence_method(name) \
	((struct o2fence_method *)o2fence_find(O2FENCE_CMD_METHOD_GET, name, 0))
#define o2fence_node(cluster, num) \
	((struct o2fence_node *)o2fence_find(O2FENCE_CMD_NODE_GET, cluster, num))

/* node.c */
extern struct list_head o2fence_objects[__O2FENCE_CMD_MAX];	/* by dump command; o2fence_lock */
struct o2fence_object *o2fence_find(u8 kind, const char *name, u32 num);
void o2fence_show(struct o2fence_object *ob, u8 kind, const char *name);
int node_register_fence_method(const char *name, node_fence_fn fn, struct module *owner);
void node_unregister_fence_method(const char *name);

/* request.c */
int o2fence_fence(struct o2fence_node *nd, u64 incarnation, const char *reason);
int node_fence_result(u64 request, u32 attempt, int err, const char *errmsg);

/* The same, before initiate returns. */
static inline int node_fence_result_of(struct o2fence_node *nd, int err, const char *errmsg)
{
	return node_fence_result(nd->nd_record.re_id, nd->nd_record.re_attempt, err, errmsg);
}

void o2fence_obsolete(struct o2fence_node *nd, u64 incarnation, const char *why);

/* netlink.c */
void o2fence_tell(struct o2fence_node *nd, enum o2fence_event event);

/* What follows is shared by the files of o2fence.ko, and not exported. */
#define for_each_joined(nd) \
	list_for_each_entry(nd, &o2fence_objects[O2FENCE_CMD_NODE_GET], nd_record.re_ob.ob_list)

/* request.c */
int o2fence_thread(void *data);
bool o2fence_settle(struct o2fence_node *nd, int err, const char *msg);

/* netlink.c */
void o2fence_put_record(struct sk_buff *skb, struct o2fence_object *ob);
int o2fence_ask_bridge(struct o2fence_node *nd);

#endif /* O2FENCE_H */
