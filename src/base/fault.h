/* Fault points, for the tests of law 1 (docs/design.md). In the product there are none: LLU_FAULTS is defined for the
 * commands that tests/faults, tests/recover and bench/fault-table run, and for nothing else.
 *
 * Every primitive that changes a target or leaves a file passes through points, before, after, and where it is long in
 * the middle. What happens there says the environment. WHEN is a number, counted from 1 in the order of this run, or
 * a place as LLU_FAULT_LIST writes it (its first occurrence):
 *
 *     LLU_FAULT=WHEN                   the tool kills itself (SIGKILL)
 *     LLU_FAULT_STOP=WHEN              it stops itself (SIGSTOP), so that a test can change the world meanwhile
 *     LLU_FAULT_KILL_TARGET=PID:WHEN   it kills that process, and goes on
 *     LLU_FAULT_CALL=K:ERRNO           the K-th system call of a hand fails with that errno, and is not made
 *     LLU_FAULT_LIST=FILE              one line for each point (its number, a tab, its place) and each call
 *                                      ("call K") that came
 *
 * A place is what is done and by whom: "SETREGSET before: tracee__set_regs<hand__call<map<...".
 */
#ifndef LLU_BASE_FAULT_H
#define LLU_BASE_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef LLU_FAULTS

void fault__point(const char *what);
/* The same for a request of ptrace(2); those that change nothing are no points. errno is kept. */
void fault__request(long request, bool after);
/* How much of `len` bytes to write next, when `done` are written. */
size_t fault__piece(size_t len, size_t done);
/* Is this call of a hand to fail? Then *result is what the kernel would have returned. */
bool fault__call(int64_t nr, int64_t *result);

#else

static inline void fault__point(const char *what)
{
	(void)what;
}

static inline void fault__request(long request, bool after)
{
	(void)request;
	(void)after;
}

static inline size_t fault__piece(size_t len, size_t done)
{
	return len - done;
}

static inline bool fault__call(int64_t nr, int64_t *result)
{
	(void)nr;
	(void)result;
	return false;
}

#endif
#endif
