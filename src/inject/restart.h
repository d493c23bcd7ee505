/* What a ptrace-stop does to a thread that is in a system call, and how to undo it (law 3).
 *
 * A stop is, to the kernel, something like a signal: it wakes a sleeper, its system call ends with an
 * error, the thread stops in the signal code, and goes on there when it is let go. Then
 *
 *   -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND   the kernel makes the call again by itself
 *   -ERESTART_RESTARTBLOCK    the kernel continues the call with the time that is left, by
 *                             restart_syscall(2); this works once, through the kernel, only
 *   -EINTR                    the program sees an error that it would not have seen (signal(7), "Interruption
 *                             of system calls and library functions by stop signals")
 *   a short count             the program sees a transfer cut short
 *
 * The third kind is mended at the stop: the result is made -ERESTARTNOHAND, which to the kernel
 * means just what is wanted: if a handler is to run, the call returns EINTR after it, otherwise it is made
 * again. So it need not be known whose fault the EINTR was, nor does a signal that arrives meanwhile
 * get lost in a call made again. That is true for calls that have done nothing yet when they fail
 * with EINTR, and those are listed here. (Their timeout, where it is relative, starts anew.)
 */
#ifndef LLU_INJECT_RESTART_H
#define LLU_INJECT_RESTART_H

#include "inject/arch.h"
#include "inject/process.h"

/* What a stop would do to a thread asleep in a system call. */
enum restart_class {
	RESTART_EXACT, /* the call can be made again from its registers: the program cannot tell */
	RESTART_BLOCK, /* the kernel alone can continue it: may be stopped, may not be borrowed */
	RESTART_NEVER, /* a stop may be seen by the program (a short write), or it is not known */
};

/* For a sleeper, before it is stopped: `v` is how it was seen at rest in a call. Looks at the file that a read waits
 * for and at the word that a futex waiter waits on; what cannot be looked at is RESTART_NEVER. */
enum restart_class restart__class(const struct process *p, const struct thread_view *v);

/* At a stop in the signal code: true if the result was changed and the registers must be set. */
bool restart__mend(struct arch_regs *r);

/* At such a stop, mended: may the thread be taken elsewhere and its call be made again from the
 * registers? */
bool restart__borrowable(const struct arch_regs *r);

#endif
