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
 * The notice of a fenced node is the block that a node writes itself when it leaves cleanly: every
 * node's stock o2hb takes it as the node's death within a period. Writing to a wrong place, or over
 * a node that is alive, would destroy data. So it is written only where the slot was read just
 * before, its checksum was right, it held the life that was last seen there when FENCED was said,
 * and the node's heartbeat was overdue. Then it is read back: a write that was lost is no notice.
 *
 * The races: the duty is judged anew in each period from the same facts, so when the fencer dies
 * the next one takes over. A node that is off is fenced at once by whoever asks again.
 *
 * Each region has a thread of its own, a page, and a bio on its stack, so that a disk that hangs
 * holds up no other, and looking waits for no memory: none is asked for but the block layer's
 * preallocated requests.
 */

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/crc32.h>
#include <linux/file.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include "o2cb.h"
#include "o2fence.h"

#define GATE_PRIORITY 0x100000	/* behind o2net (0x1), before o2dlm (0xf000000) */
/*
 * A node resets itself a whole period before dead_ms; this is for the difference between its clock
 * and ours. More of it, and the gate would have to let go before the watchdog can be believed.
 */
#define MARGIN_MS 500ll

/* What is known of a node in one region. */
struct slot {
	struct o2cb_block sl_block;	/* its last heartbeat */
	unsigned long	sl_changed, sl_looked;	/* jiffies when that came; when the slot was read */
	u32		sl_missed;	/* periods of ours without a heartbeat of theirs */
	bool		sl_member;	/* its heartbeat was seen to advance */
	bool		sl_silent;	/* ... and has missed too many */
	bool		sl_due;		/* it is fenced, its notice is to be written */
};

struct region {
	union {				/* page-aligned, and the thread's alone */
		struct o2cb_block	rg_block;
		u8			rg_page[PAGE_SIZE];
	};
	struct o2fence_object	rg_ob;
	struct list_head	rg_list;
	struct o2fence_cluster	*rg_cluster;
	struct file		*rg_file;
	struct task_struct	*rg_thread;
	u64			rg_start_block;
	u32			rg_block_bytes, rg_blocks;
	struct slot		rg_slots[O2FENCE_NODES_MAX];	/* o2fence_lock */
};

/* A node in all regions of a cluster. */
struct view {
	bool	vw_silent, vw_due;	/* in one of them */
	s64	vw_resets_in;		/* in the last of them; see hb_resets_in */
	u32	vw_gate_ms;		/* how long this node may hold recovery for it */
};

static LIST_HEAD(regions);			/* o2fence_lock */
static atomic_t calls = ATOMIC_INIT(0);		/* something has changed: look out of turn */
static DECLARE_WAIT_QUEUE_HEAD(looked);		/* a region was looked at, or is to be */

/* As o2hb computes it: with the field itself zero, no inversion. It is left zero. */
static __le32 checksum(struct region *rg)
{
	rg->rg_block.hb_cksum = 0;
	return cpu_to_le32(crc32_le(0, rg->rg_page, rg->rg_block_bytes));
}

static int slot_io(struct region *rg, u32 num, blk_opf_t opf)
{
	struct bio_vec bvec;
	struct bio bio;

	bio_init(&bio, I_BDEV(rg->rg_file->f_mapping->host), &bvec, 1, opf | REQ_SYNC | REQ_PRIO);
	bio.bi_iter.bi_sector = (rg->rg_start_block + num) * rg->rg_block_bytes >> SECTOR_SHIFT;
	__bio_add_page(&bio, virt_to_page(rg->rg_page), rg->rg_block_bytes, 0);
	return submit_bio_wait(&bio);
}

/* -EBADMSG: what is there is not a heartbeat of this node. */
static int read_slot(struct region *rg, u32 num)
{
	int err = slot_io(rg, num, REQ_OP_READ);
	__le32 sum = rg->rg_block.hb_cksum;

	return err ?: sum == checksum(rg) && rg->rg_block.hb_node == num ? 0 : -EBADMSG;
}

/* The notice, over what was just read. */
static int write_notice(struct region *rg, u32 num)
{
	rg->rg_block.hb_seq = cpu_to_le64(ktime_get_real_seconds());
	rg->rg_block.hb_generation = 0;
	rg->rg_block.hb_cksum = checksum(rg);
	return slot_io(rg, num, REQ_OP_WRITE | REQ_FUA);
}

/* A node in the regions of a cluster, or in all. */
static struct view view(struct o2fence_cluster *of, u32 num)
{
	struct view vw = { .vw_resets_in = S64_MIN };
	struct region *rg;

	guard(o2fence)();
	list_for_each_entry(rg, &regions, rg_list) {
		struct o2fence_cluster *cl = rg->rg_cluster;
		struct slot *sl = &rg->rg_slots[num];
		/* Only as far as the slot was really read: a disk that hangs proves nothing. */
		s64 silence_ms = jiffies_to_msecs(sl->sl_looked - sl->sl_changed);
		u32 own_ms = le32_to_cpu(rg->rg_slots[cl->cl_this_node].sl_block.hb_dead_ms);
		u32 dead_ms = le32_to_cpu(sl->sl_block.hb_dead_ms) ?: U32_MAX;

		if (of && of != cl)
			continue;
		vw.vw_silent |= sl->sl_silent;
		vw.vw_due |= sl->sl_due;
		vw.vw_gate_ms = min3(cl->cl_gate_ms, cl->cl_missed * cl->cl_period_ms / 2, own_ms / 4);
		if (sl->sl_block.hb_generation)
			vw.vw_resets_in = max(vw.vw_resets_in, dead_ms + MARGIN_MS - silence_ms);
	}
	return vw;
}

/*
 * Read a slot. Positive when there was news, zero when there was none, or a negative errno. A bad
 * checksum is a heartbeat that did not come, as for o2hb; a read error says nothing of the node.
 */
static int look_at(struct region *rg, u32 num, bool count)
{
	struct o2fence_node *nd = &rg->rg_cluster->cl_nodes[num];
	struct slot *sl = &rg->rg_slots[num];
	int err = read_slot(rg, num);
	u64 life = le64_to_cpu(sl->sl_block.hb_generation);
	bool same = sl->sl_block.hb_generation == rg->rg_block.hb_generation;

	if (err && err != -EBADMSG)
		return err;
	guard(o2fence)();
	if (!err)
		sl->sl_looked = jiffies;
	if (err || (same && sl->sl_block.hb_seq == rg->rg_block.hb_seq)) {
		if (count && ++sl->sl_missed == rg->rg_cluster->cl_missed && sl->sl_member) {
			sl->sl_silent = true;
			o2fence_node_event(nd, life, O2FENCE_EVENT_SILENT);
		}
		return err;
	}
	if (!same || sl->sl_silent)
		o2fence_obsolete(nd, life, same ? "its heartbeat goes on" :
				 rg->rg_block.hb_generation ? "a new incarnation is there" :
							      "its slot is clear");
	sl->sl_member = same && life;
	sl->sl_silent = false;
	sl->sl_due &= same;		/* the fenced life has ended here */
	sl->sl_missed = 0;
	sl->sl_block = rg->rg_block;
	sl->sl_changed = sl->sl_looked;
	return 1;
}

/* Have the silent fenced, where the duty is ours. */
static void judge(struct region *rg)
{
	struct o2fence_cluster *cl = rg->rg_cluster;
	u32 n, members = 0, live = 0, lowest = U32_MAX, lowest_live = U32_MAX, enough = cl->cl_missed;
	char reason[O2FENCE_TEXT_MAX];
	struct slot *sl;

	guard(o2fence)();
	for (n = 0, sl = rg->rg_slots; n < rg->rg_blocks; n++, sl++) {
		/* Whom stock OCFS2 has buried no longer counts, though it is still to be fenced. */
		if (!sl->sl_member || !o2hb_check_node_heartbeating_no_sem(n))
			continue;
		members++;
		lowest = min(lowest, n);
		if (!sl->sl_silent) {
			live++;
			lowest_live = min(lowest_live, n);
		}
	}
	if (2 * live == members && lowest != cl->cl_this_node)
		enough += DIV_ROUND_UP(cl->cl_fence_delay_ms, cl->cl_period_ms);
	for (n = 0, sl = rg->rg_slots; n < rg->rg_blocks; n++, sl++) {
		if (!sl->sl_silent)
			continue;
		snprintf(reason, sizeof(reason), "missed %u heartbeats in region %s", sl->sl_missed,
			 rg->rg_ob.ob_name);
		if (lowest_live == cl->cl_this_node && 2 * live >= members && sl->sl_missed >= enough)
			o2fence_fence(&cl->cl_nodes[n], le64_to_cpu(sl->sl_block.hb_generation),
				      reason);
		else if (sl->sl_missed == cl->cl_missed)
			o2fence_node_event(&cl->cl_nodes[n], 0, O2FENCE_EVENT_NOT_OURS);
	}
}

/* A region's thread. */
static int watch(void *data)
{
	struct region *rg = data;
	struct o2fence_cluster *cl = rg->rg_cluster;
	unsigned long next = jiffies;
	struct slot *sl;
	int called;
	bool count;
	u32 n;

	current->flags |= PF_MEMALLOC;
	while (!kthread_should_stop()) {
		called = atomic_read(&calls);
		/* Our own health first. Out of turn, nobody's silence is held against it. */
		count = time_after_eq(jiffies, next);
		if (count) {
			next = jiffies + msecs_to_jiffies(cl->cl_period_ms);
			count = look_at(rg, cl->cl_this_node, false) > 0;
		}
		for (n = 0, sl = rg->rg_slots; n < rg->rg_blocks; n++, sl++)
			if (cl->cl_nodes[n].nd_nsteps && n != cl->cl_this_node &&
			    !look_at(rg, n, count) && sl->sl_due && sl->sl_missed &&
			    !write_notice(rg, n))
				look_at(rg, n, false);		/* reads it back */
		if (count)
			judge(rg);
		wake_up_all(&looked);
		wait_event_idle_timeout(looked, called != atomic_read(&calls) || kthread_should_stop(),
					max_t(long, next - jiffies, 0));
	}
	return 0;
}

/* hb_fenced: the life that was last seen in each region is the one that was fenced. */
static void give_notice(struct o2fence_node *nd)
{
	u32 num = nd->nd_record.re_node;
	struct region *rg;

	scoped_guard(o2fence)
		list_for_each_entry(rg, &regions, rg_list)
			rg->rg_slots[num].sl_due |= rg->rg_cluster == nd->nd_cluster &&
						    rg->rg_slots[num].sl_block.hb_generation;
	atomic_inc(&calls);
	wake_up_all(&looked);
	wait_event_idle(looked, !view(nd->nd_cluster, num).vw_due);
}

static s64 resets_in(struct o2fence_node *nd)
{
	return view(nd->nd_cluster, nd->nd_record.re_node).vw_resets_in;
}

static int put_region(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct region *rg = container_of(ob, struct region, rg_ob);
	u8 live[O2FENCE_NODES_MAX / 8 + 1] = {}, silent[O2FENCE_NODES_MAX / 8 + 1] = {};
	u32 n;

	for (n = 0; n < rg->rg_blocks; n++)
		if (rg->rg_slots[n].sl_silent)
			silent[n / 8] |= BIT(n % 8);
		else if (rg->rg_slots[n].sl_member)
			live[n / 8] |= BIT(n % 8);
	return nla_put_string(skb, O2FENCE_A_CLUSTER, rg->rg_cluster->cl_ob.ob_name) ?:
	       nla_put_string(skb, O2FENCE_A_REGION, ob->ob_name) ?:
	       nla_put(skb, O2FENCE_A_LIVE, sizeof(live), live) ?:
	       nla_put(skb, O2FENCE_A_SILENT, sizeof(silent), silent);
}

static void free_region(struct region *rg)
{
	if (rg->rg_file)
		fput(rg->rg_file);
	free_pages_exact(rg, sizeof(*rg));
}
DEFINE_FREE(region, struct region *, if (_T) free_region(_T))

/* What is not a heartbeat region with a slot of ours must never be written to. */
static int add_region(struct o2fence_cluster *cl, struct genl_info *info)
{
	struct region *rg __free(region) = alloc_pages_exact(sizeof(*rg), GFP_KERNEL | __GFP_ZERO);
	struct nlattr **tb = info->attrs, *name = tb[O2FENCE_A_REGION];

	if (!rg)
		return -ENOMEM;
	rg->rg_cluster = cl;
	rg->rg_start_block = nla_get_u64(tb[O2FENCE_A_START_BLOCK]);
	rg->rg_block_bytes = nla_get_u32(tb[O2FENCE_A_BLOCK_BYTES]);
	rg->rg_blocks = nla_get_u32(tb[O2FENCE_A_BLOCKS]);
	rg->rg_file = fget(nla_get_u32(tb[O2FENCE_A_FD]));
	if (!rg->rg_file || !S_ISBLK(file_inode(rg->rg_file)->i_mode) ||
	    !(rg->rg_file->f_mode & FMODE_WRITE))
		return refuse(info, tb[O2FENCE_A_FD], -EBADF, "not a block device open for writing");
	if (o2nm_this_node() != cl->cl_this_node)
		return refuse(info, NULL, -ENOTCONN, "o2cb is offline, or numbers nodes differently");
	if (cl->cl_this_node >= rg->rg_blocks || !is_power_of_2(rg->rg_block_bytes) ||
	    read_slot(rg, cl->cl_this_node) || !rg->rg_block.hb_generation)
		return refuse(info, name, -EUCLEAN, "not a heartbeat region: no slot of this node");
	rg->rg_thread = kthread_run(watch, rg, "o2fence/disk");
	if (IS_ERR(rg->rg_thread))
		return PTR_ERR(rg->rg_thread);
	guard(o2fence)();
	o2fence_show(&rg->rg_ob, O2FENCE_CMD_REGION_GET, nla_data(name), put_region);
	list_add_tail(&rg->rg_list, &regions);
	cl->cl_regions++;
	rg = NULL;	/* it stays */
	return 0;
}

static int del_region(struct region *rg)
{
	scoped_guard(o2fence) {
		list_del(&rg->rg_ob.ob_list);
		list_del(&rg->rg_list);
		rg->rg_cluster->cl_regions--;
	}
	kthread_stop(rg->rg_thread);
	wake_up_all(&looked);	/* no notice is due here any more */
	free_region(rg);
	return 0;
}

/* hb_region; the core serialises the calls. */
static int change_region(struct genl_info *info)
{
	struct nlattr *name = info->attrs[O2FENCE_A_REGION], *in = info->attrs[O2FENCE_A_CLUSTER];
	struct o2fence_cluster *cl = NULL;
	struct o2fence_object *ob;

	scoped_guard(o2fence) {
		ob = o2fence_find(O2FENCE_CMD_REGION_GET, nla_data(name));
		if (in)
			cl = o2fence_cluster(nla_data(in));
	}
	if (info->genlhdr->cmd == O2FENCE_CMD_REGION_DEL)
		return ob ? del_region(container_of(ob, struct region, rg_ob)) :
			    refuse(info, name, -ENOENT, "not watched");
	if (ob)
		return refuse(info, name, -EEXIST, "already watched");
	if (!cl || !cl->cl_heartbeat)
		return refuse(info, in, -ENOENT, "not joined, or before o2fence_o2cb was loaded");
	return add_region(cl, info);
}

struct o2fence_heartbeat o2fence_heartbeat = {
	.hb_region	= change_region,
	.hb_resets_in	= resets_in,
	.hb_fenced	= give_notice,
};
EXPORT_SYMBOL_GPL(o2fence_heartbeat);

static void tell(u32 num, enum o2fence_event event)
{
	struct region *rg;

	guard(o2fence)();
	rg = list_first_entry_or_null(&regions, struct region, rg_list);
	if (rg)
		o2fence_node_event(&rg->rg_cluster->cl_nodes[num], 0, event);
}

/*
 * The gate: o2dlm's recovery is held until the node is fenced.
 *
 * The problem: when a fence takes longer than o2hb's own threshold, o2dlm recovers the locks of a
 * node that may still write. This callback runs between o2net's and o2dlm's and can wait.
 *
 * The rule: it waits in o2hb's thread, so this node's own heartbeat stops meanwhile, and others
 * may find it silent. Hence three limits, of which the least counts: what is configured, a quarter
 * of the time after which this node would reset itself, and half of the time after which the
 * others would fence it. Then it lets go, loudly: never worse than stock.
 *
 * The races: a clean leave comes here too; but it clears its slot, and is not silent. While this
 * waits, the region may go and its cluster be left: it holds on to neither.
 */
static void node_down(struct o2nm_node *node, int num, void *data)
{
	struct view vw = view(NULL, num);
	long left;

	if (!vw.vw_silent)
		return;
	tell(num, O2FENCE_EVENT_GATE_HELD);
	atomic_inc(&calls);
	wake_up_all(&looked);
	left = wait_event_timeout(looked, !view(NULL, num).vw_silent, msecs_to_jiffies(vw.vw_gate_ms));
	tell(num, left ? O2FENCE_EVENT_GATE_RELEASED : O2FENCE_EVENT_GATE_EXPIRED);
	if (!left)
		pr_crit("o2fence: node %d is NOT proven off; OCFS2 recovers its locks anyway\n", num);
}

static struct o2hb_callback_func callback;

static int __init o2cb_init(void)
{
	o2hb_setup_callback(&callback, O2HB_NODE_DOWN_CB, node_down, NULL, GATE_PRIORITY);
	return o2hb_register_callback(NULL, &callback);
}

static void __exit o2cb_exit(void)
{
	o2hb_unregister_callback(NULL, &callback);
}

module_init(o2cb_init);
module_exit(o2cb_exit);
MODULE_DESCRIPTION("Fencing harness: OCFS2's own cluster stack, unpatched");
MODULE_LICENSE("GPL");
