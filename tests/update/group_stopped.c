/* Calls that fail in the middle of the exchange of two libraries leave both old or both new, and the next update works.
 * (What if llvupdate is killed as well: tests/faults, tests/recover.) */
#include <criterion/criterion.h>

#include "pair.h"

TestSuite(group_stopped, .fini = support__teardown, .timeout = 300);

/* The exchange stops there: afterwards both are of `version`, and can go on from there unless what they would need
 * is still sealed. */
static void stop_at(const char *library, const char *part, int version)
{
	struct pair p = pair__begin();

	scene__seal(p.target, library, part);
	pair__install(&p, "v2", "v2");
	struct result r = pair__llvupdate(&p, (const char *const[]){"-n", "1", NULL});
	cr_assert_eq(r.exit_code, 4, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "could not exchange its pages"), "%s", r.out);
	result__free(&r);
	target__rounds(p.target, 2, version);
	cr_assert_eq(scene__preview_lists(&p.upper), version == 1);
	cr_assert_eq(scene__preview_lists(&p.lower), version == 1);
	pair__finish(&p);
}

Test(group_stopped, the_first_table_cannot_be_moved)
{
	stop_at("liblower.so.1", "VAPI table", 1);
}

Test(group_stopped, the_first_header_cannot_be_moved)
{
	stop_at("liblower.so.1", "VAPI header", 2);
}

Test(group_stopped, the_second_table_cannot_be_moved)
{
	stop_at("libupper.so.1", "VAPI table", 2);
}

Test(group_stopped, the_second_header_cannot_be_moved)
{
	stop_at("libupper.so.1", "VAPI header", 2);
}
