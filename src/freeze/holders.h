/* Who still leads into given code, outside of the stacks of threads?
 *
 * Before code is unmapped, nobody may ever return there or jump there. What threads do, the freeze knows. What is
 * left is memory from which a thread could be sent there: stacks that no thread is on (coroutines), contexts
 * (ucontext_t, jmp_buf), tables of labels. They are all words that hold an address in that code: plain,
 * or as the C library mangles what setjmp(3) saves (glibc sysdeps/unix/sysv/linux/x86_64/pointer_guard.h: xored
 * with the pointer guard, then rotated left by 17).
 *
 * The process runs while its memory is looked through; gigabytes are not read while it is frozen. A word that stays
 * where it is cannot be missed. To miss one that is moved about meanwhile (a runtime that copies stacks), it would have
 * to be moved twice at the right moments, as memory is looked through once upwards and once downwards. Where the
 * process slept all the while (sleepers.h), only what it shares with others is looked through again.
 *
 * Not looked at: what is not there (never touched); files that are mapped shared; devices. What cannot be looked at
 * (userfaultfd(2)) or takes too long is an error: law 5, docs/design.md.
 */
#ifndef LLU_FREEZE_HOLDERS_H
#define LLU_FREEZE_HOLDERS_H

#include "base/vec.h"
#include "inject/process.h"

struct holders_query {
	const struct trange *ranges; /* which code, or constants */
	size_t n_ranges;
	const struct trange *skip; /* memory whose contents mean nothing */
	size_t n_skip;
	uint64_t pointer_guard; /* 0: not known, or nothing is mangled */
	uint64_t deadline;      /* inject/clock.h */
	bool still;             /* the process stands still: one look is enough */
	uint64_t bytes_max;     /* not more than that is read in one look; 0: no bound */
};

struct holder {
	taddr_t at;   /* the word */
	taddr_t to;   /* where it leads; the end of a range too, as a call may be the last instruction of it */
	size_t range; /* index into ranges */
	bool mangled;
};

typedef VEC(struct holder) holder_list;

/* Adds what is found to *out (the caller frees it with vec__free()), except for words on the stacks of threads, which
 * the freeze judges, and on stacks that ended threads have left in the C library's cache. Errors: ERR_REFUSED (cannot
 * be looked at), ERR_RETRY (not in time), ERR_GONE, ERR_PERMISSION, ERR_UNREADABLE. */
MUST_CHECK struct err *holders__find(const struct process *p, const struct holders_query *q, holder_list *out);

/* What setjmp(3) makes of an address, and back. */
static inline uint64_t pointer__mangle(uint64_t address, uint64_t guard)
{
	return (address ^ guard) << 17 | (address ^ guard) >> 47;
}

static inline uint64_t pointer__unmangle(uint64_t word, uint64_t guard)
{
	return (word >> 17 | word << 47) ^ guard;
}

/* The pointer guard that the C library mangles with: the word at fs:0x30 (tcbhead_t, sysdeps/x86_64/nptl/tls.h) of any
 * thread, of which this is the thread pointer. 0 where it cannot be read. */
uint64_t holders__pointer_guard(const struct process *p, taddr_t thread_pointer);

#endif
