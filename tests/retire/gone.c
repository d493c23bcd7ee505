/* Old code goes: what the maps say, what does not keep it, and what a process does afterwards. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "retire.h"

TestSuite(gone, .fini = support__teardown);

Test(gone, in_the_maps_and_in_the_report)
{
	struct scene s = scene__begin("state", "v1");

	target__rounds(s.target, 3, 1);
	for (int i = 0; i < 6; i++) {
		update_gone(&s, (i + 1) % 3 + 1);
		target__rounds(s.target, 3, (i + 1) % 3 + 1);
	}
	free(target__finish(s.target));
}

Test(gone, in_the_report_for_programs)
{
	struct scene s = park__begin();

	scene__install(&s, "v2");
	struct result r = scene__llvupdate(&s, (const char *const[]){"--json", NULL});
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	cr_assert(text__has(r.out, "\"old_code\": *\"gone\""), "%s", r.out);
	cr_assert(text__has(r.out, "\"old_code_held_by\": *null"), "%s", r.out);
	result__free(&r);
	free(target__finish(s.target));
}

Test(gone, in_procmap)
{
	struct scene s = park__begin();

	update_gone(&s, 2);
	struct result r =
	    command__run((const char *const[]){COMMAND_DIR "/procmap", path_of("%d", target__pid(s.target)), NULL}, 60);
	cr_assert_eq(r.exit_code, 0, "%s", r.err);
	cr_assert(text__has(r.out, "older _impl\\)  code, gone"), "%s", r.out);
	result__free(&r);
	free(target__finish(s.target));
}

/* ---- what does not hold it ---- */

static void not_held_by(const char *what)
{
	struct scene s = park__begin();

	target__rounds(s.target, 1, 1);
	target__ask(s.target, what, "done");
	update_gone(&s, 2);
	target__ask(s.target, what, "done");
	update_gone(&s, 3);
	update_gone(&s, 1);
	free(target__finish(s.target));
}

/* The C library keeps their stacks, with all that is on them. */
Test(gone, stacks_of_ended_threads)
{
	not_held_by("born 8");
}

Test(gone, what_calls_have_left_on_stacks)
{
	not_held_by("stale small");
}

Test(gone, large_heap)
{
	not_held_by("heap 200");
}

Test(gone, locked_memory)
{
	not_held_by("lock");
}

/* The loader's list is found by the loader's symbol then, as the headers that the kernel knows are the loader's own. */
Test(gone, program_started_through_the_dynamic_loader)
{
	struct scene s = scene__prepare("libpark.so.1", fixture_library("v1", "libpark.so.1"), BY_RENAME);

	scene__start(&s, (const char *const[]){"/lib64/ld-linux-x86-64.so.2", FIXTURE_DIR "/park_driver", NULL});
	for (int v = 2; v <= 3; v++)
		update_gone(&s, v);
	free(target__finish(s.target));
}

/* ---- afterwards ---- */

Test(gone, busy_process)
{
	struct scene s = park__begin();
	int updates = SANITIZED ? 6 : 30;

	target__ask(s.target, "busy 16", "done");
	for (int i = 0; i < updates; i++)
		update_gone(&s, (i + 1) % 3 + 1);
	target__ask(s.target, "rest", "done");
	target__rounds(s.target, 2, updates % 3 + 1);
	free(target__finish(s.target));
}

/* The child is a copy, with the new code and without the old. */
Test(gone, fork)
{
	struct scene s = park__begin();
	int child;

	update_gone(&s, 2);
	target__say(s.target, "fork");
	cr_assert_eq(sscanf(target__hear(s.target), "child %d", &child), 1);
	target__rounds(s.target, 2, 2);
	char *out = update_to(&s, 3, child);
	cr_assert(text__has(out, "the old code is gone"), "%s", out);
	free(out);
	cr_assert_eq(replaced_code(&s, child), 0);
	target__rounds(s.target, 2, 3);
	target__ask(s.target, "leave", "back");
	target__rounds(s.target, 2, 2);
	update_gone(&s, 1);
	free(target__finish(s.target));
}

Test(gone, unwinding_through_new_code)
{
	struct scene s = park__begin();

	update_gone(&s, 2);
	target__ask(s.target, "cancel", "done");
	target__ask(s.target, "spawn", "done");
	update_gone(&s, 3);
	target__ask(s.target, "cancel", "done");
	free(target__finish(s.target));
}

static void walk(const char *name)
{
	struct scene s = scene__begin(name, "v1");

	target__rounds(s.target, 2, 1);
	for (int i = 1; i <= 4; i++) {
		update_gone(&s, i % 3 + 1);
		target__rounds(s.target, 3, i % 3 + 1);
	}
	free(target__finish(s.target));
}

Test(gone, functions_bound_late)
{
	walk("imports");
}

Test(gone, resolvers)
{
	walk("ifunc");
}

Test(gone, thread_local_objects)
{
	walk("tls");
}

/* The library is closed and opened again between updates: nothing of it stays. */
Test(gone, dlclose)
{
	struct scene s = scene__begin("plug", "v1");
	struct map m[32];

	target__ask(s.target, "open", "opened");
	target__rounds(s.target, 2, 1);
	update_gone(&s, 2);
	update_gone(&s, 3);
	target__ask(s.target, "close", "fini destructor-2 version=3");
	target__expect(s.target, "fini destructor-1 version=3");
	target__expect(s.target, "fini dt-fini version=3");
	target__expect(s.target, "closed");
	cr_assert_eq(maps__find(target__pid(s.target), "libplug.so", m, 32), 0);
	target__ask(s.target, "open", "opened");
	target__rounds(s.target, 2, 3);
	update_gone(&s, 1);
	free(target__finish(s.target));
}
