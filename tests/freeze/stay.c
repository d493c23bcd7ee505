/* Threads that are in the library all the time, and whole updates: they are moved, or driven out, or the report says
 * who is in the way. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "scene.h"

TestSuite(stay, .fini = support__teardown, .timeout = 100);

/* Functions that are the same in both builds: their threads go over to the new one where they are, asleep, in a system
 * call of the library's own, and running; from own code to an image, from image to image, and back. */
Test(stay, threads_are_moved)
{
	struct scene s = scene__begin("drive", "v1");
	target__ask(s.target, "wait", "waiting");
	static const int versions[] = {2, 3, 1, 2};
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		scene__install(&s, path_of("v%d", versions[i]));
		scene__update(&s);
		target__rounds(s.target, 2, versions[i]);
	}
	target__ask(s.target, "release", "released versions=2 2 2");
	/* each of them at one update only */
	for (int v = 3; v >= 1; v--) {
		target__ask(s.target, "wait", "waiting");
		scene__install(&s, path_of("v%d", v));
		scene__update(&s);
		target__ask(s.target, "release", path_of("released versions=%d %d %d", v, v, v));
	}
	free(target__finish(s.target));
}

Test(stay, sleepers_that_are_woken_by_a_stop_are_moved)
{
	struct scene s = scene__begin("drive", "v1");
	target__ask(s.target, "wait", "waiting");
	scene__install(&s, "v2");
	struct result r = scene__llvupdate(&s, (const char *const[]){"--strict", NULL});
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	result__free(&r);
	target__ask(s.target, "release", "released versions=2 2 2");
	free(target__finish(s.target));
}

/* A thread that knows an address of the code that it is in would go on there: it is not moved, and named. */
Test(stay, a_thread_that_knows_the_old_code_is_not_moved)
{
	struct scene s = scene__begin("drive", "v1");
	target__ask(s.target, "label", "blocked");
	scene__install(&s, "v2");
	scene__refuse(&s, "thread [0-9]+: .*it waits in read\\(2\\), called from drive_label_wait");
	target__rounds(s.target, 1, 1);
	target__ask(s.target, "unblock", "unblocked");
	scene__update(&s);
	target__rounds(s.target, 1, 2);
	free(target__finish(s.target));
}

/* A function that differs, but not in what is left to do of it. */
Test(stay, the_same_is_left_to_do)
{
	struct scene s = scene__begin("drive", "v1");
	for (int v = 2; v <= 3; v++) {
		target__ask(s.target, "tail", "blocked");
		scene__install(&s, path_of("v%d", v));
		struct result r = scene__llvupdate(&s, NULL);
		cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
		cr_expect(text__has(r.out, "the old code is gone"), "%s", r.out);
		result__free(&r);
		target__ask(s.target, "back", path_of("back version=%d", v));
	}
	free(target__finish(s.target));
}

/* What is left calls a function that nobody else knows, and that differs: what it is given may mean something else. */
Test(stay, what_is_left_calls_what_changed)
{
	struct scene s = scene__begin("drive", "v1");
	target__ask(s.target, "tail_to_local", "blocked");
	scene__install(&s, "v2");
	scene__refuse(
	    &s,
	    "thread [0-9]+: .*it waits in read\\(2\\), called from drive_tail_to_local \\(changed in the new build, ");
	target__ask(s.target, "back", "back version=1");
	scene__update(&s);
	target__rounds(s.target, 1, 2);
	free(target__finish(s.target));
}

/* A jump buffer of a frame that is moved goes along; else it would lead to code that is gone. */
Test(stay, jump_buffers_are_moved)
{
	struct scene s = scene__begin("drive", "v1");
	for (int v = 2; v <= 3; v++) {
		target__ask(s.target, "catch", "blocked");
		scene__install(&s, path_of("v%d", v));
		struct result r = scene__llvupdate(&s, NULL);
		cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
		cr_expect(text__has(r.out, "the old code is gone"), "%s", r.out);
		result__free(&r);
		target__ask(s.target, "back", path_of("back version=%d", v));
	}
	free(target__finish(s.target));
}

/* In a function that differs, for good: the report says who waits, in what, and from where. */
Test(stay, a_thread_in_what_changed_is_named)
{
	struct scene s = scene__begin("drive", "v1");
	target__ask(s.target, "block", "blocked");
	scene__install(&s, "v2");
	scene__refuse(
	    &s, "thread [0-9]+: .*it waits in read\\(2\\), called from drive_block \\(changed in the new build, ");
	target__ask(s.target, "unblock", "unblocked");
	scene__update(&s);
	target__rounds(s.target, 1, 2);
	free(target__finish(s.target));
}

/* Eight threads that are outside for moments only, never all at once: one try is enough. */
Test(stay, threads_are_driven_out)
{
	struct scene s = scene__prepare("libdrive.so.1", fixture_library("v1", "libdrive.so.1"), BY_RENAME);
	scene__start(&s, (const char *const[]){FIXTURE_DIR "/drive_driver", "8", NULL});
	for (int i = 0; i < 6; i++) {
		int version = i % 3 == 0 ? 2 : i % 3 == 1 ? 3 : 1;
		target__rounds(s.target, 1, i % 3 == 0 ? 1 : version == 3 ? 2 : 3);
		scene__install(&s, path_of("v%d", version));
		struct result r = scene__llvupdate(&s, (const char *const[]){"-n", "1", "-t", "10", NULL});
		cr_assert_eq(r.exit_code, 0, "update %d: %s%s", i, r.out, r.err);
		cr_assert(text__has(r.out, "in all, 1 try"), "%s", r.out);
		result__free(&r);
		target__rounds(s.target, 1, version);
	}
	free(target__finish(s.target));
}

/* Between two tries the process is left alone for 10 s; it leaves meanwhile. */
Test(stay, left_alone_between_tries)
{
	struct scene s = scene__begin("drive", "v1");
	target__ask(s.target, "block", "blocked");
	scene__install(&s, "v2");
	int64_t start = support__now_ms();
	pid_t tool =
	    command__start((const char *const[]){COMMAND_DIR "/llvupdate", "-p", path_of("%d", target__pid(s.target)),
						 "-n", "2", "-t", "1", "-l", path_of("%s/log", s.dir), NULL});
	/* the first try is over when nothing is mapped for it any more */
	struct map m;
	while (maps__find(target__pid(s.target), "libdrive.so.1-", &m, 1) == 0 && support__now_ms() < start + 5000)
		;
	while (maps__find(target__pid(s.target), "libdrive.so.1-", &m, 1) != 0 && support__now_ms() < start + 5000)
		;
	target__ask(s.target, "unblock", "unblocked");
	int64_t free_since = support__now_ms();
	cr_assert_eq(command__wait(tool, 60), 0);
	int64_t took = support__now_ms() - free_since;
	cr_assert(took > 8000 && took < 30000, "tried again after %ld ms", took);
	target__rounds(s.target, 1, 2);
	free(target__finish(s.target));
}
