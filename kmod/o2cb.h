/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * o2cb.h - what stock OCFS2 exports, redeclared here and nowhere else
 *
 * Debian's header package has no fs/ocfs2/cluster; Module.symvers checks what is declared here. It
 * is the same in 6.1, 6.12 and 7.3.
 */
#ifndef O2FENCE_O2CB_H
#define O2FENCE_O2CB_H

#include <linux/list.h>
#include <linux/types.h>

/* fs/ocfs2/cluster/{heartbeat,nodemanager}.h */
#define O2HB_NODE_DOWN_CB 0
struct o2nm_node;
struct o2hb_callback_func {
	u64	hc_opaque[16];		/* 7 are in use */
};

void o2hb_setup_callback(struct o2hb_callback_func *hc, int type,
			 void (*func)(struct o2nm_node *node, int num, void *data), void *data,
			 int priority);
int o2hb_register_callback(const char *region_uuid, struct o2hb_callback_func *hc);
void o2hb_unregister_callback(const char *region_uuid, struct o2hb_callback_func *hc);
int o2hb_check_node_heartbeating_no_sem(u8 node_num);
u8 o2nm_this_node(void);

/* fs/ocfs2/cluster/ocfs2_heartbeat.h; the rest of a slot's block is zero */
struct o2cb_block {
	__le64	hb_seq;			/* seconds since the epoch, rewritten every period */
	u8	hb_node, hb_pad1[3];
	__le32	hb_cksum;
	__le64	hb_generation;		/* the incarnation; 0: left cleanly, or fenced */
	__le32	hb_dead_ms;
};

#endif /* O2FENCE_O2CB_H */
