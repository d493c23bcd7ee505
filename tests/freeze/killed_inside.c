/* Law 1, with threads inside: SIGKILL of the tool at each step of a commit that moves three threads and drives out one
 * leaves the program running and right, and the next update goes through.
 *
 * The commit is made by a child of the test, which steps through its system calls and kills it at the entry or exit of
 * the first, the second, the third ... that touches the target, until it comes to its end. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"
#include "support/forked.h"
#include "tool.h"

TestSuite(killed_inside, .fini = support__teardown, .timeout = 110);

enum {
	STRIDE = 2,           /* a step has an entry and an exit */
	SWITCHED_ENOUGH = 12, /* kills after which the new code was live, one after the other */
};

static bool touches_the_target(pid_t tool)
{
	struct user_regs_struct r;
	if (ptrace(PTRACE_GETREGS, tool, 0, &r) != 0)
		return false;
	return r.orig_rax == SYS_ptrace || r.orig_rax == SYS_pwrite64;
}

/* Until it stops itself. */
static void run_to_commit(pid_t tool)
{
	int status = 0;
	int stops = 0;
	cr_assert_eq(waitpid(tool, &status, 0), tool);
	ptrace(PTRACE_SETOPTIONS, tool, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	while (stops == 0) {
		ptrace(PTRACE_CONT, tool, 0, WIFSTOPPED(status) && WSTOPSIG(status) != SIGSTOP ? WSTOPSIG(status) : 0);
		cr_assert_eq(waitpid(tool, &status, 0), tool);
		cr_assert(WIFSTOPPED(status), "the tool ends before the commit: %x", status);
		stops += WSTOPSIG(status) == SIGSTOP;
	}
}

/* Kills the tool at the `k`-th step of the commit. False: it came to its end before. */
static bool kill_at(const struct scene *s, const char *plans, unsigned k)
{
	pid_t tool = fork();
	if (tool == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(tool__update(target__pid(s->target), plans));
	}
	run_to_commit(tool);
	return forked__kill_at(tool, k, touches_the_target);
}

/* cllvupdate finds something or not, but not twice. */
static void clean_up(unsigned k)
{
	for (int i = 0; i < 2; i++) {
		struct result r = command__run((const char *const[]){COMMAND_DIR "/cllvupdate", "-u", NULL}, 60);
		cr_assert_eq(r.exit_code, 0, "step %u: %s%s", k, r.out, r.err);
		cr_assert(i == 0 || !strcmp(r.out, "No clean up is required\n"), "step %u: %s", k, r.out);
		result__free(&r);
	}
}

Test(killed_inside, at_every_step)
{
	struct scene s = scene__prepare("libdrive.so.1", fixture_library("v1", "libdrive.so.1"), BY_RENAME);
	const char *plans = path_of("%s/plans", s.dir);
	const char *builds[3] = {NULL, s.first, path_of("%s/v2", s.dir)};
	llusplit(fixture_library("v2", "libdrive.so.1"), builds[2], s.first);
	scene__start(&s, (const char *const[]){FIXTURE_DIR "/drive_driver", "1", NULL});
	int version = 1;
	unsigned k = 1;
	/* what comes after the thaw does not concern these threads */
	for (unsigned in_a_row = 0; in_a_row < SWITCHED_ENOUGH; k += STRIDE) {
		target__ask(s.target, "wait", "waiting");
		scene__install_raw(&s, builds[3 - version]);
		bool killed = kill_at(&s, plans, k);
		if (k / STRIDE % 2)
			clean_up(k);
		int after = target__round(s.target);
		cr_assert(after == version || after == 3 - version, "step %u: version %d", k, after);
		target__say(s.target, "release");
		cr_assert(text__has(target__hear(s.target), "released"), "step %u", k);
		in_a_row = after == version ? 0 : in_a_row + 1;
		version = after;
		if (!killed)
			break;
	}
	cr_log_info("%u steps", k);
	cr_assert_gt(k, 80);
	scene__install_raw(&s, builds[3 - version]);
	scene__update(&s);
	target__rounds(s.target, 2, 3 - version);
	free(target__finish(s.target));
}
