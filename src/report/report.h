/* Outcomes as people and pipelines read them. This room decides nothing: it prints what it is given.
 *
 * Text follows AIX llvupdate to the letter, since scripts parse it; what AIX does not say (reasons, times,
 * build-ids) stands on lines of its own, outside the report block. Whatever a process or a file is called, it forges
 * no line, no PID and no state: a name is one word, and a sentence does not say what has a meaning. JSON is one
 * document, printed at the end (docs/json.md).
 */
#ifndef LLU_REPORT_REPORT_H
#define LLU_REPORT_REPORT_H

#include <stdio.h>

#include "report/record.h"

/* "COMMAND: subject: why" and, indented on its own line, what the user can do. */
void report__error(FILE *to, const char *command, const struct err *e);

/* Where the text of an operation goes; either may be NULL. */
struct report {
	FILE *out;
	FILE *log;
	bool dots; /* the last line of `out` is not at its end */
};

struct report_summary {
	size_t success, not_updated, failure;
	size_t to_do; /* preview: would be updated */
};

void report__say(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What would be done for one process; nothing for one that is up to date. */
void report__preview(struct report *r, const struct report_target *t);
/* How many processes were left out of an operation on all, by reason: a line, nothing where there are none. */
void report__left_out(struct report *r, const size_t counts[LEFT_OUT_KINDS]);
void report__begins_in(struct report *r, unsigned seconds);
void report__validating(struct report *r, const struct report_target *t);
void report__try(struct report *r, unsigned n);
void report__phase(struct report *r, const char *phase, bool begin, unsigned n, const char *what, size_t count);
/* Of so many processes so many are done: for somebody who waits, and not for the log. A line on the terminal; where
 * there is none (NULL), a dot, if wanted, on what the operation speaks to. */
void report__waits(struct report *r, FILE *terminal, bool dots, size_t over, size_t of);
void report__try_end(struct report *r, unsigned n, unsigned of, size_t left);
/* Reasons, times and places of one process, each on its own lines. */
void report__details(struct report *r, const struct report_target *t);
void report__final(struct report *r, const struct record *list, size_t n);

struct report_summary report__summarise(const struct record *list, size_t n);
/* The name of a process in the text: printable, and one word. The caller frees it. */
char *report__name(const struct report_target *t);
/* A sentence (it is printable) that nobody who knows the report takes for a part of it: neither its frame nor a PID
 * nor a library. The caller frees it. */
char *report__sentence(const char *s);
/* What became of it so far. */
enum outcome report__outcome_now(const struct report_target *t);
/* The word for an outcome: "SUCCESS", "NOT UPDATED", "FAILURE"; for a preview "TO UPDATE"; "CURRENT" when there is
 * nothing to do. */
const char *report__outcome(enum outcome o);
/* The outcome that JSON has this word for; false: none. */
bool report__outcome_of(const char *word, enum outcome *out);

/* The object of one process; the caller frees it. */
char *report__process_json(const struct report_target *t);
/* Of one that nothing is known of but what became of it. */
char *report__lost_json(pid_t pid, const char *name, enum outcome outcome, const char *text, const char *hint);
/* Which processes need a restart, and for which files: a section of text, nothing where there are none. */
void report__restart(struct report *r, const struct record *list, size_t n);
/* The same for JSON: units and their processes, as docs/json.md says. */
struct json_object;
struct json_object *report__needs_restart(const struct record *list, size_t n);
/* A preview for Prometheus (metrics.h); `seconds` is how long it took, `now` when it was over. */
void report__metrics(FILE *to, const struct record *list, size_t n, double seconds, double now);

/* The document of a whole operation ("preview", "update"). `passed_over`: of how many processes there is nothing to
 * say. */
void report__json(FILE *to, const char *operation, const struct record *list, size_t n, size_t passed_over,
		  int exit_code);

/* The plan alone (llusplit --check). */
void report__plan(FILE *to, const struct plan *p);
void report__plan_json(FILE *to, const struct plan *p);
/* The document of llusplit --check for a file that cannot be planned at all. */
void report__refused_json(FILE *to, const struct err *e);

#endif
