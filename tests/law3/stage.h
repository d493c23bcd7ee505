/* A stage for law 3: two builds of libstate, of which one is in place, and processes that sleep on it in the calls of
 * fixtures/drivers/calls (see calls_driver.c for what is said). Everything goes through the llvupdate command. */
#ifndef LLU_TESTS_LAW3_STAGE_H
#define LLU_TESTS_LAW3_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "support/support.h"
#include "support/target.h"

struct stage {
	const char *dir;
	const char *split[2]; /* versions 1 and 2 */
	int version;          /* in place */
};

struct stage stage__new(void);
/* Puts the other version in place. */
void stage__flip(struct stage *s);
/* Starts argv[0] on the stage's libstate. */
struct target *stage__start(const struct stage *s, const char *const argv[]);
/* llvupdate -p PIDS with `extra` (NULL-terminated). */
struct result stage__llvupdate(const char *pids, const char *const extra[]);
/* The same to the other version, which must succeed. */
void stage__update(struct stage *s, const struct target *t, bool strict);

/* Context switches of a thread so far. */
uint64_t switches(pid_t pid, pid_t tid);

/* One row of the table (calls_driver --list). */
enum stop { MADE_AGAIN, CONTINUED, NEVER };
enum timeout { NO_TIMEOUT, KEPT, ANEW, UNTOUCHED };
struct row {
	char name[40];
	enum stop stop;
	enum timeout timeout;
	bool timed;   /* ends by itself */
	bool handled; /* ends with a signal */
};
enum { ROWS_MAX = 160, CALL_TIME_MS = 1500 };
struct rows {
	struct row row[ROWS_MAX];
	size_t n;
};
/* The rows for which `fit` is true. */
struct rows rows__that(bool (*fit)(const struct row *r));

/* Threads asleep in the calls of rows, of one process. */
struct sleepers {
	struct target *t;
	struct rows rows; /* that can run here; the others were reported as skipped */
	pid_t tid[ROWS_MAX];
};
/* Starts calls_driver and waits until all are asleep. False: no row can run here. */
bool sleepers__start(const struct stage *s, const char *how, const char *signals, const struct rows *rows,
		     struct sleepers *out);
/* What came of a row. */
struct outcome {
	int64_t start, end; /* CLOCK_MONOTONIC, ms */
	int alarms;
	char text[220]; /* "ok", or what is wrong */
};
/* Hears the outcomes of all rows, into `out` in their order, and ends the process. */
void sleepers__hear(struct sleepers *s, struct outcome *out);

#endif
