/* Calls that fail: each system call that the hand makes in the process, one by one, with the errors of machines that
 * have run out of something or forbid it. The process is as it was, or wholly new; nothing is left behind. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bed.h"
#include "table.h"

TestSuite(calls, .fini = support__teardown, .timeout = 3000);

#ifdef SANITIZED
enum { BUDGET = 8, BUDGET_UNPREPARED = 6 };
#else
enum { BUDGET = 60, BUDGET_UNPREPARED = 30 };
#endif

static const struct {
	const char *name;
	int number;
} errors[] = {{"ENOSPC", ENOSPC}, {"EMFILE", EMFILE}, {"EPERM", EPERM}, {"ENOMEM", ENOMEM}};
enum { ERRORS = sizeof(errors) / sizeof(errors[0]) };

static struct places list_calls(struct bed *b)
{
	const char *file = path_of("%s/points", b->dir);
	bed__start(b);
	bed__install(b, 2);
	struct result r = bed__update(b, (const char *const[]){path_of("LLU_FAULT_LIST=%s", file), NULL});
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	bed__stop(b);
	return places__read(file);
}

static const char *word_for(int exit_code)
{
	return exit_code == 0 ? "SUCCESS" : exit_code == 3 ? "NOT UPDATED" : "FAILURE";
}

static void fail(struct bed *b, size_t k, const char *call, size_t error)
{
	const char *when = path_of("%s from %s", errors[error].name, call);
	bed__start(b);
	bed__install(b, 2);
	struct result r =
	    bed__update(b, (const char *const[]){path_of("LLU_FAULT_CALL=%zu:%d", k + 1, errors[error].number), NULL});
	/* 0: it could do without, or had to load the batch once more */
	cr_assert(r.exit_code == 0 || r.exit_code == 3 || r.exit_code == 4, "%s: exit code %d\n%s%s", when, r.exit_code,
		  r.out, r.err);
	char *state = report_state(r.out, target__pid(b->target));
	cr_assert_str_eq(state, word_for(r.exit_code), "%s: %s\n%s", when, state, r.out);
	free(state);
	bed__check(b, 1, 2, when);
	cr_assert(!bed__cleaned_up(b, when), "%s: something is left to clean up", when);
	table__add(path_of("call fails (%s)", errors[error].name), call, path_of("well; %s", word_for(r.exit_code)));
	result__free(&r);
	bed__updated(b, 2, when);
	bed__stop(b);
}

static void each_fails(struct bed b, size_t budget)
{
	struct places p = list_calls(&b);
	size_t step = table__stride(p.n_calls, budget);
	cr_assert_gt(p.n_calls, 20, "only %zu calls", p.n_calls);
	/* in a sample the errors take turns */
	for (size_t k = 0; k < p.n_calls; k += step)
		for (size_t e = 0; e < ERRORS; e++)
			if (table__is_wanted() || e == k / step % ERRORS)
				fail(&b, k, p.calls[k], e);
	places__free(&p);
}

Test(calls, each_fails_with_each_error)
{
	each_fails(bed__make(), BUDGET);
}

Test(calls, each_fails_unprepared)
{
	each_fails(bed__make_unprepared(), BUDGET_UNPREPARED);
}
