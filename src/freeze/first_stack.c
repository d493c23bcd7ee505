/* See first_stack.h. */
#include "freeze/first_stack.h"

enum {
	/* What _start does with the stack pointer before it calls anything (glibc sysdeps/x86_64/start.S), and ld.so,
	 * when it is run as a command, with its own arguments (sysdeps/x86_64/dl-machine.h: RTLD_START). */
	START_BELOW = 64,
	START_ABOVE = 4096,
};

/* Rising, within `stack`, and from the start of the program. */
static bool is_plain(const struct frames *f, const struct mapping *stack, taddr_t start)
{
	if (!f->complete || f->v.n < 2)
		return false;
	for (size_t i = 0; i < f->v.n; i++) {
		taddr_t sp = f->v.items[i].sp;
		if (sp.v < stack->range.start.v || sp.v >= stack->range.end.v ||
		    (i > 0 && sp.v <= f->v.items[i - 1].sp.v))
			return false;
	}
	taddr_t last = f->v.items[f->v.n - 1].sp;
	return last.v + START_BELOW >= start.v && last.v <= start.v + START_ABOVE;
}

bool first_stack__is_plain(struct unwinder *u, const struct process *p, const struct arch_regs *regs)
{
	taddr_t start = process__stack_start(p);
	struct mappings maps;
	ERR_CLEANUP struct err *e = process__maps(p, &maps);
	if (e)
		return false;
	const struct mapping *stack = start.v ? mappings__at(&maps, start) : NULL;
	bool plain = false;
	if (stack && mappings__at(&maps, arch_regs__sp(regs)) == stack) {
		struct frames f = {0};
		unwinder__frames(u, regs, &f);
		plain = is_plain(&f, stack, start);
		vec__free(&f.v);
	}
	mappings__free(&maps);
	return plain;
}
