/* Freezing a process outside given code (see freeze.h).
 *
 * Work that takes time is done while the process runs: the mappings are read before, sleepers are looked
 * at before, and the unwinder, which opens every mapped file, is made only when it turns out to be
 * needed, between two attempts. So the time frozen is that of stopping the threads that run and of
 * reading their stacks.
 */
#include "freeze/freeze.h"

#include <inttypes.h>

#include "freeze/stack.h"
#include "freeze/threads.h"
#include "freeze/unwind.h"
#include "inject/proc.h"

struct freeze {
	struct freeze_options opt;
	struct trange *inside; /* a copy of what opt.inside refers to */
	struct threads threads;
};

/* The unwinder and the mappings that it refers to. */
struct help {
	struct mappings maps;
	struct unwinder *unwinder;
};

static void help_free(struct help *h)
{
	unwinder__free(h->unwinder);
	mappings__free(&h->maps);
}

static struct err *help_get(const struct process *p, struct help *h)
{
	TRY(process__maps(p, &h->maps));
	return unwinder__new(p, &h->maps, &h->unwinder);
}

static struct err *inside(const struct process *p, const struct thread *th, const char *why, taddr_t at)
{
	int64_t nr = arch_regs__syscall(&th->tracee.regs);
	if (nr >= 0)
		return process__err(p, th->tid, ERR_RETRY, 0, NULL, "%s at 0x%" PRIx64 " (in system call %" PRId64 ")",
				    why, at.v, nr);
	return process__err(p, th->tid, ERR_RETRY, 0, NULL, "%s at 0x%" PRIx64, why, at.v);
}

/* Words were found on the stack of a stopped thread; are they part of a live frame? */
static struct err *unwind(const struct freeze *f, const struct thread *th, const struct stack_answer *a,
			  struct unwinder *u)
{
	const struct process *p = f->threads.p;
	struct frames fr;
	struct err *e = NULL;
	unwinder__frames(u, th->tid, &th->tracee.regs, &fr);
	for (size_t i = 0; !e && i < fr.v.n; i++) {
		/* a return address belongs to the call before it */
		taddr_t pc = taddr(fr.v.items[i].pc.v - (fr.v.items[i].activation ? 0 : 1));
		if (ranges__have(f->opt.inside, f->opt.n_inside, pc))
			e = inside(p, th, "it will return into the code to be replaced", pc);
	}
	if (!e && !fr.complete)
		e = inside(p, th, "addresses in the code to be replaced are on its stack, which cannot be unwound",
			   fr.stuck_at);
	/* From another stack the home stack must have been reached, or what is there is not known. */
	if (!e && !a->sp_at_home) {
		taddr_t sp = fr.v.items[fr.v.n - 1].sp;
		if (!trange__has(a->home[0], sp) && !trange__has(a->home[1], sp))
			e = inside(p, th, "addresses in the code to be replaced are on a stack that it has left",
				   a->word_at);
	}
	vec__free(&fr.v);
	return e;
}

/* Is a stopped thread outside? *needs_help: cannot be told without the unwinder. */
static struct err *check(const struct freeze *f, const struct thread *th, struct unwinder *u, bool *needs_help)
{
	const struct arch_regs *r = &th->tracee.regs;
	taddr_t pc = arch_regs__pc(r);
	if (ranges__have(f->opt.inside, f->opt.n_inside, pc))
		return inside(f->threads.p, th, "it is inside the code to be replaced", pc);
	struct stack_query q = {
	    .first = th->tid == process__pid(f->threads.p),
	    .sp = arch_regs__sp(r),
	    .thread_pointer = arch_regs__thread_pointer(r),
	    .maps = &f->threads.maps,
	    .inside = f->opt.inside,
	    .n_inside = f->opt.n_inside,
	};
	struct stack_answer a;
	TRY(stack__scan(f->threads.p, &q, &a));
	if (a.verdict == STACK_CLEAN)
		return NULL;
	if (u)
		return unwind(f, th, &a, u);
	*needs_help = true;
	return NULL;
}

static struct err *attempt(struct freeze *f, struct unwinder *u, bool *needs_help)
{
	*needs_help = false;
	TRY(threads__bring_to_rest(&f->threads));
	for (size_t i = 0; i < f->threads.v.n && !*needs_help; i++)
		if (f->threads.v.items[i].rest == REST_STOPPED)
			TRY(check(f, &f->threads.v.items[i], u, needs_help));
	return NULL;
}

static struct freeze *new_freeze(const struct process *p, const struct freeze_options *opt)
{
	struct freeze *f = xcalloc(1, sizeof(*f));
	f->opt = *opt;
	if (opt->n_inside)
		f->inside = xmemdup(opt->inside, opt->n_inside * sizeof(*opt->inside));
	f->opt.inside = f->inside;
	f->threads.p = p;
	f->threads.opt = &f->opt;
	return f;
}

struct err *freeze__begin(const struct process *p, const struct freeze_options *opt, struct freeze **out)
{
	struct help help = {0};
	bool needs_help = false;
	TRY(process__shares_memory(p, true));
	for (;;) {
		struct freeze *f = new_freeze(p, opt);
		struct err *e = attempt(f, help.unwinder, &needs_help);
		if (!e && !needs_help) {
			help_free(&help);
			*out = f;
			return NULL;
		}
		(void)freeze__thaw(f);
		if (!e)
			e = help_get(p, &help);
		if (e) {
			help_free(&help);
			return e;
		}
	}
}

void freeze__stats(const struct freeze *f, struct freeze_stats *out)
{
	*out = (struct freeze_stats){0};
	for (size_t i = 0; i < f->threads.v.n; i++) {
		enum rest r = f->threads.v.items[i].rest;
		out->threads += r != REST_GONE && r != REST_IGNORED;
		out->stopped += r == REST_STOPPED;
		out->asleep += r == REST_ASLEEP;
	}
}

struct err *freeze__slept_on(const struct freeze *f, bool *out)
{
	return threads__slept_on(&f->threads, out);
}

uint64_t freeze__thaw(struct freeze *f)
{
	uint64_t frozen = threads__let_go(&f->threads);
	free(f->inside);
	free(f);
	return frozen;
}
