/* The steps of an operation on one process, as far as the process that is at work on it has to do with them: each with
 * a bound on how long it may take. */
#ifndef LLU_CREW_WORK_H
#define LLU_CREW_WORK_H

#include "report/record.h"

/* What ends a process of ours that waits too long: its exit codes. */
enum { WORK_LOOK_TOO_LONG = 3, WORK_TRY_TOO_LONG = 4 };

/* Looking at one process and planning for it takes no longer. */
enum { WORK_LOOK_MAX_S = 600 };

struct work_options {
	const struct plan_options *plan;
	struct update_options update;
	bool owners;               /* the look asks which package a library is of: that costs reading a database */
	struct packages *packages; /* then: of who works, one for all looks */
	struct scan *scan; /* the look asks for restarts too (restart.h); NULL: not. Of who works: one for all looks */
	bool alone;        /* this process is all there is: what ends it ends the operation */
};

/* Looks at a process and plans. `all`: it was not asked for by its PID; then true means that nothing is to be said of
 * it, as it ended, is never operated on (a kernel thread and the like) and needs no restart, belongs to somebody else,
 * or is the init of a system that boots or shuts down (machine/init.h); out->left_out says which. */
bool work__look(const struct work_options *opt, pid_t pid, bool all, struct report_target *out);
/* One try of what is pending. `prepared`, if any, is called in between, where something is
 * pending still. */
void work__try(const struct work_options *opt, struct report_target *t, void (*prepared)(void *context), void *context);
/* In seconds: a try takes no longer. */
unsigned work__try_max_s(const struct work_options *opt, const struct target *t);
/* No more tries. */
void work__give_up(struct report_target *t);
/* Undoes what was prepared and not committed. */
void work__end(struct report_target *t);

#endif
