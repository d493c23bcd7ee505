/* Unwinding a stopped thread by the call frame information of the mapped files.
 *
 * The answer is all of a thread's frames, or that it cannot be unwound. Nothing is guessed: a program counter
 * without call frame information (hand-written code, code made at run time, a file that cannot be
 * opened) ends the attempt, and so does a frame that libdwfl found in another way, by frame pointers.
 */
#ifndef LLU_FREEZE_UNWIND_H
#define LLU_FREEZE_UNWIND_H

#include "base/vec.h"
#include "inject/arch.h"
#include "inject/process.h"

struct unwinder;

struct frame {
	taddr_t pc;
	taddr_t sp;
	bool activation; /* pc is the next instruction, not a return address */
};

struct frames {
	VEC(struct frame) v; /* innermost first */
	bool complete;       /* ends where the outermost function's information says so */
	taddr_t stuck_at;    /* otherwise: the program counter that could not be unwound */
};

/* Reads what is needed from the mapped files. To be made before the freeze, as it takes time; `maps` is
 * borrowed for as long as the unwinder lives. */
MUST_CHECK struct err *unwinder__new(const struct process *p, const struct mappings *maps, struct unwinder **out);
void unwinder__free(struct unwinder *u);

/* The caller releases out->v with vec__free(). */
void unwinder__frames(struct unwinder *u, pid_t tid, const struct arch_regs *regs, struct frames *out);

#endif
