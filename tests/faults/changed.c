/* The new file changes, or vanishes, after it was judged: what is mapped is what was judged, or nothing. And the store
 * is touched: what is mapped must be what was stored. llvupdate is stopped between plan and preparation for that. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bed.h"

TestSuite(changed, .fini = support__teardown, .timeout = 120);

/* Build 2 of libstate under its name is... */
static void vanishes(const char *path)
{
	unlink(path);
}

static void is_truncated(const char *path)
{
	file__truncate(path, 4096);
}

static void becomes_empty(const char *path)
{
	file__truncate(path, 0);
}

static void becomes_garbage(const char *path)
{
	size_t len = file__size(path);
	char *garbage = malloc(len);
	for (size_t i = 0; i < len; i++)
		garbage[i] = (char)(i * 7919 >> 3);
	file__write(path, garbage, len);
	free(garbage);
}

static void has_other_code(const char *path)
{
	static const char bytes[256];
	for (size_t at = 0; at + sizeof(bytes) < file__size(path); at += 1024)
		file__patch(path, at, bytes, sizeof(bytes));
}

static const struct {
	const char *name;
	void (*change)(const char *path);
} changes[] = {
    {"vanishes", vanishes},
    {"is truncated", is_truncated},
    {"becomes empty", becomes_empty},
    {"becomes garbage", becomes_garbage},
    {"has other code", has_other_code},
};

/* Starts llvupdate for a program on build 1 and stops it before its first step behind the plan. */
static pid_t stop_behind_the_plan(struct bed *b, const char *place)
{
	int status;
	pid_t tool = bed__start_update(b, "LLU_FAULT_STOP", place);
	cr_assert_eq(waitpid(tool, &status, WUNTRACED), tool);
	cr_assert(WIFSTOPPED(status), "llvupdate does not come to %s", place);
	return tool;
}

static int go_on(pid_t tool)
{
	kill(tool, SIGCONT);
	return command__wait(tool, 60);
}

/* The first point of what is done to a process. */
static char *first_step(struct bed *b)
{
	const char *file = path_of("%s/points", b->dir);
	bed__start(b);
	bed__install(b, 2);
	struct result r = bed__update(b, (const char *const[]){path_of("LLU_FAULT_LIST=%s", file), NULL});
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	bed__stop(b);
	struct places p = places__read(file);
	char *place = strdup(places__find(&p, "target__prepare"));
	places__free(&p);
	return place;
}

Test(changed, the_new_file_behind_the_plan)
{
	struct bed b = bed__make();
	char *place = first_step(&b);
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		const char *when = path_of("the new file %s", changes[i].name);
		bed__start(&b);
		bed__install(&b, 2);
		pid_t tool = stop_behind_the_plan(&b, place);
		changes[i].change(path_of("%s/lib/libstate.so.1", b.dir));
		int code = go_on(tool);
		/* it has read the file once, and works with what it has read */
		cr_assert_eq(code, 0, "%s: exit code %d", when, code);
		bed__is(&b, 2, when);
		bed__install(&b, 1);
		bed__updated(&b, 1, when);
		bed__stop(&b);
	}
	free(place);
}

Test(changed, another_build_takes_the_name)
{
	struct bed b = bed__make();
	char *place = first_step(&b);
	bed__start(&b);
	bed__install(&b, 2);
	pid_t tool = stop_behind_the_plan(&b, place);
	bed__install(&b, 1);
	int code = go_on(tool);
	cr_assert_eq(code, 0, "exit code %d", code);
	bed__is(&b, 2, "another build has taken the name");
	/* what stands there now is the old one: the program is outdated again, and says so */
	bed__updated(&b, 1, "another build has taken the name");
	bed__stop(&b);
	free(place);
}
