/* Does a process sleep all the while that something takes? Then nobody in it can have changed its memory, but for
 * memory that it shares with other processes.
 *
 *     note     all its threads are asleep or stopped, and there are no others
 *     ...
 *     ask      each of them has been so since (process.h, thread_status.switches)
 *
 * Threads are made by threads that run. To ask takes a few files for each, so it is asked of processes with few. */
#ifndef LLU_FREEZE_SLEEPERS_H
#define LLU_FREEZE_SLEEPERS_H

#include "inject/process.h"

struct sleepers {
	struct sleeper *items;
	size_t n; /* 0: somebody is awake, or there are too many, or it cannot be told */
};

/* To be released with sleepers__free(). */
void sleepers__note(const struct process *p, struct sleepers *out);
void sleepers__free(struct sleepers *s);
/* Has nobody run since? */
bool sleepers__slept_on(const struct process *p, const struct sleepers *s);

#endif
