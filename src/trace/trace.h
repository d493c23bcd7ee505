/* The trace: what an operation did, step by step, as a timeline that Perfetto (ui.perfetto.dev) and chrome://tracing
 * open.
 *
 *     pid      the process that was operated on
 *     tid      its thread; steps of the tool itself are on a track of that process that has the tool's own PID
 *     ts, dur  CLOCK_MONOTONIC, microseconds
 *
 * The file is in the JSON Array Format of the "Trace Event Format" document (Chromium): events that are complete (ph
 * X), instants (i) and names (M), one on each line. That format does without the `]` at the end, so what a tool that
 * was killed has left can be read. Each line is one write(2) to a file that is opened with O_APPEND, so processes that
 * share the handle (fork(2)) write to one file.
 *
 * It is always on, and so it is bounded, it costs threads that stand still nothing but the copy of an event
 * (trace__hold()), and it says nothing that could be secret: names, numbers, results. Of a path there is its last part
 * alone. Nothing here touches a target; /proc/PID/comm and its like are read.
 */
#ifndef LLU_TRACE_TRACE_H
#define LLU_TRACE_TRACE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct trace;

enum {
	TRACE_MAX = 8 << 20, /* bytes of a file */
	TRACE_ARGS = 4,
	TRACE_TEXT_MAX = 200, /* of all texts of an event together; what is longer is cut */
};

/* Begins a file at `path`, at most `max` bytes long; a file that is there is kept as PATH.old, in place of the one that
 * was. It is made as trusted__create() makes files, and readable to its owner alone; the folders must be there. NULL
 * and errno where it cannot be. */
struct trace *trace__open(const char *path, uint64_t max);
void trace__close(struct trace *t);
/* Its file, for who closes all others; -1: there is none. */
int trace__file(const struct trace *t);

/* In all that follows `t` may be NULL: nothing is traced. */

struct trace_arg {
	const char *key;  /* NULL: none */
	const char *text; /* NULL: the number */
	int64_t number;
};

struct trace_event {
	pid_t pid, tid;      /* tid 0: the tool's own track */
	const char *name;    /* a constant */
	uint64_t start, end; /* trace__now(); end 0: an instant */
	struct trace_arg args[TRACE_ARGS];
};

uint64_t trace__now(void);
/* Texts are copied. */
void trace__add(struct trace *t, const struct trace_event *e);
/* A step of the tool from `since` to now, and what came of it: an error or NULL. */
void trace__step(struct trace *t, pid_t pid, const char *name, uint64_t since, const struct err *e,
		 struct trace_arg more);

/* From here on events are kept, in memory that is there already: for times in which a thread stands still. Those beyond
 * some thousand are counted, no more. The matching trace__let_go() writes them. May be nested. */
void trace__hold(struct trace *t);
void trace__let_go(struct trace *t);

#endif
