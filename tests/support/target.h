/* Programs that a test starts and talks to, line by line (fixtures/support/driver.h says how).
 *
 * Every wait has a deadline and is for a condition: a line, or an end. What goes wrong fails the test that
 * asked. Whatever a test started is killed by support__teardown(), and dies with the test anyway.
 */
#ifndef LLU_TESTS_TARGET_H
#define LLU_TESTS_TARGET_H

#include <stdbool.h>
#include <sys/types.h>

struct target;

/* Starts argv[0] with the environment of the test and `env` ("NAME=VALUE", NULL-terminated, may be NULL).
 * Standard error goes where the test's goes. */
struct target *target__start(const char *const argv[], const char *const env[]);
pid_t target__pid(const struct target *t);

void target__say(struct target *t, const char *line);
/* The next line without its newline; belongs to the target, and lives until the next is heard. */
const char *target__hear(struct target *t);
/* Hears a line and fails the test if it is not `line`. */
void target__expect(struct target *t, const char *line);
/* Says `line` and expects `answer`. */
void target__ask(struct target *t, const char *line, const char *answer);
/* Says `round`, expects `ok N version=V`, returns V. */
int target__round(struct target *t);
/* `n` rounds, which must all be of `version`. */
void target__rounds(struct target *t, unsigned n, int version);

/* Closes the target's standard input, returns all that it still says, expects it to exit with 0. The
 * text is to be freed. */
char *target__finish(struct target *t);
/* Sends SIGKILL and waits for the end. */
void target__kill(struct target *t);
/* Is it still there, neither exited nor killed? */
bool target__alive(struct target *t);

/* Kills every target that the test started; support__teardown() calls it. */
void targets__kill_all(void);

#endif
