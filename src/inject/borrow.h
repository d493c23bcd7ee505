/* Borrowing a thread of the target for one clone(2), which makes the hand (hand.h). */
#ifndef LLU_INJECT_BORROW_H
#define LLU_INJECT_BORROW_H

#include "inject/hand.h"
#include "inject/tracee.h"

/* Finds a thread that may be borrowed (waiting up to `timeout_ms` for one), has it clone the hand, and
 * brings it home. *hand is traced and stands still before its first instruction, which is the `ret`
 * of the system call pad: let go, it exits by itself. Errors: as hand__raise(). */
MUST_CHECK struct err *borrow__clone(const struct process *p, const struct hand_place *place, int timeout_ms,
				     struct tracee *hand);

/* Is nothing below the stack pointer of a thread, which stands still, in use but the red zone? */
struct borrow_plain {
	bool (*is_plain)(void *arg, const struct process *p, const struct arch_regs *regs);
	void *arg;
};

/* Has a borrowed thread make calls itself, one after the other until one fails: for a process that has no pads and no
 * scratch memory yet. It uses instructions of the C library's, and its own stack: pages that were never touched, or, as
 * far as `plain` says so of the first thread (may be NULL), what lies below its stack pointer. None of the calls may
 * block or end the thread. Their results are filled in (negative errno for a failure); those behind it are -EINTR.
 * Should the tool die, the thread makes at most the call that it is about to, and goes home. Errors: as hand__raise().
 */
MUST_CHECK struct err *borrow__calls(const struct process *p, struct arch_batch_entry *calls, size_t n,
				     const struct borrow_plain *plain, int timeout_ms);

/* The stack pointer that the hand starts with, and that each of its calls starts with: it points to
 * the address of ARCH_PAD_EXIT. */
taddr_t borrow__hand_stack(const struct hand_place *place);

#endif
