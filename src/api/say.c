/* What an operation says, in the order of AIX llvupdate. See llu.h. */
#include "api/operation.h"

LLU_API void llu_operation__say_preview(struct llu_operation *x)
{
	LOCALE_SCOPE;
	report__say(&x->report, "llvupdate preview\n");
	for (size_t i = 0; i < x->records.n; i++)
		report__say(&x->report, "%s", x->records.items[i].preview);
	if (x->opt.all) {
		size_t left_out[LEFT_OUT_KINDS];
		job_list__left_out(&x->jobs, left_out);
		report__left_out(&x->report, left_out);
	}
	if (!operation__any_concern(x))
		report__say(&x->report, "No process requires a Live library Update operation.\n");
}

LLU_API void llu_operation__say_begin(struct llu_operation *x, unsigned seconds, unsigned tries)
{
	LOCALE_SCOPE;
	x->of_tries = tries;
	report__begins_in(&x->report, seconds);
}

LLU_API void llu_operation__say_restarts(struct llu_operation *x)
{
	LOCALE_SCOPE;
	report__restart(&x->report, x->records.items, x->records.n);
}

void say__try_begins(struct llu_operation *x)
{
	if (x->n_try == 1) {
		report__say(&x->report, "llvupdate preview\n");
		for (size_t i = 0; i < x->records.n; i++)
			report__say(&x->report, "%s", x->records.items[i].validating);
	}
	report__try(&x->report, x->n_try);
	report__phase(&x->report, "NOTIFY", true, x->n_try, "tonotify", llu_operation__pending(x));
}

void say__prepared(struct llu_operation *x, size_t pending)
{
	report__phase(&x->report, "NOTIFY", false, x->n_try, "suspended", pending);
	report__phase(&x->report, "QUERY", true, x->n_try, "suspended", pending);
}

void say__try_ended(struct llu_operation *x, size_t success_before)
{
	size_t success = report__summarise(x->records.items, x->records.n).success;
	unsigned of = x->of_tries > x->n_try ? x->of_tries : x->n_try;
	report__phase(&x->report, "QUERY", false, x->n_try, "updated", success - success_before);
	report__try_end(&x->report, x->n_try, of, x->n_try < x->of_tries ? llu_operation__pending(x) : 0);
}

void say__end(struct llu_operation *x)
{
	if (!operation__any_concern(x))
		return;
	for (size_t i = 0; i < x->records.n; i++)
		if (x->records.items[i].concerns)
			report__say(&x->report, "%s", x->records.items[i].details);
	report__final(&x->report, x->records.items, x->records.n);
}
