/* Unwinding a stopped thread by the call frame information of the mapped files.
 *
 * The answer is all of a thread's frames, or that it cannot be unwound. Nothing is guessed: a program counter
 * without call frame information (hand-written code, code made at run time, a file that cannot be opened), an
 * expression that is not understood, a register that is needed and lost: each ends the attempt. The stack ends
 * only where the information says that there is no caller (clone(2), _start and the like say so).
 *
 * Which file code belongs to is found by what is mapped at that very address, not by an object's span: a relinked image
 * inside a library's window is a file of its own.
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
	taddr_t slot;        /* the word from which the caller's pc was read, if it lies at a fixed place of this frame;
				{0}: it was found in another way, or there is no caller */
	taddr_t signal_slot; /* in a trampoline (gdb's and libgcc's word, the code that a handler returns to): where the
				kernel keeps the pc of what the signal interrupted; else {0} */
	bool activation;     /* pc is the next instruction, not a return address */
	uint64_t reg[ARCH_DWARF_REGS];
	uint32_t known; /* bit by bit: which of these are known */
};

struct frames {
	VEC(struct frame) v; /* innermost first */
	bool complete;       /* ends where the outermost function's information says so */
	taddr_t stuck_at;    /* otherwise: the program counter that could not be unwound */
};

/* Where to look up what is known of the code that a frame is in: a return address belongs to the call before it. */
static inline taddr_t frame__code(const struct frame *f)
{
	return taddr(f->pc.v - (f->activation ? 0 : 1));
}

/* Reads what is needed from the mapped files. To be made before the freeze, as it takes time. */
MUST_CHECK struct err *unwinder__new(const struct process *p, struct unwinder **out);
void unwinder__free(struct unwinder *u);
/* Is the code that it knows still mapped as it was when it was made? To be asked while the process stands still. */
MUST_CHECK struct err *unwinder__current(const struct unwinder *u, bool *out);

/* The caller releases out->v with vec__free(). */
void unwinder__frames(struct unwinder *u, const struct arch_regs *regs, struct frames *out);

/* Is a frame at the code `a` and one at `b` unwound in the same way, down to every rule? */
bool unwinder__alike(const struct unwinder *u, taddr_t a, taddr_t b);

#endif
