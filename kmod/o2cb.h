/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * o2cb.h - what stock OCFS2 exports, redeclared here and nowhere else, and the glue's own
 *
 * Debian's header package has no fs/ocfs2/cluster; Module.symvers checks what is declared here.
 */
#ifndef O2FENCE_O2CB_H
#define O2FENCE_O2CB_H

#include <linux/bitmap.h>
#include <linux/wait.h>
#include "o2fence.h"

/* Stock: fs/ocfs2/cluster/{heartbeat,nodemanager}.h, the same in 6.1, 6.12 and 7.3. */
#define O2HB_NODE_DOWN_CB 0
struct o2nm_node;
typedef void (o2hb_cb_func)(struct o2nm_node *, int, void *);
struct o2hb_callback_func {
	u32			hc_magic;
	struct list_head	hc_item;
	o2hb_cb_func		*hc_func;
	void			*hc_data;
	int			hc_priority;
	int			hc_type;
};

void o2hb_setup_callback(struct o2hb_callback_func *hc, int type, o2hb_cb_func *func, void *data,
			 int priority);
int o2hb_register_callback(const char *region_uuid, struct o2hb_callback_func *hc);
void o2hb_unregister_callback(const char *region_uuid, struct o2hb_callback_func *hc);
int o2hb_check_node_heartbeating_no_sem(u8 node_num);
u8 o2nm_this_node(void);

/* Stock: fs/ocfs2/cluster/ocfs2_heartbeat.h. The rest of a slot's block is zero. */
struct o2cb_block {
	__le64	hb_seq;			/* seconds since the epoch, rewritten every period */
	u8	hb_node;
	u8	hb_pad1[3];
	__le32	hb_cksum;
	__le64	hb_generation;		/* the incarnation; 0: left cleanly, or fenced */
	__le32	hb_dead_ms;
};

/* What is known of a node in one region; o2cb_lock. */
struct o2cb_slot {
	u64		sl_seq;
	u64		sl_generation;
	unsigned long	sl_changed;	/* jiffies when a heartbeat was last seen */
	unsigned long	sl_looked;	/* jiffies when the slot was last read */
	u32		sl_dead_ms;
	u32		sl_missed;	/* periods of ours without a heartbeat of theirs */
};

struct o2cb_region {
	struct o2fence_object	rg_ob;
	struct list_head	rg_list;	/* o2cb_lock */
	struct o2fence_cluster	*rg_cluster;
	struct file		*rg_file;
	u64			rg_start_block;
	u32			rg_block_bytes;
	u32			rg_blocks;
	struct o2cb_block	*rg_block;	/* one page; the work's alone */
	unsigned long		rg_next;	/* jiffies of the next look that counts; the work's */
	struct workqueue_struct	*rg_wq;
	struct delayed_work	rg_work;
	/* o2cb_lock protects the rest, which the work alone changes, except for rg_due */
	DECLARE_BITMAP(rg_members, O2FENCE_NODES_MAX);	/* their heartbeat was seen to advance */
	DECLARE_BITMAP(rg_silent, O2FENCE_NODES_MAX);	/* members that missed too many */
	DECLARE_BITMAP(rg_due, O2FENCE_NODES_MAX);	/* fenced, their notice is to be written */
	struct o2cb_slot	rg_slots[O2FENCE_NODES_MAX];
};

/* A node in all regions. */
struct o2cb_view {
	struct o2fence_node	*vw_node;	/* NULL: no region is watched */
	bool			vw_silent;	/* and neither cleared nor back */
	bool			vw_due;		/* a notice is still to be written */
	s64			vw_silence_ms;	/* the shortest; negative: no life of it is known */
	u32			vw_dead_ms;	/* after which it resets itself */
};

/* slot.c */
int o2cb_read_slot(struct o2cb_region *rg, u32 num);
int o2cb_clear_slot(struct o2cb_region *rg, u32 num);

/* region.c */
extern wait_queue_head_t o2cb_looked;		/* woken after each look */
extern struct o2fence_heartbeat o2cb_heartbeat;
struct o2cb_view o2cb_view(u32 num);
void o2cb_look_now(void);

#endif /* O2FENCE_O2CB_H */
