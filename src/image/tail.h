/* What is left to do of a function that changed, for somebody who waits in a call from it.
 *
 * From the return address on both builds are followed at once, instruction by instruction, to either side of each
 * branch. Where they are the same to the end, whoever returns there does as the new build would. That is a *tail*.
 *
 * What the frame has given to others, and will give them, may mean something else in the new build. So a tail begins
 * only behind a call that leaves the library, as far as can be told: by a pointer, or of an import (or of what comes
 * back twice, below). And no tail calls a function that changed and that only its own library knows. (What such a
 * function is given by others in between is like what it finds in the heap: its layout is judged, its meaning is not.)
 *
 * Nor is a tail what comes to a table for switch, or leaves by a jump that hands the frame on; and nothing is one in a
 * function that calls what comes back twice (`setjmp`, `vfork`) to a place that is in no tail. Handlers of exceptions
 * are the caller's to know of.
 */
#ifndef LLU_IMAGE_TAIL_H
#define LLU_IMAGE_TAIL_H

#include "image/match.h"

/* What the caller knows of both builds. */
struct tail_rules {
	const struct code *a, *b; /* the old build, the new one */
	const struct match *match;
	/* Does a reference of `fa` (a function of `a`) mean the same as that of its successor? */
	bool (*same_reference)(void *context, const struct function *fa, const struct ref *ra, const struct ref *rb);
	/* May what is left lead to `to`, outside of the function? By `r->kind`: a call, a jump that ends it, or an
	 * address. */
	bool (*may_lead_to)(void *context, const struct ref *r, vaddr_t to);
	vaddr_t entry_len; /* so much at the start of a function is gone: nothing that is left may come there again */
	void *context;
};

/* By offset in a function of `a`. */
struct tail {
	vaddr_t *next;   /* of an instruction in a tail: the one of `b` that corresponds; else 0 */
	uint8_t *len;    /* its length */
	bool *is_return; /* a call returns to it */
};

/* All tails of `fa`, of which `fb` takes over. The caller releases them with tail__free(). */
void tail__find(const struct tail_rules *rules, const struct function *fa, const struct function *fb, struct tail *out);
void tail__free(struct tail *t);

/* Is the function that starts there known by a name to others, who are not of the same package (contract.h)? */
bool tail__is_export(const struct elf_file *e, vaddr_t function);

#endif
