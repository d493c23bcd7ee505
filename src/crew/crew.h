/* An operation on many processes, side by side: each is looked at, tried, and tried again. One that is stuck, or ends
 * the process of ours that is at work on it, delays nobody else.
 *
 *     crew__new()       with one process to look at, the caller does the work itself (unless it is a guest); else
 *                       workers do (worker.h), unless none can be made
 *     crew__look()      each job gets a record
 *     crew__try()       one try of all that are pending; so often as is wished
 *     crew__give_up()   what is pending still is NOT UPDATED
 *     crew__free()
 *
 * All calls are one thread's, and the processes of an operation die with it. They are children of this process, known
 * by their PIDs: no other child is waited for (child.h).
 */
#ifndef LLU_CREW_CREW_H
#define LLU_CREW_CREW_H

#include "crew/work.h"

struct job {
	pid_t pid;
	struct record record;   /* as of the last step */
	bool nothing;           /* nothing is to be said of it; then there is no record */
	enum left_out left_out; /* why, then */
	bool tried;
	int channel; /* of who has it; -1: nobody */
	enum {
		JOB_WAITS,     /* for its turn */
		JOB_AT_WORKER, /* a worker looks at it */
		JOB_AT_KEEPER, /* it is tried */
		JOB_PREPARED,  /* the first half of that is over */
		JOB_OVER,      /* with this step */
	} state;
	size_t worker;               /* JOB_AT_WORKER: which */
	pid_t keeper;                /* 0: there is none, or it was waited for */
	unsigned seconds;            /* so long the keeper may take for an answer */
	uint64_t since, until;       /* when it got there, and when it must have said something, as of clock.h */
	struct report_target target; /* where the caller does the work itself */
};

typedef VEC(struct job) job_list;

/* Who wants to know how it goes; each may be NULL. */
struct crew_watch {
	void (*prepared)(void *context, size_t pending);      /* all of the first half is over */
	void (*waits)(void *context, size_t over, size_t of); /* about once a second, while there is more to come */
	bool (*stop)(void *context); /* asked often during a try: true when no more processes are to be tried */
	void *context;
};

struct crew;

struct crew_options {
	bool all;      /* the jobs are all processes there are, and nobody asked for one by its PID */
	bool restarts; /* the look asks for restarts too (restart.h) */
	bool guest;    /* the caller's process is a program that is not ours: workers do all the work, and have nothing
			  of it (guest.h) */
};

/* Borrows `jobs`, whose PIDs are set and nothing else, `work` (without `scan` and `packages`), and `plan`. */
struct crew *crew__new(job_list *jobs, const struct crew_options *opt, const struct work_options *work,
		       struct plan_options *plan);
/* Workers end; the records stay, and are the caller's to release, by job_list__free(). */
void crew__free(struct crew *c);
void job_list__free(job_list *l);
/* Of all processes, which the jobs are with this one: how many are left out, by reason. */
void job_list__left_out(const job_list *l, size_t counts[LEFT_OUT_KINDS]);

void crew__look(struct crew *c, const struct crew_watch *watch);
void crew__try(struct crew *c, const struct crew_watch *watch);
/* What is pending, and was never tried as the caller wished no more, says so. */
void crew__give_up(struct crew *c);

#endif
