/* The processes that do the work.
 *
 *     the command                worker, one for each processor      keeper, one for each process that is updated
 *        | LOOK pid, channel          |
 *        |--------------------------->| looks, plans
 *        |<---------------- RECORD ---| (by the channel)
 *        | UPDATE pid, channel        |
 *        |--------------------------->| looks, plans, forks ------------> tries
 *        |<------------------ KEPT ---| (its PID; then it begins)           |
 *        |<----------------------------------------- PREPARED, RECORD ------|
 *        | TRY (the next one) ------------------------------------------->  | tries again
 *        |<----------------------------------------- PREPARED, RECORD ------|
 *        | GIVE UP ------------------------------------------------------->  | ends
 *
 * A worker keeps what it has read of libraries, so the second process that has the same costs less. A keeper has a
 * process for as long as there is something to try; so one that is stuck holds up nobody else, and should one die, it
 * is one process whose update has failed. All of them are children of the command's, also keepers (CLONE_PARENT), and
 * die with the thread that has made the workers: killed at any instant, they leave what the command would leave that
 * did everything itself. Whoever stops one of them, the command has it go on: a process could stand still meanwhile. */
#ifndef LLU_CREW_WORKER_H
#define LLU_CREW_WORKER_H

#include "crew/work.h"

/* Takes work from `control` until that is closed. Does not return. `turns` is what turns__create() made, or -1;
 * `parent` is who made this process. */
_Noreturn void worker__run(int control, int turns, pid_t parent, const struct work_options *opt,
			   struct plan_options *plan);

#endif
