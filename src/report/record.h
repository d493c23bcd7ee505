/* What is said of one process: put into words where it was looked at, and put together by who asked, maybe another
 * process (crew/crew.h). */
#ifndef LLU_REPORT_RECORD_H
#define LLU_REPORT_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/vec.h"
#include "remap/update.h"

/* One process of an operation: looked at, or why it could not be. */
struct report_target {
	pid_t pid;
	struct target *target; /* NULL when it could not be opened */
	struct err *error;     /* then: why */
};

struct record {
	pid_t pid;
	uint64_t start_time; /* with the PID it names a process (process.h); 0: not known */
	enum outcome outcome;
	bool unknown;       /* it could not be looked at */
	bool concerns;      /* there is something to say about it in a report */
	bool pending;       /* there is something to be tried */
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
