/* Freeze: bring a process to a state in which no thread is, or will return, inside given code.
 *
 * A thread asleep in a system call is left asleep when no word on its stack lies in the ranges.
 * Every other thread is stopped (PTRACE_SEIZE, PTRACE_INTERRUPT). A stopped thread is outside when
 * its PC is outside and no word between its stack pointer and the end of its stack lies in the
 * ranges, or when unwinding (freeze/unwind.h) proves that the words found are stale. What cannot be
 * decided counts as inside.
 *
 * A stopped thread that is inside need not stay so:
 *
 *     moved        all its frames there are in functions that the new code has as well, byte by byte, with references
 *                  to the same places, or where the same is left to do. It may stay where it is: once the new code is
 *                  live, freeze__move() leads its PC, return addresses and jump buffers to the same places of the new
 *                  code.
 *     driven out   it runs, all others standing still, until it has left by itself (freeze/drive.h).
 *
 * Before code is unmapped more is asked (`for_good`): a word that no frame returns by may be part of a stack that
 * the program made in an array, which is in a frame, or in thread-local memory, which lies above all frames. So it is
 * stale only when it is in a proven frame that is too small to hold a stack.
 */
#ifndef LLU_FREEZE_FREEZE_H
#define LLU_FREEZE_FREEZE_H

#include "base/turn.h"
#include "inject/hand.h"
#include "inject/process.h"

struct freeze;

/* A function of the code that must be left. */
struct freeze_function {
	struct trange range;
	taddr_t successor; /* where the new code has the same bytes but for references; {0}: it has not */
	const char *name;  /* for messages, or NULL */
};

/* In a function without successor: a place to which a call returns and from where on the new code has the same. */
struct freeze_return {
	taddr_t at, successor;
};

struct freeze_options {
	const char *what;            /* for the trace: what the freeze is for */
	const struct trange *inside; /* executable ranges that must be left; borrowed */
	size_t n_inside;
	const struct freeze_function *functions; /* in them, by address; borrowed until the thaw; may be none */
	size_t n_functions;
	const struct freeze_return *returns; /* likewise */
	size_t n_returns;
	const struct trange *suspects; /* code whose frames count as inside when they hold an address in there, in a */
	size_t n_suspects;             /* register or in a word of their own: threads that were moved may; borrowed */
	const struct trange
	    *tables;     /* read-only data of the code inside: neither a suspect frame nor one that is to be */
	size_t n_tables; /* moved must hold the base of one of its jump tables either; borrowed */
	bool unwinds;    /* there will be frames inside: be ready for that before the first stop */
	bool for_good;   /* nobody may ever come back, not even to a stack within a stack */
	const struct hand_place *park; /* whose parking pad to drive threads out by; NULL: none is driven out */
	int drive_ms;                  /* bound for one thread to leave */
	pid_t except;                  /* the hand's thread id: never stopped or examined; 0 for none */
	bool strict;                   /* stop sleepers too */
	int stop_ms;                   /* bound for one thread to stop */
	const struct turns *turns;     /* who else freezes processes for this operation; NULL: nobody; borrowed */
};

struct freeze_stats {
	size_t threads, stopped, asleep;
	size_t moved;      /* of those stopped: are to be moved, or have been */
	size_t driven_out; /* likewise: had to be driven out */
};

/* Freezes. On success the stopped threads stay so until freeze__thaw(). ERR_RETRY (text: which thread is
 * inside, in which function and which system call if any, or did not stop) leaves every thread running as before.
 * Also ERR_GONE, ERR_BUSY (a debugger came), ERR_PERMISSION. */
MUST_CHECK struct err *freeze__begin(const struct process *p, const struct freeze_options *opt, struct freeze **out);
void freeze__stats(const struct freeze *f, struct freeze_stats *out);

/* When the new code is live, before the thaw: moves the threads that are to be moved; *moved of them. Each word is
 * looked at before it is changed. Should it end half-way (the tool is killed, or with an error), what was not moved
 * goes on in the old code, whose bytes are the same and whose calls return to it; the old code must stay mapped. */
MUST_CHECK struct err *freeze__move(struct freeze *f, size_t *moved);

/* Does any thread hold an address in these ranges, in a register or on a stack that it is on? Also when that cannot
 * be told: a thread was left asleep. ERR_GONE, ERR_PERMISSION, ERR_SYSTEM. */
MUST_CHECK struct err *freeze__mentions(struct freeze *f, const struct trange *ranges, size_t n, bool *out);

/* Have all threads that were left asleep slept on since? One that woke has run code of which nothing
 * is known: the commit is safe all the same (slots change one by one, old code stays mapped), but
 * before the old code goes there must be another freeze. */
MUST_CHECK struct err *freeze__slept_on(const struct freeze *f, bool *out);

/* Lets every stopped thread go on as if it had not been stopped (law 3: interrupted system calls restart,
 * also those that the kernel fails with EINTR on a stop), and frees the handle. Returns the time
 * frozen in nanoseconds: from the first PTRACE_INTERRUPT to the last PTRACE_DETACH, 0 if no thread was stopped. */
uint64_t freeze__thaw(struct freeze *f);

#endif
