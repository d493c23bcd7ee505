/* What tests need besides targets: commands, temporary directories, files, mappings. */
#ifndef LLU_TESTS_SUPPORT_H
#define LLU_TESTS_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The teardown of every test: kills the targets, removes the temporary directories. */
void support__teardown(void);

int64_t support__now_ms(void); /* CLOCK_MONOTONIC */

/* A command that has run to its end. */
struct result {
	int exit_code; /* -N: killed by signal N */
	char *out, *err;
};
/* Runs argv[0] (looked up in PATH) with nothing on standard input; fails the test after `seconds`. */
struct result command__run(const char *const argv[], int seconds);
/* Starts one without waiting for its end. Its output is discarded. */
pid_t command__start(const char *const argv[]);
/* Waits for it; -N as above. */
int command__wait(pid_t pid, int seconds);
/* Has it ended by now? Then *exit_code says how, and it must not be waited for again. */
bool command__ended(pid_t pid, int *exit_code);
void result__free(struct result *r);

/* To everything that this process has made, its children's children first. */
void descendants__kill(pid_t pid, int signal);
/* How many of them have not ended. */
unsigned descendants__count(pid_t pid);

/* A new directory under /tmp that the teardown removes with everything in it. Lives until then. */
const char *temp_dir(void);

/* "DIR/NAME", as fmt says; lives until the teardown. */
const char *path_of(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void file__copy(const char *from, const char *to);
void file__write(const char *path, const void *data, size_t len);
/* Changes bytes of a file in place. */
void file__patch(const char *path, size_t offset, const void *data, size_t len);
size_t file__size(const char *path);
void file__truncate(const char *path, size_t len);

/* One line of /proc/PID/maps. */
struct map {
	uint64_t start, end;
	char prot[5];
	char path[512];
};
/* All mappings of `pid` whose path contains `part`; returns how many, at most `max` are stored. */
size_t maps__find(pid_t pid, const char *part, struct map *out, size_t max);

/* The extended regular expression `pattern` (newlines are ordinary characters) is in `text`. */
bool text__has(const char *text, const char *pattern);

#endif
