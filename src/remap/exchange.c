/* See exchange.h. */
#include "remap/exchange.h"

#include <sys/syscall.h>

#include "remap/surgery_parts.h"

/* One call of the batch: a shadow that moves to its place, or the end of a library's part. */
struct step {
	const struct surgery *s;
	struct shadow *shadow; /* NULL: the shadows' place becomes reservation */
};

struct exchange {
	struct step *steps;
	struct arch_batch_entry *batch;
	size_t n;
	uint64_t ran;       /* when, for the trace; 0: it did not */
	size_t first_table; /* index of the first step behind which there is no way back: new code is reachable */
};

struct err *exchange__new(struct surgery *const *members, size_t n, struct exchange **out)
{
	size_t total = 0;
	for (size_t i = 0; i < n; i++)
		total += members[i]->shadows.n + 1;
	if (total > HAND_BATCH_MAX)
		return surgery__refuse(members[0], "too many separate pages change");
	struct exchange *x = xcalloc(1, sizeof(*x));
	x->steps = xcalloc(total, sizeof(*x->steps));
	x->batch = xcalloc(total, sizeof(*x->batch));
	/* the last two are table and header; where the table comes first (unprepared) nothing leads there before the
	 * next */
	x->first_table = members[0]->l->vapi->plain ? 1 : members[0]->shadows.n - 2;
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < members[i]->shadows.n; k++)
			x->steps[x->n++] = (struct step){members[i], &members[i]->shadows.items[k]};
		x->steps[x->n++] = (struct step){members[i], NULL};
	}
	*out = x;
	return NULL;
}

void exchange__free(struct exchange *x)
{
	if (!x)
		return;
	free(x->steps);
	free(x->batch);
	free(x);
}

static struct arch_batch_entry call_of(const struct step *t)
{
	const struct surgery *s = t->s;
	if (t->shadow)
		return (struct arch_batch_entry){.nr = SYS_mremap,
						 .arg = {surgery__at(s, t->shadow->at).v, t->shadow->len,
							 t->shadow->len, MREMAP_MAYMOVE | MREMAP_FIXED,
							 surgery__at(s, t->shadow->to).v}};
	/* no hole may stay in the window, into which the kernel could put another mapping */
	return (struct arch_batch_entry){.nr = SYS_mmap,
					 .arg = {surgery__at(s, s->shadow_at).v, s->shadow_len, PROT_NONE,
						 BRING_RESERVED_FLAGS | MAP_FIXED, (uint64_t)-1, 0}};
}

struct err *exchange__load(struct exchange *x, struct hand *h)
{
	bool code = false;
	for (size_t i = 0; i < x->n; i++) {
		x->batch[i] = call_of(&x->steps[i]);
		code = code || (x->steps[i].shadow && x->steps[i].shadow->exec);
	}
	TRY(hand__load_batch(h, x->batch, x->n));
	return code ? hand__withhold_batch(h) : NULL; /* pages of code must not change while threads run */
}

/* The batch stopped at step `done`. What was moved has its new contents. Once a table has changed, threads that were
 * left asleep may run new code, so there is no way back: what is missing is written, in the order of the
 * batch. Before that, what was moved gets its old contents. */
static struct err *mend(const struct exchange *x, size_t done, bool *committed)
{
	*committed = done > x->first_table;
	for (size_t i = *committed ? done : 0; i < (*committed ? x->n : done); i++) {
		const struct shadow *h = x->steps[i].shadow;
		if (h)
			TRY(process__write(x->steps[i].s->p, surgery__at(x->steps[i].s, h->to),
					   *committed ? h->content : h->before, h->len));
	}
	return NULL;
}

struct err *exchange__run(struct exchange *x, struct hand *h, bool *committed)
{
	size_t done = 0;
	*committed = false;
	uint64_t since = trace__now();
	struct err *err = hand__run_batch(h, x->batch, x->n, &done);
	x->ran = trace__now();
	process__did(x->steps[0].s->p, "exchange", since, err,
		     (struct trace_arg){.key = "calls", .number = (int64_t)done});
	if (!err && done == x->n) {
		*committed = true;
		return NULL;
	}
	for (size_t i = 0; i < done; i++)
		if (x->steps[i].shadow)
			x->steps[i].shadow->moved = true;
	struct err *mended = done > x->first_table ? NULL : hand__forget_batch(h); /* it goes back */
	if (!mended)
		mended = mend(x, done, committed);
	if (mended) {
		*committed = true; /* perhaps not all of it, but nothing may be unmapped any more */
		err__free(err);
		return err__wrap(mended, "the exchange stopped half-way");
	}
	if (err)
		return err;
	/* committed all the same: then whoever reports it says what is to be done */
	return err__new(ERR_SURGERY, (int)-x->batch[done].result, x->steps[done].s->l->path,
			*committed ? NULL
				   : "what was exchanged was put back, and the process runs on as before; try again "
				     "later, or restart it",
			"the process could not exchange its pages (step %zu of %zu)", done + 1, x->n);
}

void exchange__trace(struct exchange *x)
{
	size_t made = 0;
	while (x->ran && made < x->n && x->batch[made].result)
		made++;
	hand__trace_batch(x->steps[0].s->p, x->batch, made, x->ran, "the batch");
	x->ran = 0;
}
