/* The process is killed at every place of an update: llvupdate ends in order and says so, and nothing is left of it. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "bed.h"
#include "table.h"

TestSuite(gone, .fini = support__teardown, .timeout = 3000);

#ifdef SANITIZED
enum { BUDGET = 8 };
#else
enum { BUDGET = 60 };
#endif

static void kill_program(struct bed *b, const char *when, const char *place)
{
	bed__start(b);
	bed__install(b, 2);
	pid_t pid = target__pid(b->target);
	struct result r =
	    bed__update(b, (const char *const[]){path_of("LLU_FAULT_KILL_TARGET=%d:%s", pid, when), NULL});
	cr_assert(r.exit_code >= 0 && r.exit_code <= 4, "%s: exit code %d\n%s%s", place, r.exit_code, r.out, r.err);
	cr_assert(r.exit_code <= 1 || text__has(r.out, "ended|gone|ending|no such process"), "%s: no word of it:\n%s",
		  place, r.out);
	bed__stop(b);
	result__free(&r);
	r = bed__clean_up(b, NULL);
	cr_assert_eq(r.exit_code, 0, "%s: cllvupdate: exit code %d\n%s%s", place, r.exit_code, r.out, r.err);
	result__free(&r);
	table__add("process killed", place, "llvupdate ends in order");
}

Test(gone, at_every_place)
{
	struct bed b = bed__make();
	const char *file = path_of("%s/points", b.dir);
	bed__start(&b);
	bed__install(&b, 2);
	struct result r = bed__update(&b, (const char *const[]){path_of("LLU_FAULT_LIST=%s", file), NULL});
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	bed__stop(&b);
	struct places p = places__read(file);
	size_t n = table__is_wanted() ? p.n : p.n_distinct;
	for (size_t k = 0; k < n; k += table__stride(n, BUDGET))
		kill_program(&b, table__is_wanted() ? path_of("%zu", k + 1) : p.distinct[k],
			     table__is_wanted() ? p.all[k] : p.distinct[k]);
	places__free(&p);
}
