/* The stack that the kernel made for a process's first thread. */
#ifndef LLU_FREEZE_FIRST_STACK_H
#define LLU_FREEZE_FIRST_STACK_H

#include "freeze/unwind.h"

/* Do the frames of a stopped thread lie one above the other on that stack, down to the program's start? Then nothing
 * below its stack pointer is in use but the red zone (psABI 3.2.2), as long as nobody parks coroutines below its own
 * frames, which some do with setjmp(3). Of a stack within the stack (an array that somebody switched to) the frames end
 * elsewhere. False as well when it cannot be told. */
bool first_stack__is_plain(struct unwinder *u, const struct process *p, const struct arch_regs *regs);

#endif
