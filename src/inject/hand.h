/* The hand: a thread of our own inside the target that maps and unmaps for us.
 *
 * One thread of the target is borrowed once, for one clone(2). The new thread has its own table of
 * file descriptors (no CLONE_FILES), every signal blocked, and its stack in the scratch memory of
 * the VAPI; it performs system calls one by one while it is traced, and exits by itself when it is
 * not: each call returns to ARCH_PAD_EXIT, so a tool that is killed leaves no thread behind.
 *
 *     scratch, lowest address first (HAND_SCRATCH_MIN bytes at least)
 *     +------------------+----------------------+---------------+--------------------------------+
 *     | hand stack       | data: path strings,  | (free)        | rt_sigframe + xsave area of    |
 *     | 4 KiB            | batch list; 12 KiB   |               | the borrowed thread, 16 KiB    |
 *     +------------------+----------------------+---------------+--------------------------------+
 *
 * The first word of the scratch memory is 0 when nobody uses it (inject/place.h). Behind it is the record of the
 * parking pad (struct arch_park_record). The hand's stack begins at its far end and does not come near them. The
 * rest may hold anything.
 *
 * Law 1 (docs/design.md): from the moment the borrowed thread's registers are changed, it returns
 * to where it was through rt_sigreturn(2) over a frame that is complete before the change, whether
 * the tool lives or not.
 */
#ifndef LLU_INJECT_HAND_H
#define LLU_INJECT_HAND_H

#include <sched.h>

#include "arch/code.h"
#include "inject/process.h"

enum {
	HAND_SCRATCH_MIN = 32768,
	HAND_DATA_SIZE = 12288,
	HAND_WAITS = 32, /* calls in front of a batch that is withheld */
	HAND_BATCH_MAX = HAND_DATA_SIZE / sizeof(struct arch_batch_entry) - HAND_WAITS - 1, /* calls */
	HAND_CLONE_FLAGS = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FS | CLONE_SYSVSEM,
};

struct hand;

/* Where the VAPI offers what the hand needs, as addresses in the target. */
struct hand_place {
	taddr_t pads;    /* ARCH_PADS_SIZE bytes of arch_pads__write() */
	taddr_t scratch; /* HAND_SCRATCH_MIN bytes or more, readable and writable, page-aligned */
	size_t scratch_len;
};

static inline taddr_t hand_place__record(const struct hand_place *p)
{
	return taddr_add(p->scratch, ARCH_PARK_RECORD);
}

/* Raises the hand: borrows a thread (waiting up to `timeout_ms` for one that may be borrowed) and
 * clones it. When this returns, the borrowed thread is running again, detached, as it was.
 * Errors: ERR_RETRY (no thread could be borrowed in time), ERR_REFUSED (seccomp, shadow stacks: the
 * reason is in the text), ERR_BUSY (traced by another), ERR_PERMISSION, ERR_GONE, ERR_SYSTEM (the
 * clone failed: pids limit). The target is as before on every error. */
MUST_CHECK struct err *hand__raise(const struct process *p, const struct hand_place *place, int timeout_ms,
				   struct hand **out);

/* Waits up to `timeout_ms` until no hand, and no thread on its way home, of an llvupdate that was killed is at work
 * there. For places where no hand is raised: raising one does that for its own. ERR_RETRY: somebody still is. */
MUST_CHECK struct err *hand__await_place(const struct process *p, const struct hand_place *place, int timeout_ms);

/* The same for a whole range of addresses that the program knows nothing of, and for borrowed threads that are about to
 * map or unmap something there. */
MUST_CHECK struct err *hand__await_range(const struct process *p, struct trange r, int timeout_ms);

/* The hand's thread id in the target, for freeze_options.except. */
pid_t hand__tid(const struct hand *h);
/* Its thread pointer, which is that of the thread that it was cloned from. */
taddr_t hand__thread_pointer(const struct hand *h);

/* Performs one system call in the target. *result is the kernel's return value, negative errno
 * included; an error is returned only when the call could not be made. */
MUST_CHECK struct err *hand__call(struct hand *h, int64_t nr, const uint64_t arg[6], int64_t *result);

/* Where the caller may put data for the calls (a path, a batch): HAND_DATA_SIZE bytes. */
taddr_t hand__data(const struct hand *h);

/* Sets the hand up to run a batch of `n` calls (at most HAND_BATCH_MAX; it occupies the data area), but does
 * not start it. */
MUST_CHECK struct err *hand__load_batch(struct hand *h, const struct arch_batch_entry *calls, size_t n);
/* Withholds the loaded batch until the hand runs: for calls that nobody may meet half-way. A tool that dies between
 * giving the hand its registers and letting it go leaves a hand that is let go together with all other threads; then it
 * makes HAND_WAITS calls that change nothing, and ends. */
MUST_CHECK struct err *hand__withhold_batch(struct hand *h);
/* Runs the loaded batch to its end in one go, also when the tool dies meanwhile; the hand exits
 * with it. ERR_RETRY: it was withheld, and the tool too slow; nothing happened. Fills in the results of `calls`;
 * entries behind the first failure keep result 0. *done says how many calls succeeded. */
MUST_CHECK struct err *hand__run_batch(struct hand *h, struct arch_batch_entry *calls, size_t n, size_t *done);

/* Traces calls that were made by a batch, or by a borrowed thread itself, which had ended `when` (trace__now()). */
void hand__trace_batch(const struct process *p, const struct arch_batch_entry *calls, size_t n, uint64_t when,
		       const char *by);

/* What was loaded does not count any more: nobody is to go on with it (hand__read_batch()). */
MUST_CHECK struct err *hand__forget_batch(const struct hand *h);
/* The batch that a hand of an llvupdate that died has left at a place where nobody is at work any more
 * (hand__await_place()), with what became of it: *done calls succeeded, and if there are more, the next one failed. *n
 * is 0 when there is none, or it never ran. The caller frees *out. Raising a hand makes it forgotten. */
MUST_CHECK struct err *hand__read_batch(const struct process *p, const struct hand_place *place,
					struct arch_batch_entry **out, size_t *n, size_t *done);

/* Lets the hand exit (if it has not) and waits for that; frees the handle. */
void hand__dismiss(struct hand *h);

/* The system calls that raising and using a hand makes, for seccomp__check(). Ends with -1. */
extern const int hand_syscalls[];

#endif
