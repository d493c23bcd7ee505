/* The stack that the C library made for a thread, or knows of. */
#ifndef LLU_INJECT_THREAD_STACK_H
#define LLU_INJECT_THREAD_STACK_H

#include "inject/process.h"

/* By the thread control block at `tcb` (struct pthread of glibc, nptl/descr.h: stackblock, stackblock_size, guardsize):
 * the stack without its guard, up to the block, and the guard's size. False when there is none that is plausible, as
 * for the first thread. */
bool thread_stack__of(const struct process *p, taddr_t tcb, struct trange *stack, uint64_t *guard);

#endif
