/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * The o2fence generic-netlink protocol
 * ====================================
 *
 * Family "o2fence", version 1, initial network namespace only. The same contract in the kernel's
 * specification language is docs/netlink/o2fence.yaml; bridge/uapi mirrors it for Go, and a test
 * fails when the three disagree. One attribute per fact; integers in host byte order. Unknown
 * attributes are refused. Every refusal carries an extack text, and where one attribute is to
 * blame (a method that is not registered, a node that is not configured) its offset.
 *
 * A request is one fence of one node: it has a number that is never reused while the module is
 * loaded. A request makes attempts, one method after another; an attempt has a number that counts
 * from 1 within its request. The incarnation is the heartbeat generation of the node when its
 * silence was noticed (0: whoever asked did not know it).
 *
 * All commands need CAP_NET_ADMIN in the initial user namespace, the dumps too. O2FENCE_CMD_MEMALLOC
 * needs CAP_SYS_RESOURCE as well.
 *
 * JOIN      { CLUSTER, THIS_NODE, [HEARTBEAT], MISSED, PERIOD_MS, GATE_MS, FENCE_DELAY_MS,
 *             NODE_ENTRY { NODE, NODE_NAME, STEP { METHOD, TIMEOUT_MS, [PARAMS] } ... } ... }
 *           Enters a cluster: one message, all or nothing. Every method of every node must be
 *           registered and the last method of every node must run in the kernel. Pins the modules
 *           of all its methods until LEAVE. HEARTBEAT names the kernel heartbeat to follow ("o2cb").
 * LEAVE     { CLUSTER }
 *           -EBUSY while a fence of this cluster is under way.
 * FENCE     { CLUSTER, NODE, [INCARNATION], [REASON] }  ->  ack
 *           Starts a request. -EALREADY when one is under way for this node.
 * CONFIRM   { CLUSTER, NODE, REQUEST, WHO, REASON }
 *           An administrator vouches that the node is off. Only while a method that asks for it
 *           ("manual") is being tried.
 * REGION_ADD { REGION, FD, START_BLOCK, BLOCK_BYTES, BLOCKS }
 *           Watches a heartbeat region through an open descriptor of its device. Refused unless
 *           this node's own slot is found there with a right checksum.
 * REGION_DEL { REGION }
 *
 * MEMALLOC  {}
 *           Puts the calling thread into PF_MEMALLOC mode, for good; children and exec inherit it.
 * BIND      { METHOD, METHOD ... }
 *           The calling socket carries these user-space methods. Refused unless every thread of the
 *           process is in PF_MEMALLOC mode and its memory is locked, now and in future.
 *           Bindings end with the socket; what was asked of it moves on to the next method at once.
 * INITIATE  kernel to the bound socket:
 *           { CLUSTER, NODE, NODE_NAME, INCARNATION, REQUEST, ATTEMPT, METHOD, TIMEOUT_MS, [PARAMS] }
 * CANCEL    kernel to the bound socket: the same; the attempt's answer is no longer wanted.
 * FENCED    { CLUSTER, NODE, INCARNATION, REQUEST, ATTEMPT, ERRNO, [ERRMSG] }
 *           The answer. ERRNO 0: the node is proven off, or cut off from the disks. -ESTALE when it
 *           answers anything but the attempt under way, -EPERM from a socket that was not asked.
 *
 * CLUSTER_GET, NODE_GET, METHOD_GET, REGION_GET, REQUEST_GET   dumps of all there is.
 *           REQUEST_GET gives the requests under way, then the last 64 that ended, newest first.
 *           PARAMS are not shown.
 *
 * EVENT     multicast group "events": one message per step of every request, with what REQUEST_GET
 *           shows and EVENT. Delivery is best effort: it must never hold up a fence.
 */
#ifndef _UAPI_O2FENCE_H
#define _UAPI_O2FENCE_H

#define O2FENCE_GENL_NAME	"o2fence"
#define O2FENCE_GENL_VERSION	1
#define O2FENCE_MCGRP_EVENTS	"events"

#define O2FENCE_NODES_MAX	255	/* node numbers are 0..254, as in O2NM_MAX_NODES */
#define O2FENCE_NAME_MAX	64	/* bytes of a cluster, node or method name without its NUL */
#define O2FENCE_TEXT_MAX	255	/* bytes of a reason or an error text without its NUL */
#define O2FENCE_PARAMS_MAX	1024	/* bytes of one method's parameters */
#define O2FENCE_STEPS_MAX	8	/* methods of one node */
#define O2FENCE_HISTORY		64	/* ended requests that are remembered */

enum o2fence_cmd {
	O2FENCE_CMD_UNSPEC,
	O2FENCE_CMD_JOIN,
	O2FENCE_CMD_LEAVE,
	O2FENCE_CMD_FENCE,
	O2FENCE_CMD_CONFIRM,
	O2FENCE_CMD_REGION_ADD,
	O2FENCE_CMD_REGION_DEL,
	O2FENCE_CMD_MEMALLOC,
	O2FENCE_CMD_BIND,
	O2FENCE_CMD_INITIATE,
	O2FENCE_CMD_CANCEL,
	O2FENCE_CMD_FENCED,
	O2FENCE_CMD_CLUSTER_GET,
	O2FENCE_CMD_NODE_GET,
	O2FENCE_CMD_METHOD_GET,
	O2FENCE_CMD_REGION_GET,
	O2FENCE_CMD_REQUEST_GET,
	O2FENCE_CMD_EVENT,
};

enum o2fence_attr {
	O2FENCE_A_UNSPEC,
	O2FENCE_A_CLUSTER,		/* string */
	O2FENCE_A_THIS_NODE,		/* u32, this machine's node number */
	O2FENCE_A_HEARTBEAT,		/* string */
	O2FENCE_A_MISSED,		/* u32, heartbeats; 2..1000 */
	O2FENCE_A_PERIOD_MS,		/* u32, ms; 100..60000 */
	O2FENCE_A_GATE_MS,		/* u32, ms; 0..60000, 0 is no gate */
	O2FENCE_A_FENCE_DELAY_MS,	/* u32, ms; 0..600000 */
	O2FENCE_A_FENCING,		/* u32, requests under way */
	O2FENCE_A_NODE_ENTRY,		/* nest, repeated */
	O2FENCE_A_NODE,			/* u32, 0..254 */
	O2FENCE_A_NODE_NAME,		/* string */
	O2FENCE_A_STEP,			/* nest, repeated */
	O2FENCE_A_METHOD,		/* string, repeated in BIND */
	O2FENCE_A_TIMEOUT_MS,		/* u32, ms; 1..86400000 */
	O2FENCE_A_PARAMS,		/* binary */
	O2FENCE_A_MODULE,		/* string, the module that owns a method */
	O2FENCE_A_PORTID,		/* u32, the socket a method is bound to; 0 when its bridge is gone */
	O2FENCE_A_PID,			/* u32, the process of that socket */
	O2FENCE_A_REGION,		/* string, the region's UUID as in configfs */
	O2FENCE_A_FD,			/* u32 */
	O2FENCE_A_START_BLOCK,		/* u64, in blocks */
	O2FENCE_A_BLOCK_BYTES,		/* u32, bytes; 512..4096 */
	O2FENCE_A_BLOCKS,		/* u32, 1..255 */
	O2FENCE_A_LIVE,			/* binary, bit n of byte n / 8: node n is live in this region */
	O2FENCE_A_SILENT,		/* binary, the same: node n has missed its heartbeats */
	O2FENCE_A_INCARNATION,		/* u64 */
	O2FENCE_A_REQUEST,		/* u64 */
	O2FENCE_A_ATTEMPT,		/* u32 */
	O2FENCE_A_ERRNO,		/* u32, 0 or a positive errno */
	O2FENCE_A_ERRMSG,		/* string */
	O2FENCE_A_REASON,		/* string */
	O2FENCE_A_WHO,			/* string */
	O2FENCE_A_STATE,		/* u32, enum o2fence_state */
	O2FENCE_A_EVENT,		/* u32, enum o2fence_event */
	O2FENCE_A_AT,			/* nest of u64, ns of CLOCK_REALTIME, by enum o2fence_event */
	O2FENCE_A_PAD,
	__O2FENCE_A_MAX,
};

#define O2FENCE_A_MAX (__O2FENCE_A_MAX - 1)

/* Where a request stands. */
enum o2fence_state {
	O2FENCE_STATE_IDLE,		/* none yet */
	O2FENCE_STATE_STARTED,		/* an attempt is about to be made */
	O2FENCE_STATE_WAITING,		/* a method was initiated, its answer is awaited */
	O2FENCE_STATE_SETTLED,		/* the answer is there, not yet acted upon */
	O2FENCE_STATE_NOTICE,		/* fenced; the notice is being written */
	O2FENCE_STATE_FENCED,		/* ended: proven off or cut off, and told */
	O2FENCE_STATE_FAILED,		/* ended: no method could prove it */
	O2FENCE_STATE_OBSOLETE,		/* ended: the node came back before it was fenced */
};

/* What happened to a request; also the field "event" of the tracepoint o2fence:o2fence_event. */
enum o2fence_event {
	O2FENCE_EVENT_UNSPEC,
	O2FENCE_EVENT_STARTED,		/* a request was made: REASON says by whom or why */
	O2FENCE_EVENT_INITIATED,	/* an attempt began */
	O2FENCE_EVENT_ATTEMPT_FAILED,	/* ... and failed: ERRNO, ERRMSG */
	O2FENCE_EVENT_FENCED,		/* ... or succeeded */
	O2FENCE_EVENT_NOTICE,		/* the clear blocks are on every region's disk */
	O2FENCE_EVENT_FAILED,		/* every method of the list failed */
	O2FENCE_EVENT_OBSOLETE,		/* the node came back */
	O2FENCE_EVENT_REFUSED,		/* a FENCED was refused: ERRNO, ERRMSG */
	O2FENCE_EVENT_SILENT,		/* a node has missed its heartbeats */
	O2FENCE_EVENT_NO_QUORUM,	/* ... but this side may not fence it */
	O2FENCE_EVENT_GATE_HELD,	/* o2dlm's recovery waits for the fence */
	O2FENCE_EVENT_GATE_RELEASED,	/* ... and goes on: the node is fenced */
	O2FENCE_EVENT_GATE_EXPIRED,	/* ... and goes on WITHOUT proof, as stock OCFS2 does */
	O2FENCE_EVENT_BRIDGE_BOUND,
	O2FENCE_EVENT_BRIDGE_LOST,
	__O2FENCE_EVENT_MAX,
};

#define O2FENCE_EVENT_MAX (__O2FENCE_EVENT_MAX - 1)

#endif /* _UAPI_O2FENCE_H */
