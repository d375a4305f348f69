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
	struct o2fence_node *sl_node;	/* who has it, or NULL: nobody to fence */
	u32		sl_missed;	/* heartbeats of ours without one of theirs */
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
	char			rg_cluster[O2FENCE_NAME_MAX + 1];
	struct file		*rg_file;
	struct task_struct	*rg_thread;
	u64			rg_start_block;
	u32			rg_settings[O2FENCE_A_NODES + 1];	/* by attribute */
	struct slot		rg_slots[O2FENCE_NODES_MAX];		/* o2fence_lock */
	struct slot		*rg_ours, *rg_end;	/* this node's slot; behind the last one */
};

#define setting(rg, attr) ((rg)->rg_settings[O2FENCE_A_##attr])
#define for_each_region(rg) \
	list_for_each_entry(rg, &o2fence_objects[O2FENCE_CMD_REGION_GET], rg_ob.ob_list)

/* A node in all regions. */
struct view {
	bool	vw_silent, vw_due;	/* in one of them */
	s64	vw_resets_in;		/* in the last of them; see hb_resets_in */
	u32	vw_gate_ms;		/* how long this node may hold recovery for it */
};

static atomic_t calls = ATOMIC_INIT(0);	/* something has changed: look out of turn */
static DECLARE_WAIT_QUEUE_HEAD(looked);	/* a region was looked at, or is to be */

/* As o2hb computes it: with the field itself zero, no inversion. It is left zero. */
static __le32 checksum(struct region *rg)
{
	rg->rg_block.hb_cksum = 0;
	return cpu_to_le32(crc32_le(0, rg->rg_page, setting(rg, BLOCK_BYTES)));
}

static int slot_io(struct region *rg, struct slot *sl, blk_opf_t opf)
{
	u64 start = (rg->rg_start_block + (sl - rg->rg_slots)) * setting(rg, BLOCK_BYTES);
	struct bio_vec bvec;
	struct bio bio;

	bio_init(&bio, I_BDEV(rg->rg_file->f_mapping->host), &bvec, 1, opf | REQ_SYNC | REQ_PRIO);
	bio.bi_iter.bi_sector = start >> SECTOR_SHIFT;
	__bio_add_page(&bio, virt_to_page(rg->rg_page), setting(rg, BLOCK_BYTES), 0);
	return submit_bio_wait(&bio);
}

/* -EBADMSG: what is there is not a heartbeat of this node. */
static int read_slot(struct region *rg, struct slot *sl)
{
	int err = slot_io(rg, sl, REQ_OP_READ);
	__le32 sum = rg->rg_block.hb_cksum;
	bool right = sum == checksum(rg) && rg->rg_block.hb_node == sl - rg->rg_slots;

	return err ?: right ? 0 : -EBADMSG;
}

/* The notice, over what was just read. */
static int write_notice(struct region *rg, struct slot *sl)
{
	rg->rg_block.hb_seq = cpu_to_le64(ktime_get_real_seconds());
	rg->rg_block.hb_generation = 0;
	rg->rg_block.hb_cksum = checksum(rg);
	return slot_io(rg, sl, REQ_OP_WRITE | REQ_FUA);
}

/* A node as the regions see it that watch it; without one, whoever has the number. */
static struct view view(struct o2fence_node *nd, u32 num)
{
	struct view vw = { .vw_resets_in = S64_MIN };
	struct region *rg;

	guard(o2fence)();
	for_each_region(rg) {
		struct slot *sl = &rg->rg_slots[num];
		/* Only as far as the slot was really read: a disk that hangs proves nothing. */
		s64 silence_ms = jiffies_to_msecs(sl->sl_looked - sl->sl_changed);
		u32 dead_ms = le32_to_cpu(sl->sl_block.hb_dead_ms) ?: U32_MAX;
		u32 our_dead_ms = le32_to_cpu(rg->rg_ours->sl_block.hb_dead_ms);

		if (nd && nd != sl->sl_node)
			continue;
		vw.vw_silent |= sl->sl_silent;
		vw.vw_due |= sl->sl_due;
		vw.vw_gate_ms = min(setting(rg, GATE_MS), our_dead_ms / 4);
		if (sl->sl_block.hb_generation)
			vw.vw_resets_in = max(vw.vw_resets_in, dead_ms + MARGIN_MS - silence_ms);
	}
	return vw;
}

/*
 * Read a slot. Positive when there was news, zero when there was none, or a negative errno. A bad
 * checksum is a heartbeat that did not come, as for o2hb; a read error says nothing of the node.
 */
static int look_at(struct region *rg, struct slot *sl, bool count)
{
	int err = read_slot(rg, sl);
	u64 life = le64_to_cpu(sl->sl_block.hb_generation);
	bool same = sl->sl_block.hb_generation == rg->rg_block.hb_generation;

	if (err && err != -EBADMSG)
		return err;
	guard(o2fence)();
	if (!err)
		sl->sl_looked = jiffies;
	if (err || (same && sl->sl_block.hb_seq == rg->rg_block.hb_seq)) {
		if (count && ++sl->sl_missed == setting(rg, MISSED) && sl->sl_member) {
			sl->sl_silent = true;
			if (!sl->sl_node->nd_active) {	/* nothing of its last request is left */
				memset_startat(&sl->sl_node->nd_record, 0, re_incarnation);
				sl->sl_node->nd_record.re_incarnation = life;
			}
			o2fence_tell(sl->sl_node, O2FENCE_EVENT_SILENT);
		}
		return err;
	}
	if (sl->sl_node && (!same || sl->sl_silent))
		o2fence_obsolete(sl->sl_node, life, same ? "its heartbeat goes on" :
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
	u32 enough = setting(rg, MISSED), members = 0, live = 0;
	struct slot *sl, *lowest = NULL, *lowest_live = NULL;
	char reason[O2FENCE_TEXT_MAX];
	bool ours;

	guard(o2fence)();
	for (sl = rg->rg_slots; sl < rg->rg_end; sl++) {
		/* Whom stock OCFS2 has buried no longer counts, though it is still to be fenced. */
		if (!sl->sl_member || !o2hb_check_node_heartbeating_no_sem(sl - rg->rg_slots))
			continue;
		members++;
		live += !sl->sl_silent;
		lowest = lowest ?: sl;
		lowest_live = lowest_live ?: sl->sl_silent ? NULL : sl;
	}
	ours = lowest_live == rg->rg_ours && 2 * live >= members;
	if (2 * live == members && lowest != rg->rg_ours)
		enough += DIV_ROUND_UP(setting(rg, FENCE_DELAY_MS), setting(rg, PERIOD_MS));
	for (sl = rg->rg_slots; sl < rg->rg_end; sl++) {
		if (sl->sl_silent && ours && sl->sl_missed >= enough) {
			snprintf(reason, sizeof(reason), "missed %u heartbeats in region %s",
				 sl->sl_missed, rg->rg_ob.ob_name);
			o2fence_fence(sl->sl_node, le64_to_cpu(sl->sl_block.hb_generation), reason);
		} else if (sl->sl_silent && !ours && sl->sl_missed == enough) {
			o2fence_tell(sl->sl_node, O2FENCE_EVENT_NOT_OURS);
		}
	}
}

/* A region's thread. Our own heartbeat is the clock: without it nobody misses anything. */
static int watch(void *data)
{
	struct region *rg = data;
	struct slot *sl;
	bool count;
	int called;

	current->flags |= PF_MEMALLOC;
	while (!kthread_should_stop()) {
		called = atomic_read(&calls);
		count = look_at(rg, rg->rg_ours, false) > 0;
		for (sl = rg->rg_slots; sl < rg->rg_end; sl++)
			if (sl->sl_node && !look_at(rg, sl, count) && sl->sl_due && sl->sl_missed &&
			    !write_notice(rg, sl))
				look_at(rg, sl, false);		/* reads it back */
		if (count)
			judge(rg);
		wake_up_all(&looked);
		wait_event_idle_timeout(looked,
					called != atomic_read(&calls) || kthread_should_stop(),
					msecs_to_jiffies(setting(rg, PERIOD_MS)));
	}
	return 0;
}

static void look_now(void)
{
	atomic_inc(&calls);
	wake_up_all(&looked);
}

/* hb_fenced: the life that was last seen in each region is the one that was fenced. */
static void give_notice(struct o2fence_node *nd)
{
	u32 num = nd->nd_record.re_ob.ob_num;
	struct region *rg;

	scoped_guard(o2fence)
		for_each_region(rg)
			if (rg->rg_slots[num].sl_node == nd)
				rg->rg_slots[num].sl_due = rg->rg_slots[num].sl_block.hb_generation;
	look_now();
	wait_event_idle(looked, !view(nd, num).vw_due);
}

/* Whoever asks will ask again. */
static s64 resets_in(struct o2fence_node *nd)
{
	look_now();
	return view(nd, nd->nd_record.re_ob.ob_num).vw_resets_in;
}

static void put_region(struct sk_buff *skb, struct o2fence_object *ob)
{
	struct region *rg = container_of(ob, struct region, rg_ob);

	for (int attr = O2FENCE_A_MISSED; attr <= O2FENCE_A_NODES; attr++)
		nla_put_u32(skb, attr, rg->rg_settings[attr]);
	nla_put_string(skb, O2FENCE_A_CLUSTER, rg->rg_cluster);
	nla_put_string(skb, O2FENCE_A_REGION, ob->ob_name);
	for (struct slot *sl = rg->rg_slots; sl < rg->rg_end; sl++)
		if (sl->sl_member)
			nla_put_u32(skb, sl->sl_silent ? O2FENCE_A_SILENT : O2FENCE_A_LIVE,
				    sl - rg->rg_slots);
}

/* It is not shown any more, or not yet. */
static void del_region(struct o2fence_object *ob)
{
	struct region *rg = container_of(ob, struct region, rg_ob);

	if (!IS_ERR_OR_NULL(rg->rg_thread))
		kthread_stop(rg->rg_thread);
	scoped_guard(o2fence)
		for (struct slot *sl = rg->rg_slots; sl < rg->rg_end; sl++)
			if (sl->sl_node)
				sl->sl_node->nd_regions--;
	wake_up_all(&looked);	/* no notice is due here any more */
	if (rg->rg_file)
		fput(rg->rg_file);
	free_pages_exact(rg, sizeof(*rg));
}

DEFINE_FREE(region, struct region *, _T ? del_region(&_T->rg_ob) : (void)0)

/* What is not a heartbeat region with a slot of ours must never be written to. */
static int add_region(struct genl_info *info)
{
	struct nlattr **tb = info->attrs, *name = tb[O2FENCE_A_REGION], *in = tb[O2FENCE_A_CLUSTER];
	struct region *rg __free(region) = alloc_pages_exact(sizeof(*rg), GFP_KERNEL | __GFP_ZERO);
	u32 found = 0;

	if (!rg)
		return -ENOMEM;
	for (int attr = O2FENCE_A_MISSED; attr <= O2FENCE_A_NODES; attr++)
		rg->rg_settings[attr] = nla_get_u32(tb[attr]);
	rg->rg_start_block = nla_get_u64(tb[O2FENCE_A_START_BLOCK]);
	rg->rg_ours = &rg->rg_slots[o2nm_this_node()];
	rg->rg_end = &rg->rg_slots[setting(rg, BLOCKS)];
	nla_strscpy(rg->rg_cluster, in, sizeof(rg->rg_cluster));
	rg->rg_file = fget(nla_get_u32(tb[O2FENCE_A_FD]));
	if (!rg->rg_file || !S_ISBLK(file_inode(rg->rg_file)->i_mode) ||
	    !(rg->rg_file->f_mode & FMODE_WRITE))
		return refuse(info, tb[O2FENCE_A_FD], -EBADF, "not a writable block device");
	if (rg->rg_ours >= rg->rg_end || !is_power_of_2(setting(rg, BLOCK_BYTES)) ||
	    read_slot(rg, rg->rg_ours) || !rg->rg_block.hb_generation)
		return refuse(info, name, -EUCLEAN, "not a heartbeat region: no slot of this node");
	rg->rg_thread = kthread_create(watch, rg, "o2fence/disk");
	if (IS_ERR(rg->rg_thread))
		return PTR_ERR(rg->rg_thread);
	guard(o2fence)();
	if (o2fence_find(O2FENCE_CMD_REGION_GET, nla_data(name), 0))
		return refuse(info, name, -EEXIST, "already watched");
	for (struct slot *sl = rg->rg_slots; sl < rg->rg_end; sl++) {
		sl->sl_node = o2fence_node(nla_data(in), sl - rg->rg_slots);
		if (!sl->sl_node)
			continue;
		sl->sl_node->nd_regions++;
		found++;
	}
	if (found != setting(rg, NODES) || rg->rg_ours->sl_node)
		return refuse(info, in, -ENOENT, "not joined with all nodes but this one");
	rg->rg_ob.ob_put = put_region;
	rg->rg_ob.ob_del = del_region;
	__module_get(THIS_MODULE);	/* until REGION_DEL */
	wake_up_process(rg->rg_thread);
	o2fence_show(&no_free_ptr(rg)->rg_ob, O2FENCE_CMD_REGION_GET, nla_data(name));
	return 0;
}

struct o2fence_heartbeat o2fence_heartbeat = {
	.hb_watch	= add_region,
	.hb_resets_in	= resets_in,
	.hb_fenced	= give_notice,
};
EXPORT_SYMBOL_GPL(o2fence_heartbeat);

static void tell(u32 num, enum o2fence_event event)
{
	struct region *rg;

	guard(o2fence)();
	for_each_region(rg)
		if (rg->rg_slots[num].sl_node)
			return o2fence_tell(rg->rg_slots[num].sl_node, event);
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
	long left = msecs_to_jiffies(vw.vw_gate_ms);

	if (!vw.vw_silent)
		return;
	tell(num, O2FENCE_EVENT_GATE_HELD);
	look_now();
	left = wait_event_timeout(looked, !view(NULL, num).vw_silent, left);
	tell(num, left ? O2FENCE_EVENT_GATE_RELEASED : O2FENCE_EVENT_GATE_EXPIRED);
	if (!left)
		pr_crit("o2fence: node %d is NOT proven off; OCFS2 recovers anyway\n", num);
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
