/* The operation on one process: look, plan, and try to bring the new code in. Libraries that belong together (group.h)
 * are planned, frozen and committed as one: all of them, or none.
 *
 *     struct target *t;
 *     TRY(target__open(pid, &t));        discover and plan; nothing is touched
 *     target__prepare(t, opt);           images mapped, while the process runs
 *     target__commit(t, opt);            frozen, exchanged, thawed; or to be tried again
 *     target__close(t);                  undoes what was prepared and not committed
 */
#ifndef LLU_REMAP_UPDATE_H
#define LLU_REMAP_UPDATE_H

#include "base/turn.h"
#include "freeze/freeze.h"
#include "image/overrule.h"
#include "remap/group.h"
#include "remap/journal.h"
#include "remap/plan_cache.h"
#include "remap/surgery.h"

enum outcome {
	OUTCOME_CURRENT,     /* the library is up to date: nothing to do */
	OUTCOME_PENDING,     /* to be updated; not done yet, may be tried again */
	OUTCOME_SUCCESS,     /* runs the new code */
	OUTCOME_NOT_UPDATED, /* untouched: refused, or no updatable state was reached */
	OUTCOME_FAILURE,     /* something went wrong in surgery; see the reason */
};

/* What became of one library in one process. */
struct result {
	enum outcome outcome;
	struct loaded *library;    /* borrowed from the target */
	const struct group *group; /* what is updated with it, itself included; NULL when there is nothing to do */
	struct plan *plan;         /* NULL when none could be made */
	bool plan_cached;          /* it was made before */
	taddr_t *imports;          /* where the plan's new imports lead (imports.h), or NULL */
	char *reason;              /* for NOT UPDATED and FAILURE, and the last one while pending; else NULL */
	char *hint;                /* what the user can do, or NULL */
	const char *code;          /* stable name of the reason, or NULL */
	enum err_kind kind;        /* of the error behind it */
	unsigned tries;
	uint64_t frozen_ns; /* of the try that succeeded; the same for all of a group */
	uint64_t total_ns;  /* likewise */
	struct freeze_stats threads;
	struct surgery_places places;
	enum {
		OLD_CODE_NOT_LOOKED_AT, /* nothing was updated */
		OLD_CODE_GONE,          /* what ran before is not mapped any more */
		OLD_CODE_HELD,          /* it, or a part of it, is */
	} old_code;
	char *held_by;             /* OLD_CODE_HELD: why, one sentence */
	uint64_t retire_frozen_ns; /* how long threads stood still once more, for the old code to go */
	struct surgery *surgery;   /* while under way */
};

struct target {
	pid_t pid;
	uint64_t start_time;
	char *name;
	struct process *process;
	loaded_list libraries;
	struct result *results; /* one for each library */
	group_list groups;
	struct hand *hand;  /* while under way */
	struct lock *lock;  /* from the first preparation on */
	bool journal;       /* one of ours is there */
	bool left_behind;   /* something could not be taken back: the journal stays */
	annex_list annexes; /* that were made and not given back */
};

struct update_options {
	unsigned timeout_s;        /* for all threads to reach an updatable state, for each try */
	bool strict;               /* stop sleeping threads too */
	const struct turns *turns; /* one process stands still at a time; NULL: no other is under way */
};

/* How plans are made and judged; the same for all processes of an operation. */
struct plan_options {
	bool require_proof;                /* no less than proof of the objects' layout will do (gate.h) */
	bool split_only;                   /* leave plain libraries alone (image/unprepared.h) */
	const struct overrules *overrules; /* of the administrator */
	bool foresee; /* copies of this process (fork(2)) make the tries: what they want to know of files, and would
			 each find out anew, is found out before */
	struct plan_cache *plans;
	struct file_memo *files; /* of who works: one for all processes; may be NULL */
	struct census *census;   /* likewise */
	struct trace *trace;     /* of all that is done to the process from then on; may be NULL */
};

/* Looks at a process and plans the update of its outdated libraries. Errors: as process__open() and
 * discover__libraries(). A plan that refuses is no error: the result says NOT UPDATED. */
MUST_CHECK struct err *target__open(pid_t pid, const struct plan_options *opt, struct target **out);
void target__close(struct target *t);

/* Is anything to be updated (refused or not)? */
bool target__outdated(const struct target *t);
/* Is anything still to be tried? */
bool target__pending(const struct target *t);
/* The worst of its results: FAILURE, then NOT UPDATED, PENDING, SUCCESS, CURRENT. */
enum outcome target__outcome(const struct target *t);

/* Takes the target's lock, maps what is to be mapped. Failures are in the results. */
void target__prepare(struct target *t, const struct update_options *opt);
/* Freezes, exchanges, thaws, for each group that is prepared. What could not be frozen in time is undone
 * and stays pending, with the reason. */
void target__commit(struct target *t, const struct update_options *opt);
/* No more tries: pending becomes NOT UPDATED. */
void target__give_up(struct target *t);

#endif
