/* Updates between builds whose static objects do not lie alike (fixtures/lib/statics.c): tables move, come and go,
 * and their contents change, while objects in the heap point to them. And the builds that must be refused. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "scene.h"

TestSuite(statics, .fini = support__teardown);

static void go(struct scene *s, const char *variant, int version)
{
	scene__install(s, path_of("v%d%s", version, variant));
	scene__update(s);
	target__rounds(s->target, 3, version);
}

static void along(const char *variant, const int *versions, size_t n)
{
	struct scene s = scene__begin("statics", path_of("v1%s", variant));

	target__rounds(s.target, 3, 1);
	for (size_t i = 0; i < n; i++)
		go(&s, variant, versions[i]);
	free(target__finish(s.target));
}

/* Version 2 brings a table; gone back, whoever points to it still can; coming again, it is the same table. */
Test(statics, there_and_back_and_on)
{
	static const int versions[] = {2, 1, 2, 3, 2, 1};
	along("", versions, 6);
}

Test(statics, each_after_the_other)
{
	static const int versions[] = {2, 3, 1, 3, 2};
	along("", versions, 5);
}

Test(statics, packed_relative_relocations)
{
	static const int versions[] = {2, 3, 1};
	along("-relr", versions, 3);
}

Test(statics, bound_at_start)
{
	static const int versions[] = {2, 3, 1};
	along("-now", versions, 3);
}

Test(statics, not_optimised)
{
	static const int versions[] = {2, 3, 1};
	along("-O0", versions, 3);
}

/* Version 2 brought a table, version 3 would bring it too, and nothing tells that it is the same one. */
Test(statics, what_an_earlier_update_brought)
{
	struct scene s = scene__begin("statics", "v1");

	target__rounds(s.target, 2, 1);
	go(&s, "", 2);
	go(&s, "", 1);
	scene__install(&s, "v3");
	scene__refuse(&s, "cannot be told from what an earlier update brought");
	target__rounds(s.target, 2, 1);
	go(&s, "", 2);
	free(target__finish(s.target));
}

/* Contents alone change: a function and a number in a table, the initial value of a variable. */
static void change_in_place(const char *old, const char *new)
{
	struct scene s = scene__begin("statics", old);

	target__rounds(s.target, 2, 1);
	scene__install(&s, new);
	scene__update(&s);
	target__rounds(s.target, 2, 4);
	scene__install(&s, old);
	scene__update(&s);
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}

Test(statics, contents_without_symbols)
{
	change_in_place("v1-stripped", "v4-s");
}

Test(statics, contents_with_debug_information)
{
	change_in_place("v1-debug", "v4-g");
}

/* What changed is said: the initial value of a variable that keeps its own. */
Test(statics, changed_initial_value_is_listed)
{
	struct scene s = scene__begin("statics", "v1");

	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2");
	struct result r = scene__llvupdate(&s, NULL);
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	cr_assert(text__has(r.out, "the initial value of level .*changed; the value that the process has stays"), "%s",
		  r.out);
	result__free(&r);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

/* ---- refused ---- */

static void refuse_from(const char *old, const char *bad, const char *reason)
{
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llusplit", "--check",
							     fixture_library(old, "libstatics.so.1"),
							     fixture_library(bad, "libstatics.so.1"), NULL},
				       60);
	cr_expect_eq(r.exit_code, 3, "%s: exit code %d\n%s%s", bad, r.exit_code, r.out, r.err);
	cr_expect(text__has(r.out, reason), "%s: no word of '%s' in:\n%s%s", bad, reason, r.out, r.err);
	result__free(&r);
}

Test(statics, table_grew)
{
	refuse_from("v1", "bad-grown", "grown in \\.data\\.rel\\.ro is 48 bytes in the old build and 72 in the new");
}

Test(statics, entries_of_a_table_moved)
{
	refuse_from("v1", "bad-entries", "sorted.*entries moved, or were inserted");
}

Test(statics, size_in_a_table_changed)
{
	refuse_from("v1", "bad-size", "beta.*holds another number, which may be the size of objects");
}

Test(statics, fields_of_a_static_struct_moved)
{
	refuse_from("v1", "bad-fields", "limits");
	refuse_from("v1-debug", "bad-fields-debug", "limits");
}

Test(statics, end_of_a_table_beside_another_object)
{
	refuse_from("v1-end", "bad-end", "boundary");
}

Test(statics, pointer_to_the_end_of_a_table)
{
	refuse_from("v1-range", "bad-range", "range.*points to data whose place cannot be told");
}

Test(statics, twins_that_nobody_tells_apart)
{
	refuse_from("v1-twins", "bad-twins", "may be the old build's twin");
}

Test(statics, new_writable_object)
{
	refuse_from("v1", "bad-writable", "writable \\(24 bytes\\) is new in \\.data");
}

/* A variable that one build lacks: nobody kept its value up to date when the older build comes back. */
Test(statics, writable_object_that_was_away)
{
	struct scene s = scene__begin("statics", "v1-writable");

	target__rounds(s.target, 2, 1);
	go(&s, "", 2);
	scene__install(&s, "v1-writable");
	scene__refuse(&s, "writable \\(24 bytes\\) is new in \\.data");
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

Test(statics, no_symbols)
{
	refuse_from("v1-stripped", "v2-stripped", "no symbols tell its objects apart|unchanged code");
}
