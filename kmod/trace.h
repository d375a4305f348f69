/* SPDX-License-Identifier: GPL-2.0-only */
/* trace.h - one tracepoint for every step and outcome of a request; filter on its field event */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM o2fence

#if !defined(O2FENCE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define O2FENCE_TRACE_H

#include <linux/tracepoint.h>
#include "o2fence.h"

TRACE_EVENT(o2fence_event,
	TP_PROTO(const struct o2fence_record *re, u32 event),
	TP_ARGS(re, event),
	TP_STRUCT__entry(
		__field(u32, event) __field(u32, node) __field(u32, attempt) __field(u32, err)
		__field(u64, incarnation) __field(u64, request)
	),
	TP_fast_assign(
		__entry->event = event;
		__entry->node = re->re_ob.ob_num;
		__entry->attempt = re->re_attempt;
		__entry->err = re->re_err;
		__entry->incarnation = re->re_incarnation;
		__entry->request = re->re_id;
	),
	TP_printk("event=%u node=%u incarnation=%llx request=%llu attempt=%u err=%u",
		  __entry->event, __entry->node, __entry->incarnation, __entry->request,
		  __entry->attempt, __entry->err)
);

#endif /* O2FENCE_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
