/* SPDX-License-Identifier: GPL-2.0-only */
/* core.h - shared by the files of o2fence.ko, nobody else */
#ifndef O2FENCE_CORE_H
#define O2FENCE_CORE_H

#include "o2fence.h"

/* method.c */
extern spinlock_t o2fence_lock;
extern struct list_head o2fence_objects;

/* cluster.c */
int o2fence_join(struct sk_buff *skb, struct genl_info *info);
int o2fence_leave(struct sk_buff *skb, struct genl_info *info);
int o2fence_region(struct sk_buff *skb, struct genl_info *info);
struct o2fence_node *o2fence_named_node(struct genl_info *info);

/* request.c */
extern struct workqueue_struct *o2fence_wq;
void o2fence_run(struct work_struct *work);
int o2fence_order(struct sk_buff *skb, struct genl_info *info);
bool o2fence_settle(struct o2fence_node *nd, int err, const char *msg);

/* bridge.c */
int o2fence_ask_bridge(struct o2fence_node *nd);
int o2fence_tell_bridge(struct o2fence_node *nd, u8 cmd);
void o2fence_unbind(u32 portid);
int o2fence_memalloc(struct sk_buff *skb, struct genl_info *info);
int o2fence_bind(struct sk_buff *skb, struct genl_info *info);
int o2fence_fenced(struct sk_buff *skb, struct genl_info *info);

/* netlink.c */
int o2fence_put_record(struct sk_buff *skb, struct o2fence_object *ob);
struct sk_buff *o2fence_new_msg(u8 cmd, struct o2fence_record *re, gfp_t gfp);
void o2fence_tell(struct o2fence_record *re, enum o2fence_event event);

#endif /* O2FENCE_CORE_H */
