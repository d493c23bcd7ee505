/* What frames hold that new code would take for something else, in functions that are the same in both builds: an
 * object, the base of a table, a value. Who is in such a frame finds there what he has put there. In split libraries,
 * and in plain ones. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "scene.h"

TestSuite(frames, .fini = support__teardown, .timeout = 100);

static const char library[] = "libframes.so.1";

enum kind { SPLIT, PLAIN };

static void install(struct scene *s, enum kind kind, const char *variant)
{
	if (kind == SPLIT)
		scene__install(s, variant);
	else
		scene__install_raw(s, fixture_library(variant, s->library));
}

static struct scene begin(enum kind kind, const char *variant)
{
	struct scene s = {.dir = temp_dir(), .library = library, .how = BY_RENAME};

	install(&s, kind, variant);
	scene__start(&s, (const char *const[]){FIXTURE_DIR "/frames_driver", NULL});
	return s;
}

/* `variant` is to take over from `version`, and a thread is in `function`: it is named, and comes back as if nothing
 * had been. Then the update is made. */
static void not_while_inside(struct scene *s, enum kind kind, int version, const char *function, const char *variant,
			     const char *last, const char *answer)
{
	install(s, kind, variant);
	scene__refuse(s, path_of("thread [0-9]+: .*it waits in read\\(2\\), called from %s", function));
	target__rounds(s->target, 1, version);
	target__ask(s->target, path_of("leave %s", last), path_of("came back with %s", answer));
	scene__update(s);
	target__rounds(s->target, 2, variant[1] - '0');
}

/* ---- an object ---- */

/* Fields of a struct on the stack of who waits change places. */
static void record(enum kind kind)
{
	struct scene s = begin(kind, "v1-record");

	target__ask(s.target, "enter record", "waiting");
	target__ask(s.target, "feed abc", "waiting");
	not_while_inside(&s, kind, 1, "frames_record", "v2-record", "dew", "5");
	free(target__finish(s.target));
}

Test(frames, an_object_whose_fields_change_places)
{
	record(SPLIT);
}

Test(frames, an_object_whose_fields_change_places_plain)
{
	record(PLAIN);
}

/* Who waits has been given the address of a struct that grows. */
static void grown(enum kind kind)
{
	struct scene s = begin(kind, "v1-grown");

	target__ask(s.target, "enter grown", "waiting");
	not_while_inside(&s, kind, 1, "(grown_read|frames_grown)", "v2-grown", "x", "5");
	free(target__finish(s.target));
}

Test(frames, an_object_that_grows)
{
	grown(SPLIT);
}

Test(frames, an_object_that_grows_plain)
{
	grown(PLAIN);
}

/* It fits, and whoever plans the update is told. */
Test(frames, objects_on_stacks_are_noted)
{
	static const char *const variants[] = {"record", "grown"};
	for (size_t i = 0; i < 4; i++) {
		const char *variant = variants[i / 2];
		struct result r =
		    command__run((const char *const[]){path_of("%s/llusplit", COMMAND_DIR), "--check",
						       fixture_library(path_of("v1-%s", variant), library),
						       fixture_library(path_of("v2-%s", variant), library),
						       i % 2 ? "--unprepared" : NULL, NULL},
				 60);
		cr_expect_eq(r.exit_code, 0, "%s: exit code %d\n%s%s", variant, r.exit_code, r.out, r.err);
		cr_expect(text__has(r.out, "\nnote: objects on the stacks of the library's own functions changed") &&
			      text__has(r.out, "\nFIT\n"),
			  "%s:\n%s", variant, r.out);
		result__free(&r);
	}
}

/* ---- the base of a table ---- */

/* The loop has it in a register, and would go on in the old code by it: in the library's own code, and in an image. */
Test(frames, a_table_for_switch)
{
	struct scene s = begin(SPLIT, "v2");

	target__ask(s.target, "enter switch", "waiting");
	target__ask(s.target, "feed abab", "waiting");
	not_while_inside(&s, SPLIT, 2, "frames_switch", "v3", "aaw", "8");
	target__ask(s.target, "enter switch", "waiting");
	target__ask(s.target, "feed abab", "waiting");
	not_while_inside(&s, SPLIT, 3, "frames_switch", "v2", "aaw", "12");
	free(target__finish(s.target));
}

/* What is the same stays where it was loaded, and with it who is in there: what the loop calls is new. */
Test(frames, a_table_for_switch_plain)
{
	struct scene s = begin(PLAIN, "v2");

	target__ask(s.target, "enter switch", "waiting");
	target__ask(s.target, "feed abab", "waiting");
	install(&s, PLAIN, "v3");
	scene__update(&s);
	target__rounds(s.target, 1, 3);
	target__ask(s.target, "leave aaw", "came back with 10");
	target__rounds(s.target, 1, 3);
	free(target__finish(s.target));
}

/* But where an update has moved it, it is moved again. */
Test(frames, a_table_for_switch_of_a_function_that_was_moved_plain)
{
	struct scene s = begin(PLAIN, "v1");

	install(&s, PLAIN, "v2");
	scene__update(&s);
	target__rounds(s.target, 1, 2);
	target__ask(s.target, "enter switch", "waiting");
	target__ask(s.target, "feed abab", "waiting");
	not_while_inside(&s, PLAIN, 2, "frames_switch", "v3", "aaw", "8");
	free(target__finish(s.target));
}

/* ---- a value ---- */

/* Of an enum that is numbered anew. */
static void kind_of_value(enum kind kind)
{
	struct scene s = begin(kind, "v1");

	target__ask(s.target, "enter kind", "waiting");
	not_while_inside(&s, kind, 1, "frames_kind", "v2", "x", "7");
	free(target__finish(s.target));
}

Test(frames, a_value_that_means_something_else)
{
	kind_of_value(SPLIT);
}

Test(frames, a_value_that_means_something_else_plain)
{
	kind_of_value(PLAIN);
}

/* ---- the address of a function ---- */

/* It goes on to lead to that function. Linkers of old wrote the start of .text into e_entry of every library, and there
 * is another function in the new build: names say which is which. */
static void entry(enum kind kind)
{
	struct scene s = begin(kind, "v1-entry");

	target__ask(s.target, "ask", "asked");
	target__ask(s.target, "call", "answer 1");
	for (int v = 2; v <= 3; v++) {
		install(&s, kind, path_of("v%d-entry", v));
		scene__update(&s);
		target__ask(s.target, "call", path_of("answer %d", v));
		target__rounds(s.target, 2, v);
	}
	free(target__finish(s.target));
}

Test(frames, entry_of_what_cannot_be_run)
{
	entry(SPLIT);
}

Test(frames, entry_of_what_cannot_be_run_plain)
{
	entry(PLAIN);
}

/* Without names nothing does, and e_entry must not. */
static void entry_stripped(enum kind kind)
{
	struct scene s = begin(kind, "v1-entry-stripped");

	target__ask(s.target, "ask", "asked");
	install(&s, kind, "v2-entry-stripped");
	scene__refuse(&s,
		      "the address of function at 0x[0-9a-f]+ is taken, it changed, and what corresponds to it in the "
		      "new build is not certain");
	target__ask(s.target, "call", "answer 1");
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}

Test(frames, entry_of_what_cannot_be_run_stripped)
{
	entry_stripped(SPLIT);
}

Test(frames, entry_of_what_cannot_be_run_stripped_plain)
{
	entry_stripped(PLAIN);
}

/* ---- a place to go on ---- */

/* A coroutine between the stack of a signal handler and the stack that the signal came on, which no frame accounts for:
 * it goes on where it was, however many updates later. */
Test(frames, a_coroutine_beside_the_stack_of_a_signal)
{
	struct scene s = begin(SPLIT, "v1");

	for (int v = 1; v <= 2; v++) {
		target__ask(s.target, "enter coroutine", "waiting");
		for (int i = v; i <= v + 1; i++) {
			int next = i % 3 + 1;
			install(&s, SPLIT, path_of("v%d", next));
			scene__update(&s);
			target__rounds(s.target, 1, next);
		}
		target__ask(s.target, "leave x", path_of("came back with %d", v));
		install(&s, SPLIT, "v2");
		scene__update(&s);
		target__rounds(s.target, 1, 2);
	}
	free(target__finish(s.target));
}

/* In a plain library old code that is left would call new functions, and not do beside them: it is seen, and waited
 * for. */
Test(frames, a_coroutine_beside_the_stack_of_a_signal_plain)
{
	struct scene s = begin(PLAIN, "v1");

	target__ask(s.target, "enter coroutine", "waiting");
	install(&s, PLAIN, "v2");
	scene__refuse(&s, "thread [0-9]+: an address in it is at 0x[0-9a-f]+[^\n]*: a parked stack");
	target__rounds(s.target, 1, 1);
	target__ask(s.target, "leave x", "came back with 1");
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}
