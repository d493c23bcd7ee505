/* See thread_stack.h. */
#include "inject/thread_stack.h"

enum {
	PTHREAD_SIZE = 0x900, /* struct pthread of glibc 2.36; a bound for what is read of it */
	PTHREAD_TID = 0x2d0,
	ABOVE_MAX = 0x10000, /* from a thread control block to the end of its stack block */
};

bool thread_stack__of(const struct process *p, taddr_t tcb, struct trange *stack, uint64_t *guard)
{
	uint64_t w[PTHREAD_SIZE / 8];
	ERR_CLEANUP struct err *e = process__read(p, tcb, w, sizeof(w));
	for (size_t i = PTHREAD_TID / 8; !e && i + 2 < PTHREAD_SIZE / 8; i++) {
		uint64_t block = w[i], size = w[i + 1], g = w[i + 2];
		if (block % LLU_PAGE || size % LLU_PAGE || g % LLU_PAGE || g >= size || block + size < block ||
		    block + g >= tcb.v || block + size <= tcb.v || block + size - tcb.v > ABOVE_MAX)
			continue;
		*stack = (struct trange){taddr(block + g), tcb};
		*guard = g;
		return true;
	}
	return false;
}
