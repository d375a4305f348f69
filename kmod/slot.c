// SPDX-License-Identifier: GPL-2.0-only
/*
 * slot.c - heartbeat blocks on the shared disk
 *
 * One preallocated page per region and a bio on the stack: this cannot wait for memory because
 * none is asked for but the block layer's preallocated requests.
 */

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/crc32.h>
#include <linux/mm.h>
#include "o2cb.h"

static int o2cb_io(struct o2cb_region *rg, u32 num, blk_opf_t opf)
{
	struct bio_vec bvec;
	struct bio bio;
	int err;

	bio_init(&bio, I_BDEV(rg->rg_file->f_mapping->host), &bvec, 1, opf | REQ_SYNC | REQ_PRIO);
	bio.bi_iter.bi_sector = (rg->rg_start_block + num) * rg->rg_block_bytes >> SECTOR_SHIFT;
	__bio_add_page(&bio, virt_to_page(rg->rg_block), rg->rg_block_bytes, 0);
	err = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return err;
}

/* As o2hb computes it: with the field itself zero, no inversion. */
static __le32 o2cb_cksum(struct o2cb_region *rg)
{
	__le32 sum, old = rg->rg_block->hb_cksum;

	rg->rg_block->hb_cksum = 0;
	sum = cpu_to_le32(crc32_le(0, (u8 *)rg->rg_block, rg->rg_block_bytes));
	rg->rg_block->hb_cksum = old;
	return sum;
}

/* -EBADMSG: what is there is not a heartbeat of this node. */
int o2cb_read_slot(struct o2cb_region *rg, u32 num)
{
	int err = o2cb_io(rg, num, REQ_OP_READ);

	if (!err && (rg->rg_block->hb_cksum != o2cb_cksum(rg) || rg->rg_block->hb_node != num))
		err = -EBADMSG;
	return err;
}

/*
 * The notice: the block that a node writes itself when it leaves cleanly. Every node's stock o2hb
 * takes it as the node's death within a period. Writing to a wrong place or over a node that came
 * back would destroy data: the caller has just read the slot, whose checksum was right, and found
 * the life that was fenced. Read back: a write that was lost is no notice.
 */
int o2cb_clear_slot(struct o2cb_region *rg, u32 num)
{
	struct o2cb_block *hb = rg->rg_block;
	int err;

	hb->hb_seq = cpu_to_le64(ktime_get_real_seconds());
	hb->hb_generation = 0;
	hb->hb_cksum = o2cb_cksum(rg);
	err = o2cb_io(rg, num, REQ_OP_WRITE | REQ_FUA) ?: o2cb_read_slot(rg, num);
	if (err)
		pr_err_ratelimited("o2fence: notice of node %u in region %s: error %d\n", num,
				   rg->rg_ob.ob_name, err);
	return err;
}
