/* Bringing the threads of a process to rest: asleep, or stopped. */
#ifndef LLU_FREEZE_THREADS_H
#define LLU_FREEZE_THREADS_H

#include "base/vec.h"
#include "freeze/freeze.h"
#include "inject/tracee.h"

enum rest {
	REST_NONE,    /* still to be brought to rest */
	REST_ASLEEP,  /* left asleep: nothing on its stack */
	REST_STOPPED, /* stopped by us */
	REST_GONE,    /* ended */
	REST_IGNORED, /* never runs user code, or is the hand */
};

struct thread {
	pid_t tid;
	enum rest rest;
	bool seized;
	bool let_be;             /* runs, traced: it must not be interrupted, but stops by itself when its call ends */
	bool outside;            /* judged since it was stopped, and not to be judged again */
	char *in_the_way;        /* why it was, or NULL; for the trace */
	uint64_t stopped;        /* when; likewise */
	struct thread_view view; /* when it was last looked at */
	struct thread_status status; /* REST_ASLEEP: then */
	struct tracee tracee;        /* if seized */
};

struct threads {
	const struct process *p;
	const struct freeze_options *opt;
	struct mappings maps; /* read before the first stop */
	VEC(struct thread) v;
	uint64_t begun, ended; /* when, for the trace */
	bool at_rest;          /* the freeze has succeeded; likewise */
	uint64_t first_stop;   /* clock_ns() before the first PTRACE_INTERRUPT; 0: none */
};

/* On success every thread of the process is at rest. On error some may be stopped: threads__let_go().
 * ERR_RETRY, ERR_BUSY, ERR_GONE, ERR_PERMISSION as freeze__begin(). */
MUST_CHECK struct err *threads__bring_to_rest(struct threads *t);
/* The same again, after threads were let run for a while: for those that are new. */
MUST_CHECK struct err *threads__complete(struct threads *t);
/* For the trace: the thread is in the way because of `e`. */
void thread__in_the_way(struct thread *th, const struct err *e);
/* Lets every stopped thread go on; the time from the first stop to the last detach in nanoseconds. */
uint64_t threads__let_go(struct threads *t);
/* Then: traces what became of each thread, and releases everything. */
void threads__free(struct threads *t);
/* Have all threads that were left asleep slept on till now? */
MUST_CHECK struct err *threads__slept_on(const struct threads *t, bool *out);

#endif
