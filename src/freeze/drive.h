/* Driving a thread out of code that it is inside of.
 *
 * The thread stands still, and so do all others. Its outermost frame in that code has its return address on the stack,
 * at a place that is proved by call frame information. That word is replaced by the address of the parking pad
 * (arch/code.h), the original is kept in the record of the pad, and the thread alone runs on. When the function
 * returns, the thread comes by the pad, which puts the original back and makes a system call: there it is caught,
 * outside.
 *
 *     record.slot, record.original     the record is armed; nothing leads to it yet
 *     *slot = pad                      the function will return by the pad
 *     the thread runs                  ... and pushes the original at the pad: the record is not needed any more
 *     record.original = 0
 *
 * Should the tool be killed after any of these steps, the thread passes the pad by itself. Exceptions, cancellation and
 * backtraces see through the replaced word, as the pad's unwind entry leads to the record.
 *
 * When the thread does not come by in time (it waits for one that stands still, it loops, it left by longjmp(3), or by
 * swapcontext(3) for a while), the word is put back where it still is what was written. The record is
 * given up only when nobody is at the first instruction of the pad, which reads it: a record in use is never
 * overwritten. One that a tool left armed that was killed is settled in the same way, with all threads at rest.
 */
#ifndef LLU_FREEZE_DRIVE_H
#define LLU_FREEZE_DRIVE_H

#include "freeze/judge.h"

enum drive_end {
	DRIVE_OUT,    /* stopped, on the pad */
	DRIVE_INSIDE, /* stopped, perhaps still inside */
	DRIVE_GONE,   /* ended */
};

struct drive {
	enum drive_end end;
	const char *why; /* DRIVE_INSIDE: why it did not come by */
	bool forked;     /* it has made processes or threads */
};

/* Drives out the thread at `index` of `t`, which may grow. `j` is what was found about it. ERR_RETRY: it can be neither
 * stopped nor left, or it may not be driven out; also ERR_REFUSED, ERR_GONE, ERR_PERMISSION, ERR_SYSTEM. */
MUST_CHECK struct err *drive__out(struct threads *t, size_t index, struct unwinder *u, const struct judgement *j,
				  struct drive *out);

/* With all threads at rest: settles what a tool left that was killed, if it left anything. *needs_help: that takes an
 * unwinder. ERR_RETRY: a thread needs the record still. */
MUST_CHECK struct err *drive__settle(const struct threads *t, struct unwinder *u, bool *needs_help);

#endif
