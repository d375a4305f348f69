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
 * All commands need CAP_NET_ADMIN in the initial user namespace, the dumps too.
 * O2FENCE_CMD_MEMALLOC needs CAP_SYS_RESOURCE as well.
 *
 * JOIN      { CLUSTER, THIS_NODE, MISSED, PERIOD_MS, GATE_MS, FENCE_DELAY_MS,
 *             { NODE, { METHOD, TIMEOUT_MS, [PARAMS] } ... } ... }
 *           Enters a cluster: one message, all or nothing. In order: NODE opens a node, METHOD its
 *           next method, to which TIMEOUT_MS and PARAMS belong. Every method must be registered and
 *           the last one of every node must run in the kernel. Pins the modules of all methods
 *           until LEAVE.
 * LEAVE     { CLUSTER }
 *           -EBUSY while a fence of this cluster is under way or a region of it is watched.
 * FENCE     { CLUSTER, NODE, REASON, [INCARNATION] }
 *           Starts a request. -EALREADY when one is under way for this node.
 * REGION_ADD { CLUSTER, REGION, FD, START_BLOCK, BLOCK_BYTES, BLOCKS }
 *           Watches a heartbeat region through an open descriptor of its device. Refused unless
 *           this node's own slot is found there with a right checksum.
 * REGION_DEL { REGION }
 *
 * MEMALLOC  {}
 *           Puts the calling thread into PF_MEMALLOC mode, for good; children and exec inherit it.
 * BIND      { METHOD }
 *           The calling socket carries this user-space method. Refused unless every thread of the
 *           process is in PF_MEMALLOC mode and its memory is locked, now and in future.
 *           Bindings end with the socket; what was asked of it moves on to the next method at once.
 * INITIATE  kernel to the bound socket:
 *           { all that REQUEST_GET shows, TIMEOUT_MS, PARAMS }
 * CANCEL    kernel to the bound socket: the same; the attempt's answer is no longer wanted.
 * FENCED    { CLUSTER, NODE, INCARNATION, REQUEST, ATTEMPT, ERRNO, ERRMSG }
 *           The answer. ERRNO 0: the node is proven off, or cut off from the disks. -ESTALE when it
 *           answers anything but the attempt under way, -EPERM from a socket that was not asked.
 *           While a method asks for an administrator ("manual"), any socket may answer; ERRMSG then
 *           says who vouches and why.
 *
 * CLUSTER_GET, NODE_GET, METHOD_GET, REGION_GET, REQUEST_GET   dumps of all there is.
 *           NODE_GET gives each node with its last request, ended or under way, then its methods
 *           as in JOIN; REQUEST_GET the last 64 requests that ended, newest first. PARAMS are not
 *           shown.
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
#define O2FENCE_NAME_MAX	64	/* bytes of a cluster, region or method name, no NUL */
#define O2FENCE_TEXT_MAX	255	/* bytes of a reason or an error text without its NUL */
#define O2FENCE_PARAMS_MAX	1024	/* bytes of one method's parameters without their NUL */
#define O2FENCE_STEPS_MAX	8	/* methods of one node */
#define O2FENCE_HISTORY		64	/* ended requests that are remembered */

enum o2fence_cmd {
	O2FENCE_CMD_UNSPEC,
	O2FENCE_CMD_JOIN,
	O2FENCE_CMD_LEAVE,
	O2FENCE_CMD_FENCE,
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
	__O2FENCE_CMD_MAX,
};

enum o2fence_attr {
	O2FENCE_A_UNSPEC,
	O2FENCE_A_CLUSTER,		/* string */
	O2FENCE_A_THIS_NODE,		/* u32, this machine's node number */
	O2FENCE_A_MISSED,		/* u32, heartbeats; 2..1000 */
	O2FENCE_A_PERIOD_MS,		/* u32, ms; 100..60000 */
	O2FENCE_A_GATE_MS,		/* u32, ms; 0..60000, 0 is no gate */
	O2FENCE_A_FENCE_DELAY_MS,	/* u32, ms; 0..600000 */
	O2FENCE_A_FENCING,		/* u32, requests under way */
	O2FENCE_A_NODE,			/* u32, 0..254; repeated in JOIN */
	O2FENCE_A_METHOD,		/* string; repeated in JOIN and NODE_GET */
	O2FENCE_A_TIMEOUT_MS,		/* u32, ms; 1..86400000 */
	O2FENCE_A_PARAMS,		/* string, opaque to the core */
	O2FENCE_A_MODULE,		/* string, the module that owns a method */
	O2FENCE_A_PORTID,		/* u32, a bound method: its socket; 0: the bridge is gone */
	O2FENCE_A_REGION,		/* string, the region's UUID as in configfs */
	O2FENCE_A_FD,			/* u32 */
	O2FENCE_A_START_BLOCK,		/* u64, in blocks */
	O2FENCE_A_BLOCK_BYTES,		/* u32, bytes; 512..4096 */
	O2FENCE_A_BLOCKS,		/* u32, 1..255 */
	O2FENCE_A_LIVE,			/* binary, bit n of byte n / 8: node n is live in it */
	O2FENCE_A_SILENT,		/* binary, the same: node n has missed its heartbeats */
	O2FENCE_A_INCARNATION,		/* u64 */
	O2FENCE_A_REQUEST,		/* u64 */
	O2FENCE_A_ATTEMPT,		/* u32 */
	O2FENCE_A_ERRNO,		/* u32, 0 or a positive errno */
	O2FENCE_A_ERRMSG,		/* string */
	O2FENCE_A_REASON,		/* string */
	O2FENCE_A_STATE,		/* u32, enum o2fence_event: the last step of the request */
	O2FENCE_A_EVENT,		/* u32, enum o2fence_event */
	O2FENCE_A_AT,			/* nest of u64, ns of CLOCK_REALTIME, by o2fence_event */
	O2FENCE_A_PAD,
	__O2FENCE_A_MAX,
};

/* The steps of a request, and what else is told of nodes; field "event" of the tracepoint. */
enum o2fence_event {
	O2FENCE_EVENT_UNSPEC,
	O2FENCE_EVENT_STARTED,		/* a request was made: REASON says by whom or why */
	O2FENCE_EVENT_INITIATED,	/* an attempt began; its answer is awaited */
	O2FENCE_EVENT_ATTEMPT_FAILED,	/* ... and failed: ERRNO, ERRMSG */
	O2FENCE_EVENT_FENCED,		/* ... or succeeded; the notice is being written */
	O2FENCE_EVENT_NOTICE,		/* the end: the clear blocks are on every region's disk */
	O2FENCE_EVENT_FAILED,		/* the end: no method of the list could prove it */
	O2FENCE_EVENT_OBSOLETE,		/* the end: it needs no fencing any more, ERRMSG says why */
	O2FENCE_EVENT_REFUSED,		/* a FENCED was refused: stale or foreign */
	O2FENCE_EVENT_SILENT,		/* a node has missed its heartbeats */
	O2FENCE_EVENT_NOT_OURS,		/* ... and another has the duty, or this side no quorum */
	O2FENCE_EVENT_GATE_HELD,	/* o2dlm's recovery waits for the fence */
	O2FENCE_EVENT_GATE_RELEASED,	/* ... and goes on: the node is fenced */
	O2FENCE_EVENT_GATE_EXPIRED,	/* ... and goes on WITHOUT proof, as stock OCFS2 does */
	__O2FENCE_EVENT_MAX,
};

#endif /* _UAPI_O2FENCE_H */
