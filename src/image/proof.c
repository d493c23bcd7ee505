/* The strongest evidence for the gate: debug information of both builds says what every type looks like. Where both
 * have it, for all code that may work on objects, the layout is proved, or the difference is named. */
#include "image/gate.h"
#include "image/types.h"

static bool is_covered(const struct types *t, const struct function *f)
{
	return !f->fde || f->plt || types__covers(t, f->start);
}

/* What the types say nothing about would be a hole in the proof: all code with an unwind entry, except PLTs and what is
 * in both builds (assembly, mostly), which uses what it used before. Where such code changed, it is left to be judged
 * by itself: x->unproved. False: some of it is gone. */
static bool covers_rest(struct planner *x, const struct types *old, const struct types *new)
{
	const struct code *a = x->p->live_code, *b = x->p->next_code;
	const struct match *m = x->p->match;
	x->unproved = xcalloc(b->functions.n, sizeof(bool));
	for (size_t i = 0; i < b->functions.n; i++)
		x->unproved[i] = !m->same_code[i] && !is_covered(new, &b->functions.items[i]);
	for (size_t i = 0; i < a->functions.n; i++) {
		int32_t heir = m->a_to_b[i];
		if (is_covered(old, &a->functions.items[i]))
			continue;
		if (heir < 0)
			return false;
		x->unproved[heir] = !m->same_code[heir];
	}
	return true;
}

/* Refuses for what a comparison found, if anything. */
static void report(struct planner *x, const struct types_report *r, const char *code, const char *what)
{
	enum { SHOWN = 8 };
	for (size_t i = 0; i < r->differences.n && i < SHOWN; i++)
		planner__refuse(x, code, "%s", r->differences.items[i]);
	if (r->n_differences > SHOWN)
		planner__refuse(x, code, "%zu more differences between %s", r->n_differences - SHOWN, what);
}

static struct err *compare(struct planner *x, const struct types *old, const struct types *new)
{
	struct types_report objects = {0}, statics = {0};
	struct err *e = types__compare(old, new, &objects);
	if (!e)
		e = types__compare_statics(old, new, &statics);
	if (!e) { /* the library's own data is its state, about which nobody can be overruled */
		report(x, &objects, "layout-changed", "types");
		report(x, &statics, "state-layout", "variables");
		x->p->layout = objects.n_differences + statics.n_differences ? LAYOUT_CHANGED : LAYOUT_PROVED;
	}
	types_report__free(&objects);
	types_report__free(&statics);
	return e;
}

bool proof__judge(struct planner *x)
{
	TYPES_CLEANUP struct types *old = NULL, *new = NULL;
	ERR_CLEANUP struct err *e = types__find(x->p->live, NULL, &old);
	if (!e)
		e = types__find(x->p->next, NULL, &new);
	if (!e && (!types__found(old) || !types__found(new)))
		return false;
	bool whole = !e && covers_rest(x, old, new);
	if (!e)
		e = compare(x, old, new);
	if (e) { /* damaged debug information proves nothing */
		planner__remark(x, "%s", err__text(e));
		x->p->not_to_keep = true;
		x->p->layout = LAYOUT_NOT_JUDGED;
		return false;
	}
	/* types that differ are a change whatever else there is; equal ones prove what they cover */
	if (x->p->layout != LAYOUT_CHANGED && !whole)
		x->p->layout = LAYOUT_NOT_JUDGED;
	return x->p->layout != LAYOUT_NOT_JUDGED;
}
