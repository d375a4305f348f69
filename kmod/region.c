// SPDX-License-Identifier: GPL-2.0-only
/*
 * region.c - the slot monitor: who is silent, whose duty it is to fence it, and the notice
 *
 * The problem: a node that is silent must be fenced by exactly one survivor that may judge (R7,
 * R24, R25), and all that a survivor knows is what it reads from the disk.
 *
 * The rule: every period, each region's slots are looked at. A node misses a heartbeat when its
 * slot stood still while our own moved on; when our own stands still, our view is worth nothing
 * and nobody misses anything. Of the members that are not silent, the lowest-numbered has the
 * duty, if they are the majority of all members, or half of them with the lowest number. The other
 * half waits fence_delay_ms more, in periods in which its own heartbeat reaches the disk.
 *
 * The races: the duty is judged anew in each period from the same facts, so when the fencer dies
 * the next one takes over. A node that is off is fenced at once by whoever asks again, and a
 * notice is written only over the life that was fenced.
 *
 * Each region has a workqueue with a rescuer of its own, so that a disk that hangs holds up no
 * other, and looking cannot wait for memory because no worker has to be created for it.
 */

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include "o2cb.h"

static DEFINE_SPINLOCK(o2cb_lock);	/* regions and their slots; taken inside o2fence_lock */
static LIST_HEAD(o2cb_regions);
DECLARE_WAIT_QUEUE_HEAD(o2cb_looked);

struct o2cb_view o2cb_view(u32 num)
{
	struct o2cb_view vw = { .vw_silence_ms = -ENODATA };
	struct o2cb_region *rg;
	s64 ms;

	spin_lock_bh(&o2cb_lock);
	list_for_each_entry(rg, &o2cb_regions, rg_list) {
		struct o2cb_slot *sl = &rg->rg_slots[num];

		vw.vw_node = &rg->rg_cluster->cl_nodes[num];
		vw.vw_silent |= test_bit(num, rg->rg_silent);
		vw.vw_due |= test_bit(num, rg->rg_due);
		if (!sl->sl_generation)
			continue;
		/* Only as far as the slot was really read: a disk that hangs proves nothing. */
		ms = jiffies_to_msecs(sl->sl_looked - sl->sl_changed);
		vw.vw_silence_ms = vw.vw_silence_ms < 0 ? ms : min(vw.vw_silence_ms, ms);
		vw.vw_dead_ms = max(vw.vw_dead_ms, sl->sl_dead_ms);
	}
	spin_unlock_bh(&o2cb_lock);
	return vw;
}

/* No notice is due here any more; tells the core when it was the last. */
static void o2cb_notice_done(struct o2cb_region *rg, u32 num)
{
	spin_lock_bh(&o2cb_lock);
	__clear_bit(num, rg->rg_due);
	spin_unlock_bh(&o2cb_lock);
	if (!o2cb_view(num).vw_due)
		o2fence_noticed(&rg->rg_cluster->cl_nodes[num]);
}

/* What the slot's block says is news: a heartbeat, another life or the end of one. */
static const char *o2cb_heard(struct o2cb_region *rg, u32 num)
{
	struct o2cb_slot *sl = &rg->rg_slots[num];
	u64 generation = le64_to_cpu(rg->rg_block->hb_generation);
	bool same = generation == sl->sl_generation;
	bool silent = test_bit(num, rg->rg_silent);

	sl->sl_seq = le64_to_cpu(rg->rg_block->hb_seq);
	sl->sl_generation = generation;
	sl->sl_changed = jiffies;
	sl->sl_dead_ms = le32_to_cpu(rg->rg_block->hb_dead_ms);
	sl->sl_missed = 0;
	__clear_bit(num, rg->rg_silent);
	__assign_bit(num, rg->rg_members, same && generation);
	if (!same)
		return generation ? "a new incarnation is there" : "its slot is clear";
	return silent ? "its heartbeat goes on" : NULL;
}

/*
 * Read a slot and act on it. A bad checksum is a heartbeat that did not come, as for o2hb; a read
 * error says nothing about the node. True when there was news.
 */
static bool o2cb_look_at(struct o2cb_region *rg, u32 num, bool count)
{
	struct o2fence_node *nd = &rg->rg_cluster->cl_nodes[num];
	struct o2cb_slot *sl = &rg->rg_slots[num];
	bool news, fell_silent = false;
	u64 life = sl->sl_generation;
	const char *obsolete = NULL;
	int err;

	err = o2cb_read_slot(rg, num);
	if (err && err != -EBADMSG)
		return false;
	spin_lock_bh(&o2cb_lock);
	news = !err && (le64_to_cpu(rg->rg_block->hb_seq) != sl->sl_seq ||
			le64_to_cpu(rg->rg_block->hb_generation) != life);
	if (news)
		obsolete = o2cb_heard(rg, num);
	else if (count && test_bit(num, rg->rg_members))
		fell_silent = ++sl->sl_missed == rg->rg_cluster->cl_missed;
	if (fell_silent)
		__set_bit(num, rg->rg_silent);
	if (!err)
		sl->sl_looked = jiffies;
	spin_unlock_bh(&o2cb_lock);

	if (fell_silent)
		o2fence_node_event(nd, life, O2FENCE_EVENT_SILENT);
	if (obsolete && life)
		o2fence_obsolete(nd, life, obsolete);
	if (!test_bit(num, rg->rg_due) || err)
		return news;
	if (sl->sl_generation != life) {
		o2cb_notice_done(rg, num);	/* the fenced life has ended here already */
	} else if (!o2cb_clear_slot(rg, num)) {
		o2cb_look_at(rg, num, false);	/* finds it clear: once deep, not more */
	}
	return news;
}

/* How many periods the silent must have missed before we may fence them; U32_MAX: we may not. */
static u32 o2cb_needed(struct o2cb_region *rg)
{
	struct o2fence_cluster *cl = rg->rg_cluster;
	DECLARE_BITMAP(counted, O2FENCE_NODES_MAX);
	u32 members, live, lowest, n;

	bitmap_copy(counted, rg->rg_members, O2FENCE_NODES_MAX);
	/* Whom stock OCFS2 has buried no longer counts, though it is still to be fenced. */
	for_each_set_bit(n, rg->rg_members, O2FENCE_NODES_MAX)
		if (!o2hb_check_node_heartbeating_no_sem(n))
			__clear_bit(n, counted);
	members = bitmap_weight(counted, O2FENCE_NODES_MAX);
	lowest = find_first_bit(counted, O2FENCE_NODES_MAX);
	bitmap_andnot(counted, counted, rg->rg_silent, O2FENCE_NODES_MAX);
	live = bitmap_weight(counted, O2FENCE_NODES_MAX);

	if (find_first_bit(counted, O2FENCE_NODES_MAX) != cl->cl_this_node || 2 * live < members)
		return U32_MAX;
	if (2 * live > members || lowest == cl->cl_this_node)
		return cl->cl_missed;
	return cl->cl_missed + DIV_ROUND_UP(cl->cl_fence_delay_ms, cl->cl_period_ms);
}

static void o2cb_judge(struct o2cb_region *rg)
{
	u32 n, needed = o2cb_needed(rg);
	char reason[O2FENCE_TEXT_MAX];

	for_each_set_bit(n, rg->rg_silent, O2FENCE_NODES_MAX) {
		struct o2fence_node *nd = &rg->rg_cluster->cl_nodes[n];
		struct o2cb_slot *sl = &rg->rg_slots[n];

		snprintf(reason, sizeof(reason), "missed %u heartbeats in region %s",
			 sl->sl_missed, rg->rg_ob.ob_name);
		if (sl->sl_missed >= needed)
			o2fence_fence(nd, sl->sl_generation, reason);
		else if (sl->sl_missed == rg->rg_cluster->cl_missed)
			o2fence_node_event(nd, sl->sl_generation, O2FENCE_EVENT_NOT_OURS);
	}
}

static void o2cb_look(struct work_struct *work)
{
	struct o2cb_region *rg = container_of(to_delayed_work(work), struct o2cb_region, rg_work);
	struct o2fence_cluster *cl = rg->rg_cluster;
	unsigned int flags = memalloc_noreclaim_save();
	/* Out of turn, little time has passed: look, but hold nobody's silence against it. */
	bool count = time_after_eq(jiffies, rg->rg_next);
	u32 n;

	if (count) {
		rg->rg_next = jiffies + msecs_to_jiffies(cl->cl_period_ms);
		count = o2cb_look_at(rg, cl->cl_this_node, false);	/* our own health first */
	}
	for (n = 0; n < rg->rg_blocks; n++)
		if (cl->cl_nodes[n].nd_nsteps && n != cl->cl_this_node)
			o2cb_look_at(rg, n, count);
	if (count)
		o2cb_judge(rg);
	wake_up_all(&o2cb_looked);
	queue_delayed_work(rg->rg_wq, &rg->rg_work,
			   max_t(long, rg->rg_next - jiffies, 0));
	memalloc_noreclaim_restore(flags);
}

/* Something has changed: look out of turn. */
void o2cb_look_now(void)
{
	struct o2cb_region *rg;

	spin_lock_bh(&o2cb_lock);
	list_for_each_entry(rg, &o2cb_regions, rg_list)
		mod_delayed_work(rg->rg_wq, &rg->rg_work, 0);
	spin_unlock_bh(&o2cb_lock);
}

/* hb_fenced: the life that was last seen in each region is the one that was fenced. */
static void o2cb_fenced(struct o2fence_node *nd)
{
	struct o2cb_region *rg;

	spin_lock_bh(&o2cb_lock);
	list_for_each_entry(rg, &o2cb_regions, rg_list)
		__assign_bit(nd->nd_num, rg->rg_due, rg->rg_slots[nd->nd_num].sl_generation);
	spin_unlock_bh(&o2cb_lock);
	if (o2cb_view(nd->nd_num).vw_due)
		o2cb_look_now();
	else
		o2fence_noticed(nd);
}

static s64 o2cb_silence(struct o2fence_node *nd, u32 *dead_ms)
{
	struct o2cb_view vw = o2cb_view(nd->nd_num);

	*dead_ms = vw.vw_dead_ms;
	return vw.vw_silence_ms;
}

static int o2cb_put_region(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct o2cb_region *rg = container_of(ob, struct o2cb_region, rg_ob);
	DECLARE_BITMAP(live, O2FENCE_NODES_MAX);

	bitmap_andnot(live, rg->rg_members, rg->rg_silent, O2FENCE_NODES_MAX);
	return nla_put_string(skb, O2FENCE_A_CLUSTER, rg->rg_cluster->cl_ob.ob_name) ?:
	       nla_put_string(skb, O2FENCE_A_REGION, ob->ob_name) ?:
	       nla_put_u64_64bit(skb, O2FENCE_A_START_BLOCK, rg->rg_start_block, O2FENCE_A_PAD) ?:
	       nla_put_u32(skb, O2FENCE_A_BLOCK_BYTES, rg->rg_block_bytes) ?:
	       nla_put_u32(skb, O2FENCE_A_BLOCKS, rg->rg_blocks) ?:
	       nla_put(skb, O2FENCE_A_LIVE, sizeof(live), live) ?:
	       nla_put(skb, O2FENCE_A_SILENT, sizeof(rg->rg_silent), rg->rg_silent);
}

static void o2cb_free_region(struct o2cb_region *rg)
{
	if (rg->rg_wq)
		destroy_workqueue(rg->rg_wq);
	if (rg->rg_file)
		fput(rg->rg_file);
	free_page((unsigned long)rg->rg_block);
	kvfree(rg);
}

static int o2cb_open_region(struct o2cb_region *rg, struct genl_info *info)
{
	struct nlattr **tb = info->attrs;
	u32 us = rg->rg_cluster->cl_this_node;

	nla_strscpy(rg->rg_ob.ob_name, tb[O2FENCE_A_REGION], sizeof(rg->rg_ob.ob_name));
	rg->rg_start_block = nla_get_u64(tb[O2FENCE_A_START_BLOCK]);
	rg->rg_block_bytes = nla_get_u32(tb[O2FENCE_A_BLOCK_BYTES]);
	rg->rg_blocks = nla_get_u32(tb[O2FENCE_A_BLOCKS]);
	rg->rg_file = fget(nla_get_u32(tb[O2FENCE_A_FD]));
	if (!rg->rg_file || !S_ISBLK(file_inode(rg->rg_file)->i_mode) ||
	    !(rg->rg_file->f_mode & FMODE_WRITE))
		return o2fence_refuse(info, tb[O2FENCE_A_FD], -EBADF,
				      "not a block device open for writing");
	if (o2nm_this_node() != us)
		return o2fence_refuse(info, NULL, -ENOTCONN,
				      "o2cb is offline, or numbers this node differently");
	/* What is not a heartbeat region must never be written to. */
	if (us >= rg->rg_blocks || o2cb_read_slot(rg, us) || !rg->rg_block->hb_generation)
		return o2fence_refuse(info, tb[O2FENCE_A_REGION], -EUCLEAN,
				      "not a heartbeat region of OCFS2: no slot of this node");
	if (o2fence_add(&rg->rg_ob))
		return o2fence_refuse(info, tb[O2FENCE_A_REGION], -EEXIST, "already watched");
	return 0;
}

static int o2cb_region_add(struct o2fence_cluster *cl, struct genl_info *info)
{
	struct o2cb_region *rg = kvzalloc(sizeof(*rg), GFP_KERNEL);
	int err = -ENOMEM;

	if (!rg)
		return -ENOMEM;
	rg->rg_ob.ob_kind = O2FENCE_CMD_REGION_GET;
	rg->rg_ob.ob_put = o2cb_put_region;
	rg->rg_cluster = cl;
	rg->rg_next = jiffies;
	INIT_DELAYED_WORK(&rg->rg_work, o2cb_look);
	rg->rg_block = (struct o2cb_block *)get_zeroed_page(GFP_KERNEL);
	rg->rg_wq = alloc_ordered_workqueue("o2fence-region", WQ_MEM_RECLAIM | WQ_HIGHPRI);
	if (rg->rg_block && rg->rg_wq)
		err = o2cb_open_region(rg, info);
	if (err) {
		o2cb_free_region(rg);
		return err;
	}
	cl->cl_regions++;
	spin_lock_bh(&o2cb_lock);
	list_add_tail(&rg->rg_list, &o2cb_regions);
	spin_unlock_bh(&o2cb_lock);
	queue_delayed_work(rg->rg_wq, &rg->rg_work, 0);
	return 0;
}

static void o2cb_region_del(struct o2cb_region *rg)
{
	u32 n;

	spin_lock_bh(&o2cb_lock);
	list_del(&rg->rg_list);		/* nobody queues the work any more but itself */
	spin_unlock_bh(&o2cb_lock);
	o2fence_del(&rg->rg_ob);
	cancel_delayed_work_sync(&rg->rg_work);
	for_each_set_bit(n, rg->rg_due, O2FENCE_NODES_MAX)
		o2cb_notice_done(rg, n);
	rg->rg_cluster->cl_regions--;
	o2cb_free_region(rg);
}

/* hb_region; the core serialises the calls. */
static int o2cb_region(struct genl_info *info)
{
	struct nlattr **tb = info->attrs;
	struct o2fence_object *region = o2fence_find(O2FENCE_CMD_REGION_GET, tb[O2FENCE_A_REGION]);
	struct o2fence_object *cluster;

	if (info->genlhdr->cmd == O2FENCE_CMD_REGION_DEL) {
		if (!region)
			return o2fence_refuse(info, tb[O2FENCE_A_REGION], -ENOENT, "not watched");
		o2cb_region_del(container_of(region, struct o2cb_region, rg_ob));
		return 0;
	}
	if (!tb[O2FENCE_A_REGION] || !tb[O2FENCE_A_FD] || !tb[O2FENCE_A_START_BLOCK] ||
	    !tb[O2FENCE_A_BLOCK_BYTES] || !tb[O2FENCE_A_BLOCKS])
		return o2fence_refuse(info, NULL, -EINVAL, "an attribute is missing");
	cluster = o2fence_find(O2FENCE_CMD_CLUSTER_GET, tb[O2FENCE_A_CLUSTER]);
	if (!cluster || !container_of(cluster, struct o2fence_cluster, cl_ob)->cl_heartbeat)
		return o2fence_refuse(info, tb[O2FENCE_A_CLUSTER], -ENOENT,
				      "not joined, or joined before o2fence_o2cb was loaded");
	return o2cb_region_add(container_of(cluster, struct o2fence_cluster, cl_ob), info);
}

struct o2fence_heartbeat o2cb_heartbeat = {
	.hb_owner	= THIS_MODULE,
	.hb_region	= o2cb_region,
	.hb_silence	= o2cb_silence,
	.hb_fenced	= o2cb_fenced,
};
