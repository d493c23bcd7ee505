/* Processes that a test forks off itself: to have something mapped, or to be a tool that is followed. */
#ifndef LLU_TESTS_FORKED_H
#define LLU_TESTS_FORKED_H

#include <stdbool.h>
#include <sys/types.h>

/* A process that does `what`, says so, and waits until it is ended or the test ends. */
pid_t forked__start(void (*what)(const char *arg), const char *arg);
void forked__end(pid_t pid);

/* In such a process: maps the first page as code, or ends. */
void map_code(const char *path);
void map_code_of(int fd); /* closes it */

/* Lets a tracee (ptrace(2), PTRACE_O_TRACESYSGOOD), which stands still, go on to the `k`-th of its stops at a system
 * call that `counts`, and kills it there. False: it came to its end before, with exit code 0. */
bool forked__kill_at(pid_t tracee, unsigned k, bool (*counts)(pid_t tracee));

#endif
