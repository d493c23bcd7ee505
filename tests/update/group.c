/* Libraries that need one another are updated as one: in one freeze, all or none. */
#include <criterion/criterion.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pair.h"

TestSuite(group, .fini = support__teardown);

/* Version 2 of the upper imports a new export of version 2 of the lower, and another version of an old one. */
Test(group, there_and_back)
{
	static const int versions[] = {2, 1, 2, 3, 1, 3, 2, 1, 2, 1, 2, 1, 2, 1};
	struct pair p = pair__begin();

	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		const char *variant = path_of("v%d", versions[i]);
		pair__install(&p, variant, variant);
		pair__update(&p, versions[i]);
	}
	pair__finish(&p);
}

/* Busy threads ask for the versions of both: they never see one library updated without the other. */
Test(group, busy_threads_see_both_or_none)
{
	struct pair p = pair__begin_busy(false);

	for (int i = 0; i < 12; i++) {
		const char *variant = path_of("v%d", 2 - i % 2);
		pair__install(&p, variant, variant);
		pair__update(&p, 2 - i % 2);
	}
	pair__finish(&p);
}

/* The address of a new export, which the program keeps, is that of its successor too; and who keeps it over a way
 * back calls the build that had it. */
Test(group, address_of_a_new_export)
{
	struct pair p = pair__begin();

	pair__install(&p, "v2", "v2");
	pair__update(&p, 2);
	target__ask(p.target, "keep", "kept");
	pair__install(&p, "v3", "v3");
	pair__update(&p, 3);
	target__ask(p.target, "kept same", "same 103");
	pair__install(&p, "v1", "v1");
	pair__update(&p, 1);
	target__ask(p.target, "kept same", "other 103");
	pair__install(&p, "v3", "v3");
	pair__update(&p, 3);
	target__ask(p.target, "kept same", "same 103");
	pair__finish(&p);
}

/* The entry of the library whose path has `name` in it, of the first process. */
static struct json_object *library_of(struct json_object *document, const char *name)
{
	struct json_object *processes = NULL, *libraries = NULL, *path = NULL;

	json_object_object_get_ex(document, "processes", &processes);
	json_object_object_get_ex(json_object_array_get_idx(processes, 0), "libraries", &libraries);
	for (size_t i = 0; i < json_object_array_length(libraries); i++) {
		struct json_object *l = json_object_array_get_idx(libraries, i);
		json_object_object_get_ex(l, "path", &path);
		if (strstr(json_object_get_string(path), name))
			return l;
	}
	cr_assert_fail("no %s", name);
	return NULL;
}

/* The value of a key, as text. */
static const char *member_of(struct json_object *o, const char *key)
{
	struct json_object *value = NULL;

	cr_assert(json_object_object_get_ex(o, key, &value), "no %s in %s", key, json_object_to_json_string(o));
	return json_object_get_string(value);
}

/* One entry for each library, with the time of the one freeze. */
Test(group, reported_one_by_one)
{
	struct pair p = pair__begin();

	pair__install(&p, "v2", "v2");
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-P", NULL}, 60);
	cr_assert(text__has(r.out, "libupper\\.so\\.1\n  as one with \\S*/liblower\\.so\\.1\n"), "%s", r.out);
	result__free(&r);
	r = pair__llvupdate(&p, (const char *const[]){"--json", "--strict", NULL});
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	struct json_object *o = json_tokener_parse(r.out);
	struct json_object *upper = library_of(o, "libupper"), *lower = library_of(o, "liblower");
	static const char *const same[] = {"state", "group", "frozen_ns", "total_ns", "tries", "threads"};
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
		cr_assert_str_eq(member_of(upper, same[i]), member_of(lower, same[i]), "%s", r.out);
	cr_assert_str_eq(member_of(upper, "state"), "success");
	cr_assert_gt(strtoll(member_of(upper, "frozen_ns"), NULL, 10), 0, "%s", r.out);
	json_object_put(o);
	result__free(&r);
	target__rounds(p.target, 2, 2);
	pair__finish(&p);
}

/* ---- alone ---- */

Test(group, the_lower_alone)
{
	struct pair p = pair__begin();

	pair__install(&p, NULL, "v2");
	scene__update(&p.lower);
	cr_assert_eq(target__round(p.target), 12);
	pair__install(&p, NULL, "v1");
	scene__update(&p.lower);
	target__rounds(p.target, 2, 1);
	pair__finish(&p);
}

/* The upper wants what the lower that is loaded does not have: seen in the preview already. */
Test(group, the_upper_alone)
{
	static const char reason[] = "the new build imports lower_(new|add)@LOWER_2\\.0, which nothing in the process "
				     "provides";
	struct pair p = pair__begin();

	pair__install(&p, "v2", NULL);
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-P", NULL}, 60);
	cr_assert(text__has(r.out, reason), "%s", r.out);
	result__free(&r);
	pair__refuse(&p, reason, 1);
	r = pair__llvupdate(&p, (const char *const[]){"--json", NULL});
	cr_assert(text__has(r.out, "\"code\":\"import\""), "%s", r.out);
	result__free(&r);
	pair__install(&p, NULL, "v2");
	pair__update(&p, 2);
	pair__finish(&p);
}

/* The lower runs the build that the upper wants, with entry points from when both were updated. */
Test(group, the_upper_alone_again)
{
	struct pair p = pair__begin();

	pair__install(&p, "v2", "v2");
	pair__update(&p, 2);
	target__ask(p.target, "keep", "kept");
	pair__install(&p, "v1", NULL);
	scene__update(&p.upper);
	cr_assert_eq(target__round(p.target), 12);
	pair__install(&p, "v2", NULL);
	scene__update(&p.upper);
	target__rounds(p.target, 2, 2);
	target__ask(p.target, "kept same", "same 102");
	pair__finish(&p);
}

/* The lower came alone: nobody asked for its new exports, so they have no entry point. */
Test(group, the_upper_comes_late)
{
	struct pair p = pair__begin();

	pair__install(&p, NULL, "v2");
	scene__update(&p.lower);
	pair__install(&p, "v2", NULL);
	scene__refuse(&p.upper, "a new export of \\S*liblower\\.so\\.1, for which no entry point is left there");
	cr_assert_eq(target__round(p.target), 12);
	pair__install(&p, "v3", "v3");
	pair__update(&p, 3);
	pair__finish(&p);
}

/* ---- all or none ---- */

Test(group, the_lower_is_refused)
{
	struct pair p = pair__begin();

	pair__install(&p, "v2", "bad-bss");
	pair__refuse(&p,
		     "libupper\\.so\\.1 is not updated: liblower\\.so\\.1, which it depends on, cannot be updated: "
		     "\\.bss",
		     1);
	struct result r = pair__llvupdate(&p, (const char *const[]){"--json", NULL});
	struct json_object *o = json_tokener_parse(r.out);
	cr_assert(strstr(member_of(library_of(o, "libupper"), "reason"), "\"group\""), "%s", r.out);
	cr_assert(strstr(member_of(library_of(o, "liblower"), "reason"), "\"state-"), "%s", r.out);
	json_object_put(o);
	result__free(&r);
	pair__install(&p, NULL, "v2");
	pair__update(&p, 2);
	pair__finish(&p);
}

Test(group, the_upper_is_refused)
{
	struct pair p = pair__begin();

	pair__install(&p, "bad-bss", "v2");
	pair__refuse(&p,
		     "liblower\\.so\\.1 is not updated: libupper\\.so\\.1, which is updated with it, cannot be "
		     "updated: \\.bss",
		     1);
	pair__install(&p, "v2", NULL);
	pair__update(&p, 2);
	pair__finish(&p);
}

Test(group, a_new_variable_is_imported)
{
	struct pair p = pair__begin();

	pair__install(&p, "new-data", "new-data");
	pair__refuse(&p, "imports lower_value@LOWER_2\\.0, a new export of \\S*liblower\\.so\\.1, which is no function",
		     1);
	pair__finish(&p);
}

/* Two that need each other are a group like any other, but a new import against the order of commit is refused. */
Test(group, a_ring)
{
	struct pair p = pair__begin_on("v1-ring");

	pair__install(&p, "v2", "v2-ring");
	pair__refuse(
	    &p,
	    "imports lower_(new|add)@LOWER_2\\.0, a new export of \\S*liblower\\.so\\.1, and the two libraries "
	    "need each other",
	    1);
	pair__finish(&p);
}

/* What is not needed by one another does not hold the other back. */
Test(group, a_stranger_is_refused)
{
	struct scene stranger;
	struct pair p = pair__begin_with(&stranger, "libstate.so.1");

	pair__install(&p, "v2", "v2");
	scene__install(&stranger, "bad-bss");
	struct result r = pair__llvupdate(&p, (const char *const[]){"--json", NULL});
	struct json_object *o = json_tokener_parse(r.out);
	cr_assert_eq(r.exit_code, 3, "%s%s", r.out, r.err);
	cr_assert_str_eq(member_of(library_of(o, "libstate"), "state"), "not updated");
	cr_assert_str_eq(member_of(library_of(o, "libupper"), "state"), "success");
	cr_assert_str_eq(member_of(library_of(o, "liblower"), "state"), "success");
	json_object_put(o);
	result__free(&r);
	target__rounds(p.target, 2, 2);
	pair__finish(&p);
}

/* Two groups in one process: each in a freeze of its own. */
Test(group, a_stranger_is_updated)
{
	struct scene stranger;
	struct pair p = pair__begin_with(&stranger, "libstate.so.1");

	pair__install(&p, "v2", "v2");
	scene__install(&stranger, "v2");
	scene__update(&stranger);
	target__rounds(p.target, 2, 2);
	cr_assert(!scene__preview_lists(&p.lower));
	pair__finish(&p);
}

/* The same libraries once more, in a namespace of their own. */
Test(group, two_namespaces)
{
	struct pair p = pair__begin();

	target__ask(p.target, "namespace", "namespace");
	for (int v = 2; v >= 1; v--) {
		pair__install(&p, path_of("v%d", v), path_of("v%d", v));
		pair__update(&p, v);
	}
	pair__finish(&p);
}

/* ---- a plain library that is needed ---- */

Test(group, a_plain_library_is_outdated_too)
{
	struct scene s = scene__prepare("libimports.so.1", fixture_library("v1", "libimports.so.1"), BY_RENAME);
	const char *dep = path_of("%s/lib/libdep.so.1", s.dir), *fresh = path_of("%s.fresh", dep);

	file__copy(fixture_library("dep", "libdep.so.1"), dep);
	scene__start(&s, (const char *const[]){FIXTURE_DIR "/imports_driver", NULL});
	target__rounds(s.target, 1, 1);
	scene__install(&s, "v2");
	/* the same build in a new file is no other build */
	file__copy(fixture_library("dep", "libdep.so.1"), fresh);
	cr_assert_eq(rename(fresh, dep), 0);
	cr_assert(scene__preview_lists(&s));
	file__copy(fixture_library("dep2", "libdep.so.1"), fresh);
	cr_assert_eq(rename(fresh, dep), 0);
	/* one of its functions is too short for a jump */
	scene__refuse(&s, "libdep\\.so\\.1, which it depends on, cannot be updated");
	struct result r = scene__llvupdate(&s, (const char *const[]){"--split-only", NULL});
	cr_assert_eq(r.exit_code, 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "libdep\\.so\\.1, which it needs, is outdated too, and is no LLU-capable library"),
		  "%s", r.out);
	result__free(&r);
	target__rounds(s.target, 2, 1);
	file__copy(fixture_library("dep", "libdep.so.1"), fresh);
	cr_assert_eq(rename(fresh, dep), 0);
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

/* ---- threads inside ---- */

static void with_a_thread_inside(const char *where)
{
	struct pair p = pair__begin();

	target__ask(p.target, path_of("enter %s", where), "entered");
	pair__install(&p, "v2", "v2");
	struct result r = pair__llvupdate(&p, (const char *const[]){"-n", "1", "-t", "1", "--json", NULL});
	struct json_object *o = json_tokener_parse(r.out);
	static const char *const names[] = {"libupper", "liblower"};
	cr_assert_eq(r.exit_code, 3, "%s%s", r.out, r.err);
	for (int i = 0; i < 2; i++)
		cr_assert(strstr(member_of(library_of(o, names[i]), "reason"), "\"retry\""), "%s", r.out);
	json_object_put(o);
	result__free(&r);
	target__rounds(p.target, 2, 1);
	target__ask(p.target, "leave", "left");
	pair__update(&p, 2);
	pair__finish(&p);
}

Test(group, a_thread_inside_the_upper)
{
	with_a_thread_inside("upper");
}

Test(group, a_thread_inside_the_lower)
{
	with_a_thread_inside("lower");
}
