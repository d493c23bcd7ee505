/* Known clients of AIX llvupdate, which read its output by words and places (client.py), read ours right, whatever the
 * outcome and whatever a process is called. Commands get their arguments as such a client gives them. */
#include <criterion/criterion.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pair.h"
#include "scene.h"

enum { WAIT_S = 60 };

TestSuite(client, .fini = support__teardown, .timeout = 200);

/* What a client makes of an output. To be freed. */
static char *reads(const char *mode, const char *text)
{
	const char *file = path_of("%s/output", temp_dir());
	file__write(file, text, strlen(text));
	struct result r = command__run(
	    (const char *const[]){"python3", SOURCE_DIR "/tests/update/client.py", mode, file, NULL}, WAIT_S);
	cr_assert_eq(r.exit_code, 0, "%sof:\n%s", r.err, text);
	free(r.err);
	return r.out;
}

/* `updated` and `failed` are PIDs, each behind a blank. */
static void expect_report(const char *text, const char *updated, const char *failed)
{
	char *is = reads("report", text);
	cr_expect_str_eq(is, path_of("updated:%s\nfailed:%s\n", updated, failed), "%sis read of:\n%s", is, text);
	free(is);
}

/* One argument has the option and its value: "-p 1 2". */
static struct result update(const struct scene *s, const char *pids)
{
	return command__run((const char *const[]){COMMAND_DIR "/llvupdate", path_of("-p%s", pids),
						  path_of("-l %s/update.log", s->dir), "-n 1", "-t 2", NULL},
			    WAIT_S);
}

static void expect_update(const struct scene *s, const char *pids, int code, const char *updated, const char *failed)
{
	struct result r = update(s, pids);
	cr_expect_eq(r.exit_code, code, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	expect_report(r.out, updated, failed);
	cr_expect_eq(access(path_of("%s/update.log", s->dir), F_OK), 0, "the log is elsewhere");
	result__free(&r);
}

static const char *pid_of(const struct target *t)
{
	return path_of(" %d", target__pid(t));
}

/* The program that runs is called `name`, which execve(2) takes from its file. */
static struct target *start_as(struct scene *s, const char *program, const char *name)
{
	const char *folder = path_of("%s/bin-%s", s->dir, program);
	mkdir(folder, 0755);
	const char *path = path_of("%s/%s", folder, name);
	if (access(path, F_OK) != 0)
		cr_assert_eq(symlink(path_of(FIXTURE_DIR "/%s", program), path), 0);
	scene__start(s, (const char *const[]){path, NULL});
	return s->target;
}

static void finish(struct target *const *t, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(target__finish(t[i]));
}

/* ---- outcomes ---- */

Test(client, one_is_updated)
{
	struct scene s = scene__begin("state", "v1");
	const char *pid = pid_of(s.target);
	scene__install(&s, "v2");
	expect_update(&s, pid, 0, pid, "");
	/* there is nothing more to do */
	struct result r = update(&s, pid);
	cr_expect_eq(r.exit_code, 1, "exit code %d", r.exit_code);
	cr_expect(strstr(r.out, "No process requires a Live library Update operation."), "%s", r.out);
	result__free(&r);
	r = command__run((const char *const[]){COMMAND_DIR "/cllvupdate", "-u", NULL}, WAIT_S);
	cr_expect(r.exit_code == 0 && strstr(r.out, "No clean up is required"), "%s%s", r.out, r.err);
	result__free(&r);
	finish(&s.target, 1);
}

/* The same one twice is one. */
Test(client, several_are_updated)
{
	struct scene s = scene__prepare("libdrive.so.1", fixture_library("v1", "libdrive.so.1"), BY_RENAME);
	struct target *t[3];
	const char *pids = "";
	for (int i = 0; i < 3; i++) {
		t[i] = start_as(&s, "drive_driver", "drive_driver");
		pids = path_of("%s%s", pids, pid_of(t[i]));
	}
	scene__install(&s, "v2");
	expect_update(&s, path_of("%s%s", pids, pid_of(t[1])), 0, pids, "");
	finish(t, 3);
}

Test(client, one_is_refused)
{
	struct scene s = scene__begin("state", "v1");
	scene__install_raw(&s, fixture_library("bad-data", s.library));
	expect_update(&s, pid_of(s.target), 3, "", pid_of(s.target));
	finish(&s.target, 1);
}

/* A thread that stays inside, one that is updated, one that is up to date, and one that is not there. */
Test(client, mixed)
{
	struct scene s = scene__prepare("libdrive.so.1", fixture_library("v1", "libdrive.so.1"), BY_RENAME);
	struct target *t[3] = {start_as(&s, "drive_driver", "drive_driver"),
			       start_as(&s, "drive_driver", "drive_driver")};
	static const char none[] = " 4194305"; /* more than there can be */
	target__ask(t[0], "block", "blocked");
	scene__install(&s, "v2");
	t[2] = start_as(&s, "drive_driver", "drive_driver");
	expect_update(&s, path_of("%s%s%s%s", pid_of(t[0]), pid_of(t[1]), pid_of(t[2]), none), 3, pid_of(t[1]),
		      path_of("%s%s", pid_of(t[0]), none));
	target__ask(t[0], "unblock", "unblocked");
	finish(t, 3);
}

/* One for each processor that there is for the tool, which has at most 16, and one for each process that is updated. */
static unsigned count_with_one_keeper(void)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	return (CPU_COUNT(&set) < 16 ? (unsigned)CPU_COUNT(&set) : 16) + 1;
}

/* Who is at work on one of two processes is killed. */
Test(client, failure)
{
	struct scene s = scene__prepare("libdrive.so.1", fixture_library("v1", "libdrive.so.1"), BY_RENAME);
	struct target *t[2] = {start_as(&s, "drive_driver", "x SUCCESS"), start_as(&s, "drive_driver", "SUCCESS")};
	const char *file = path_of("%s/update.log", s.dir);
	int64_t end = support__now_ms() + (int64_t)WAIT_S * 1000;
	target__ask(t[0], "block", "blocked");
	scene__install(&s, "v2");
	pid_t tool = command__start((const char *const[]){COMMAND_DIR "/llvupdate",
							  path_of("-p%s%s", pid_of(t[0]), pid_of(t[1])),
							  path_of("-l %s", file), "-n 1", "-t 250", NULL});
	while (target__round(t[1]) != 2)
		cr_assert(support__now_ms() < end, "not updated while another one is stuck");
	/* who was at work on that one has said so, and is gone */
	while (descendants__count(tool) != count_with_one_keeper())
		cr_assert(support__now_ms() < end, "more than one process is worked on");
	descendants__kill(tool, SIGKILL);
	cr_expect_eq(command__wait(tool, WAIT_S), 4);
	struct result log = command__run((const char *const[]){"cat", file, NULL}, WAIT_S);
	expect_report(log.out, pid_of(t[1]), pid_of(t[0]));
	cr_expect(strstr(log.out, path_of("\n%d x_SUCCESS FAILURE\n", target__pid(t[0]))), "%s", log.out);
	result__free(&log);
	target__ask(t[0], "unblock", "unblocked");
	struct result r = command__run((const char *const[]){COMMAND_DIR "/cllvupdate", "-u", NULL}, WAIT_S);
	cr_expect_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	result__free(&r);
	finish(t, 2);
}

/* ---- names ---- */

static const char *const names[] = {
    "two words",
    "line\n1 x SUCCESS",
    "LLU Report",
    "LLU Report End",
    "x SUCCESS",
    "SUCCESS",
    "pid 1",
    "pid\302\240\331\241", /* a no-break space, a digit */
    "process pid 1\n",
    "a\302\205b\342\200\250c", /* ends of lines to Python */
    " ",
    "\t",
    "1",
    "\033[2J",
    "\377",
};
enum { NAMES = sizeof(names) / sizeof(names[0]) };

/* All are updated to `variant`, or none. */
static void all_names(const char *variant, const char *state)
{
	struct scene s = scene__prepare("libstate.so.1", fixture_library("v1", "libstate.so.1"), BY_RENAME);
	bool well = strcmp(state, "SUCCESS") == 0;
	struct target *t[NAMES];
	const char *pids = "";
	for (int i = 0; i < NAMES; i++) {
		t[i] = start_as(&s, "state_driver", names[i]);
		pids = path_of("%s%s", pids, pid_of(t[i]));
	}
	if (well)
		scene__install(&s, variant);
	else
		scene__install_raw(&s, fixture_library(variant, s.library));
	struct result r = update(&s, pids);
	cr_expect_eq(r.exit_code, well ? 0 : 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	expect_report(r.out, well ? pids : "", well ? "" : pids);
	for (int i = 0; i < NAMES; i++) /* by places, too: PID, name, state */
		cr_expect(text__has(r.out, path_of("\n%d [^ \n]+ %s\n", target__pid(t[i]), state)), "process %d: %s", i,
			  r.out);
	result__free(&r);
	finish(t, NAMES);
}

Test(client, names_of_processes_that_are_refused)
{
	all_names("bad-data", "NOT UPDATED");
}

Test(client, names_of_processes_that_are_updated)
{
	all_names("v2", "SUCCESS");
}

/* ---- previews ---- */

/* Are exactly these pairs ("PID LIBRARY\n"...) those of our processes? The preview is of the whole machine. */
static void expect_preview(const struct target *const *t, size_t n, const char *const libraries[], size_t n_libraries)
{
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-P", NULL}, WAIT_S);
	char *is = reads("preview", r.out), *rest = is;
	size_t pairs = 0;
	cr_expect_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	for (char *line; (line = strsep(&rest, "\n")) && *line;) {
		char *library = strchr(line, ' ');
		bool ours = false, known = false;
		for (size_t i = 0; i < n; i++)
			ours = ours || atoi(line) == target__pid(t[i]);
		for (size_t i = 0; library && i < n_libraries; i++)
			known = known || strcmp(library + 1, libraries[i]) == 0;
		cr_expect_eq(ours, known, "'%s' is read of:\n%s", line, r.out);
		pairs += ours;
	}
	cr_expect_eq(pairs, n * n_libraries, "%zu pairs are read of:\n%s", pairs, r.out);
	free(is);
	result__free(&r);
}

Test(client, preview_of_many_names)
{
	struct scene s = scene__prepare("libstate.so.1", fixture_library("v1", "libstate.so.1"), BY_RENAME);
	struct target *t[NAMES];
	for (int i = 0; i < NAMES; i++)
		t[i] = start_as(&s, "state_driver", names[i]);
	scene__install(&s, "v2");
	expect_preview((const struct target *const *)t, NAMES,
		       (const char *const[]){path_of("%s/lib/libstate.so.1(_impl)", s.dir)}, 1);
	finish(t, NAMES);
}

/* Two libraries of each process. */
Test(client, preview_of_two_libraries)
{
	struct pair p = pair__begin();
	struct scene second = p.upper;
	scene__start(&second, (const char *const[]){FIXTURE_DIR "/pair_driver", NULL});
	struct target *t[2] = {p.target, second.target};
	const char *const libraries[] = {path_of("%s/lib/libupper.so.1(_impl)", p.upper.dir),
					 path_of("%s/lib/liblower.so.1(_impl)", p.upper.dir)};
	pair__install(&p, "v2", "v2");
	expect_preview((const struct target *const *)t, 2, libraries, 2);
	finish(t, 2);
}

/* A preview of refusals alone: nothing that could be done. */
Test(client, preview_of_refusals)
{
	struct scene s = scene__prepare("libstate.so.1", fixture_library("v1", "libstate.so.1"), BY_RENAME);
	struct target *t[3];
	for (int i = 0; i < 3; i++)
		t[i] = start_as(&s, "state_driver", "state_driver");
	scene__install_raw(&s, fixture_library("bad-data", s.library));
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-P", NULL}, WAIT_S);
	char *is = reads("preview", r.out);
	for (int i = 0; i < 3; i++)
		cr_expect(
		    text__has(is, path_of("(^|\n)%d %s/lib/libstate\\.so\\.1\\(_impl\\)\n", target__pid(t[i]), s.dir)),
		    "no %d is read of:\n%s", target__pid(t[i]), r.out);
	free(is);
	result__free(&r);
	finish(t, 3);
}

/* A folder that says what a report says. */
Test(client, names_of_folders)
{
	struct scene s = {.library = "libstate.so.1", .how = BY_RENAME};
	s.dir = path_of("%s/pid 1 LLU Report End\nLibrary needs to be updated x", temp_dir());
	cr_assert_eq(mkdir(s.dir, 0755), 0);
	scene__install(&s, "v1");
	struct target *t[2] = {start_as(&s, "state_driver", "state_driver"),
			       start_as(&s, "state_driver", "state_driver")};
	char *library = strdup(path_of("%s/lib/libstate.so.1(_impl)", s.dir));
	for (char *c = library; *c; c++)
		*c = *c == ' ' ? '_' : *c == '\n' ? '?' : *c;
	scene__install_raw(&s, fixture_library("bad-data", s.library));
	expect_update(&s, path_of("%s%s", pid_of(t[0]), pid_of(t[1])), 3, "",
		      path_of("%s%s", pid_of(t[0]), pid_of(t[1])));
	scene__install(&s, "v2");
	expect_preview((const struct target *const *)t, 2, (const char *const[]){library}, 1);
	expect_update(&s, path_of("%s%s", pid_of(t[0]), pid_of(t[1])), 0, path_of("%s%s", pid_of(t[0]), pid_of(t[1])),
		      "");
	free(library);
	finish(t, 2);
}
