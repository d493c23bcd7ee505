/* procmap over an update: the Implementation moves, the VAPI and the data stay. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scene.h"

TestSuite(procmap, .fini = support__teardown);

static struct result procmap(pid_t pid)
{
	const char *argv[] = {COMMAND_DIR "/procmap", path_of("%d", pid), NULL};

	return command__run(argv, 60);
}

/* The START-END of the first line that ends with libstate.so.1(PART) and `more`; to be freed. */
static char *range_of(const struct result *r, const char *part, const char *more)
{
	const char *end = path_of("  libstate.so.1(%s)%s\n", part, more);
	const char *found = strstr(r->out, end);

	cr_assert_not_null(found, "no '%s' in:\n%s", end, r->out);
	while (found > r->out && found[-1] != '\n')
		found--;
	return strndup(found, strcspn(found, " "));
}

static void expect(const struct result *a, const struct result *b, const char *part, const char *more, bool same)
{
	char *before = range_of(a, part, more), *after = range_of(b, part, more);

	cr_assert_eq(strcmp(before, after) == 0, same, "%s: %s before, %s after", part, before, after);
	free(before);
	free(after);
}

Test(procmap, implementation_moves_and_the_rest_stays)
{
	struct scene s = scene__begin("state", "v1");
	pid_t pid = target__pid(s.target);
	struct result before = procmap(pid);

	scene__install(&s, "v2");
	struct result outdated = procmap(pid);
	scene__update(&s);
	struct result after = procmap(pid);
	cr_assert_eq(before.exit_code, 0, "%s", before.err);
	cr_assert_eq(after.exit_code, 0, "%s", after.err);
	expect(&before, &after, "_impl", "  code", false);
	expect(&before, &after, "data", "", true);
	expect(&before, &after, "VAPI stubs", "", true);
	expect(&before, &after, "VAPI table", "", true);
	expect(&before, &after, "VAPI header", "", true);
	expect(&before, &after, "VAPI scratch", "", true);

	/* what was live is called older, and its code is gone */
	char *was = range_of(&before, "_impl", "  code"), *older = range_of(&after, "older _impl", "  code, gone");
	cr_assert_str_eq(was, older);
	free(was);
	free(older);
	cr_assert(text__has(before.out, "the file's own code, after 0 updates\n"), "%s", before.out);
	cr_assert(text__has(outdated.out, "after 0 updates; another build stands at its path now\n"), "%s",
		  outdated.out);
	cr_assert(text__has(after.out, "an image, after 1 update\n"), "%s", after.out);
	result__free(&before);
	result__free(&outdated);
	result__free(&after);
	free(target__finish(s.target));
}

Test(procmap, process_without_a_split_library)
{
	struct result r = procmap(getpid());

	cr_assert_eq(r.exit_code, 1, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "\\[stack\\]"), "its mappings are not shown:\n%s", r.out);
	result__free(&r);
}

Test(procmap, arguments)
{
	static const char *const wrong[][3] = {
	    {COMMAND_DIR "/procmap", NULL, NULL},
	    {COMMAND_DIR "/procmap", "0", NULL},
	    {COMMAND_DIR "/procmap", "12x", NULL},
	    {COMMAND_DIR "/procmap", "--no-such-option", NULL},
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct result r = command__run(wrong[i], 10);
		cr_assert_eq(r.exit_code, 2, "case %zu: exit code %d", i, r.exit_code);
		cr_assert(text__has(r.err, "usage: procmap PID"), "%s", r.err);
		result__free(&r);
	}
}
