/* perf and gdb find names and frames in the code that an update brought. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "retire.h"

TestSuite(names, .fini = support__teardown);

static bool is_installed(const char *command)
{
	struct result r = command__run((const char *const[]){"which", command, NULL}, 10);
	bool yes = r.exit_code == 0;

	result__free(&r);
	return yes;
}

Test(names, perf)
{
	if (!is_installed("perf"))
		cr_skip_test("perf is not installed");
	struct scene s = park__begin();
	const char *data = path_of("%s/perf.data", s.dir), *pid = path_of("%d", target__pid(s.target));
	const char *const record[] = {"perf", "record", "-q", "-e", "cpu-clock", "-F", "20000", "-p",
				      pid,    "-o",     data, "--", "sleep",     "1",  NULL};

	update_gone(&s, 2);
	target__ask(s.target, "busy 2", "done");
	struct result r = command__run(record, 60);
	if (r.exit_code != 0)
		cr_skip_test("perf does not work here: %s", r.err);
	result__free(&r);
	r = command__run((const char *const[]){"perf", "script", "-i", data, "-F", "ip,sym,dso", NULL}, 60);
	cr_assert_eq(r.exit_code, 0, "%s", r.err);
	cr_assert(text__has(r.out, "park_call \\(/var/cache/llu/libpark"), "%s", r.out);
	result__free(&r);
	target__ask(s.target, "rest", "done");
	free(target__finish(s.target));
}

/* A thread waits below a frame of the library: the frame has its name, and those above it are found. */
Test(names, gdb)
{
	if (!is_installed("gdb"))
		cr_skip_test("gdb is not installed");
	struct scene s = park__begin();
	const char *pid = path_of("%d", target__pid(s.target)), *script = path_of("%s/symbols.gdb", s.dir);

	update_gone(&s, 2);
	target__ask(s.target, "wait", "done");
	struct result r = command__run((const char *const[]){COMMAND_DIR "/procmap", "--gdb", pid, NULL}, 60);
	cr_assert_eq(r.exit_code, 0, "%s", r.err);
	file__write(script, r.out, strlen(r.out));
	result__free(&r);
	r = command__run(
	    (const char *const[]){"gdb", "-nx", "-p", pid, "-batch", "-x", script, "-ex", "thread apply all bt", NULL},
	    120);
	cr_assert(text__has(r.out,
			    "wait_for_ever [^#]*#[0-9]+ +0x[0-9a-f]+ in park_call \\(\\)[^#]*#[0-9]+ +0x[0-9a-f]+ "
			    "in to_cancel "),
		  "%s%s", r.out, r.err);
	result__free(&r);
	target__rounds(s.target, 1, 2);
	target__kill(s.target);
}
