/* What is said of one process: put into words where it was looked at, and put together by who asked, maybe another
 * process (crew/crew.h). */
#ifndef LLU_REPORT_RECORD_H
#define LLU_REPORT_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/vec.h"
#include "machine/outdated.h"
#include "machine/whereabouts.h"
#include "remap/update.h"

/* A file with code that is outdated in a process and stays so until a restart. The texts are its own. */
struct restart_reason {
	char *path;
	enum outdated_kind kind;
	enum outdated_how how;
	char *code, *text, *hint; /* why no update helps; `hint` may be NULL */
};

struct report_restart {
	enum {
		RESTART_NOT_ASKED,
		RESTART_UNKNOWN, /* the process may not be looked at, or is gone */
		RESTART_KNOWN,
	} state;
	VEC(struct restart_reason) reasons;
};

/* The package that has installed the file which stands at a library's place now, and the version that it had when the
 * process loaded the library; NULL: not known. */
struct report_owner {
	char *package, *version, *old_version;
};

/* Why a process is left out of an operation on all processes. */
enum left_out {
	LEFT_OUT_SELF,   /* it is llvupdate's own */
	LEFT_OUT_KERNEL, /* a kernel thread */
	LEFT_OUT_NEVER,  /* it is never updated: 32-bit, static, of another C library */
	LEFT_OUT_OTHERS, /* it may not be read: somebody else's */
	LEFT_OUT_INIT,   /* of a system that boots or shuts down */
	LEFT_OUT_ENDED,  /* meanwhile */
	LEFT_OUT_KINDS,
};

/* One process of an operation: looked at, or why it could not be. */
struct report_target {
	pid_t pid;
	struct target *target;  /* NULL when it could not be opened */
	struct err *error;      /* then: why */
	char *name;             /* then: as in /proc/PID/comm, or NULL */
	enum left_out left_out; /* then: why nothing is said of it, if so */
	bool passed_over; /* then: nobody asked for it, it is never operated on; it is here for its restart alone */
	struct whereabouts where;
	struct report_restart restart;
	struct report_owner *owners; /* one for each library of the target, or NULL */
	size_t n_owners;
};
/* Releases all that is in it, and makes it all zero. */
void report_target__free(struct report_target *t);

struct record {
	pid_t pid;
	uint64_t start_time; /* with the PID it names a process (process.h); 0: not known */
	enum outcome outcome;
	bool unknown;       /* it could not be looked at */
	bool concerns;      /* there is something to say about it in a report */
	bool pending;       /* there is something to be tried */
	bool passed_over;   /* as in the target; then all but the restart is as of a process without libraries */
	bool restart;       /* it needs a restart; why says the JSON */
	bool not_permitted; /* a reason is that the caller may not, or that somebody else is at it */
	char *name;    /* of the process, as report__name() has it; "-" when it is not known. All texts are the record's
			  own */
	char *preview; /* what would be done */
	char *validating; /* the list that an update begins with */
	char *details;    /* what became of it */
	char *json;       /* its object (docs/json.md) */
};

/* The record of a process as it is now. The caller releases it with record__free(). */
void record__make(const struct report_target *t, struct record *out);
/* The record of a process that ended a worker of ours, or that none could be had for; `concerns`, and an outcome of
 * OUTCOME_NOT_UPDATED or OUTCOME_FAILURE. `text` is a sentence that names the process. */
void record__make_lost(pid_t pid, const char *name, enum outcome outcome, const char *text, const char *hint,
		       struct record *out);
void record__free(struct record *r);

typedef VEC(uint8_t) record_bytes;

/* For sending. The caller releases the bytes with vec__free(). */
void record__encode(const struct record *r, record_bytes *out);
/* False: the bytes are no record. */
bool record__decode(const uint8_t *bytes, size_t len, struct record *out);

#endif
