/* Outcomes as people and pipelines read them. This room decides nothing: it prints what it is given.
 *
 * Text follows AIX llvupdate to the letter, since scripts parse it; what AIX does not say (reasons, times,
 * build-ids) stands on lines of its own, outside the report block. JSON is one document, printed
 * at the end (docs/json.md).
 */
#ifndef LLU_REPORT_REPORT_H
#define LLU_REPORT_REPORT_H

#include <stdio.h>

#include "remap/update.h"

/* "COMMAND: subject: why" and, indented on its own line, what the user can do. */
void report__error(FILE *to, const char *command, const struct err *e);

/* One process of an operation: looked at, or why it could not be. */
struct report_target {
	pid_t pid;
	struct target *target; /* NULL when it could not be opened */
	struct err *error;     /* then: why */
};

/* Where the text of an operation goes; either may be NULL. */
struct report {
	FILE *out;
	FILE *log;
};

struct report_summary {
	size_t success, not_updated, failure;
	size_t to_do; /* preview: would be updated */
};

void report__say(const struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What would be done for one process; nothing for one that is up to date. */
void report__preview(const struct report *r, const struct report_target *t);
void report__begins_in(const struct report *r, unsigned seconds);
void report__validating(const struct report *r, const struct report_target *t);
void report__try(const struct report *r, unsigned n);
void report__phase(const struct report *r, const char *phase, bool begin, unsigned n, const char *what, size_t count);
void report__try_end(const struct report *r, unsigned n, unsigned of, size_t left);
/* Reasons, times and places of one process, each on its own lines. */
void report__details(const struct report *r, const struct report_target *t);
void report__final(const struct report *r, const struct report_target *list, size_t n);

struct report_summary report__summarise(const struct report_target *list, size_t n);
/* The state of one process: "SUCCESS", "NOT UPDATED", "FAILURE"; for a preview that has not acted,
 * "TO UPDATE"; "CURRENT" when there is nothing to do. */
const char *report__state(const struct report_target *t);
/* The word for an outcome: those of report__state(). */
const char *report__outcome(enum outcome o);
/* Is there something to say about it in a report? */
bool report__concerns(const struct report_target *t);

/* The document of a whole operation ("preview", "update"). */
void report__json(FILE *to, const char *operation, const struct report_target *list, size_t n, int exit_code);

/* The plan alone (llusplit --check). */
void report__plan(FILE *to, const struct plan *p);
void report__plan_json(FILE *to, const struct plan *p);
/* The document of llusplit --check for a file that cannot be planned at all. */
void report__refused_json(FILE *to, const struct err *e);

#endif
