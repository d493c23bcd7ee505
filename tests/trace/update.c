/* What an update leaves in the trace. The folder of logs is the test's own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lines.h"
#include "pair.h"

TestSuite(trace_update, .fini = support__teardown);

#define SECRET "correct-horse-battery-staple"

/* Where the trace will be. */
static const char *own_folder(void)
{
	const char *state = temp_dir();
	if (geteuid() != 0) {
		setenv("XDG_STATE_HOME", state, 1);
		return path_of("%s/liveupdate/trace_llu", state);
	}
	cr_assert(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		      mount("none", "/var/log", "tmpfs", 0, "mode=0755") == 0,
		  "%s", strerror(errno));
	return "/var/log/liveupdate/trace_llu";
}

static long number(struct json_object *e, const char *key)
{
	return (long)event__number(e, key);
}

/* Slices of one track lie within one another, or apart: else they cannot be drawn. */
static void check_nesting(const struct lines *l)
{
	for (size_t i = 0; i < l->n; i++)
		for (size_t k = i + 1; k < l->n; k++) {
			struct json_object *a = l->items[i], *b = l->items[k];
			if (!json_object_object_get_ex(a, "dur", NULL) || !json_object_object_get_ex(b, "dur", NULL) ||
			    number(a, "pid") != number(b, "pid") || number(a, "tid") != number(b, "tid"))
				continue;
			double end_a = event__number(a, "ts") + event__number(a, "dur");
			double end_b = event__number(b, "ts") + event__number(b, "dur");
			bool apart = end_a <= event__number(b, "ts") + 0.002 || end_b <= event__number(a, "ts") + 0.002;
			cr_assert(apart || event__within(a, b) || event__within(b, a), "%s\n%s",
				  json_object_to_json_string(a), json_object_to_json_string(b));
		}
}

static void check_mode(const char *path, mode_t mode)
{
	struct stat st;
	cr_assert_eq(stat(path, &st), 0, "%s", path);
	cr_assert_eq(st.st_mode & 07777, mode, "%s: mode %o", path, st.st_mode);
}

Test(trace_update, every_step_is_there)
{
	static const char *const steps[] = {"look",    "plan",           "judge groups",  "lock",
					    "prepare", "make the image", "map the image", "raise the hand",
					    "freeze",  "exchange",       "commit",        "retire",
					    "mmap",    "mremap",         "updated",       "unmap the old code"};
	const char *folder = own_folder();
	setenv("LLU_TEST_SECRET", SECRET, 1);
	struct pair p = pair__begin_busy(false);
	pair__install(&p, "v2", "v2");
	struct result r = pair__llvupdate(&p, NULL);
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);

	struct lines l = lines__read(path_of("%s/trcfileLLU", folder));
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		cr_assert_not_null(lines__find(&l, steps[i], 0), "no '%s'", steps[i]);
	check_nesting(&l);
	check_mode(folder, 0700);
	check_mode(path_of("%s/trcfileLLU", folder), 0600);
	cr_assert_eq(lines__count(&l, "plan"), 2);
	cr_assert_eq(lines__count(&l, "updated"), 2);
	cr_assert(text__has(event__arg(lines__find(&l, "plan", 0), "library"), "^lib(upper|lower)\\.so\\.1$"));
	/* both threads that run stood still in the freeze, on their own tracks */
	size_t stopped = 0;
	struct json_object *prepare = lines__find(&l, "prepare", 0), *freeze = NULL;
	for (size_t i = 0; i < l.n; i++)
		if (!strcmp(event__arg(l.items[i], "to"), "exchange") && *event__arg(l.items[i], "frozen_ns"))
			freeze = l.items[i];
	cr_assert_not_null(freeze);
	for (size_t i = 0; i < l.n; i++) {
		const char *name = json_object_get_string(json_object_object_get(l.items[i], "name"));
		stopped += !strcmp(name, "stopped") && event__within(l.items[i], freeze) &&
			   number(l.items[i], "tid") != number(prepare, "tid") &&
			   number(l.items[i], "pid") == target__pid(p.target);
	}
	cr_assert_eq(stopped, strtoul(event__arg(freeze, "stopped"), NULL, 10));
	cr_assert(stopped >= 1, "%zu", stopped);
	struct json_object *borrowed = lines__find(&l, "borrowed", 0);
	cr_assert(borrowed && number(borrowed, "tid") != number(prepare, "tid"));
	lines__free(&l);
	struct result grep = command__run((const char *const[]){"grep", "-rE", SECRET "|/tmp/", folder, NULL}, 10);
	cr_assert_eq(grep.exit_code, 1, "%s", grep.out);
	result__free(&grep);
	result__free(&r);
	pair__finish(&p);
}

Test(trace_update, tries_and_what_was_in_the_way)
{
	const char *folder = own_folder();
	struct scene s = scene__begin("state", "v1");
	scene__install(&s, "v2");
	kill(target__pid(s.target), SIGSTOP);
	struct result r = scene__llvupdate(&s, (const char *const[]){"-n", "1", "-t", "1", NULL});
	cr_assert_eq(r.exit_code, 3, "%s%s", r.out, r.err);
	struct lines l = lines__read(path_of("%s/trcfileLLU", folder));
	struct json_object *e = lines__find(&l, "prepare", 0);
	cr_assert_str_eq(event__arg(e, "try"), "1");
	cr_assert_str_eq(event__arg(e, "failed"), "retry");
	cr_assert(text__has(event__arg(e, "why"), "stopped by job control"), "%s", event__arg(e, "why"));
	check_nesting(&l);
	lines__free(&l);
	result__free(&r);
	kill(target__pid(s.target), SIGCONT);
	free(target__finish(s.target));
}

Test(trace_update, a_preview_leaves_the_last_one_alone)
{
	const char *folder = own_folder();
	struct scene s = scene__begin("state", "v1");
	scene__install(&s, "v2");
	cr_assert(scene__preview_lists(&s));
	cr_assert(access(folder, F_OK) < 0);
	free(target__finish(s.target));
}

Test(trace_update, goes_on_without)
{
	const char *folder = own_folder();
	struct scene s = scene__begin("state", "v1");
	scene__install(&s, "v2");
	command__run(
	    (const char *const[]){"mkdir", "-p", path_of("%.*s", (int)(strrchr(folder, '/') - folder), folder), NULL},
	    10);
	file__write(folder, "", 0);
	struct result r = scene__llvupdate(&s, NULL);
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	cr_assert(text__has(r.err, "trcfileLLU: cannot write the trace"), "%s", r.err);
	result__free(&r);
	free(target__finish(s.target));
}
