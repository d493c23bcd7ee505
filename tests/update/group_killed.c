/* Law 1 for several libraries at once: SIGKILL of llvupdate at any instant, and calls that fail in the middle of the
 * exchange, leave both libraries old or both new, and the next update works. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pair.h"

TestSuite(group_killed, .fini = support__teardown, .timeout = 300);

static const char llvupdate[] = COMMAND_DIR "/llvupdate";

/* ---- killed ---- */

static bool touches_the_target(pid_t tool)
{
	struct user_regs_struct r;
	if (ptrace(PTRACE_GETREGS, tool, 0, &r) != 0)
		return false;
	switch (r.orig_rax) {
	case SYS_ptrace:
	case SYS_wait4:
	case SYS_pwrite64:
		return true;
	default:
		return false;
	}
}

static pid_t start_tool(struct target *t, const char *dir)
{
	const char *pid = path_of("%d", target__pid(t)), *log = path_of("%s/log", dir);
	pid_t tool = fork();
	int status;

	if (tool == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		freopen("/dev/null", "w", stdout);
		execl(llvupdate, "llvupdate", "-p", pid, "-l", log, (char *)NULL);
		_exit(127);
	}
	cr_assert_eq(waitpid(tool, &status, 0), tool);
	cr_assert(WIFSTOPPED(status), "llvupdate does not start");
	ptrace(PTRACE_SETOPTIONS, tool, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	return tool;
}

/* Starts llvupdate and kills it at the `k`-th entry or exit of a call that touches the target. False: it came to its
 * end before, with *exit_code. */
static bool kill_at(struct target *t, const char *dir, unsigned k, int *exit_code)
{
	int status = 0;
	long signal = 0;
	pid_t tool = start_tool(t, dir);

	for (unsigned n = 0; n < k;) {
		ptrace(PTRACE_SYSCALL, tool, 0, signal);
		cr_assert_eq(waitpid(tool, &status, 0), tool);
		if (WIFEXITED(status)) {
			*exit_code = WEXITSTATUS(status);
			return false;
		}
		cr_assert(WIFSTOPPED(status), "llvupdate is killed");
		int sig = WSTOPSIG(status);
		signal = sig == (SIGTRAP | 0x80) || sig == SIGTRAP ? 0 : sig;
		if (sig == (SIGTRAP | 0x80) && touches_the_target(tool))
			n++;
	}
	kill(tool, SIGKILL);
	while (waitpid(tool, &status, 0) == tool && WIFSTOPPED(status))
		;
	return true;
}

static size_t count_threads(pid_t pid)
{
	DIR *d = opendir(path_of("/proc/%d/task", pid));
	size_t n = 0;

	for (struct dirent *e; d && (e = readdir(d));)
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

/* The hand that a killed tool leaves goes away by itself. */
static void wait_for_the_hand(struct target *t)
{
	int64_t deadline = support__now_ms() + 10000;

	while (count_threads(target__pid(t)) > 1) {
		cr_assert_lt(support__now_ms(), deadline, "the hand stays");
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	}
}

Test(group_killed, at_every_step)
{
	struct pair p = pair__begin();
	int live = 1, exit_code = 0;
	unsigned k = 1;

	for (;; k++) {
		int next = live == 1 ? 2 : 1;
		pair__install(&p, path_of("v%d", next), path_of("v%d", next));
		bool killed = kill_at(p.target, p.upper.dir, k, &exit_code);
		cr_assert_eq(exit_code, 0, "llvupdate ends with %d", exit_code);
		wait_for_the_hand(p.target);
		int now = target__round(p.target);
		cr_assert(now == live || now == next, "killed at step %u: %d on the way from %d to %d", k, now, live,
			  next);
		struct result r = pair__llvupdate(&p, NULL);
		cr_assert_eq(r.exit_code, now == next ? 1 : 0, "killed at step %u: exit code %d\n%s%s", k, r.exit_code,
			     r.out, r.err);
		result__free(&r);
		target__rounds(p.target, 1, next);
		live = next;
		if (!killed)
			break;
	}
	cr_assert_gt(k, 100, "only %u steps", k);
	pair__finish(&p);
}

/* Busy threads, and instants as they come. */
Test(group_killed, at_any_instant)
{
	struct pair p = pair__begin_busy(true);
	const char *pid = path_of("%d", target__pid(p.target)), *log = path_of("%s/log", p.upper.dir);
	int live = 1;

	for (int i = 0; i < 40; i++) {
		int next = live == 1 ? 2 : 1;
		pair__install(&p, path_of("v%d", next), path_of("v%d", next));
		pid_t tool = command__start((const char *const[]){llvupdate, "-p", pid, "-l", log, NULL});
		nanosleep(&(struct timespec){.tv_nsec = i * 700000L}, NULL);
		kill(tool, SIGKILL);
		command__wait(tool, 60);
		struct result r = pair__llvupdate(&p, NULL);
		cr_assert(r.exit_code == 0 || r.exit_code == 1, "killed after %d us: exit code %d\n%s%s", i * 700,
			  r.exit_code, r.out, r.err);
		result__free(&r);
		target__rounds(p.target, 1, next);
		live = next;
	}
	pair__finish(&p);
}

/* ---- calls that fail ---- */

/* Has the driver seal the pages of a library's VAPI part, so that nothing can be moved there. */
static void seal(struct target *t, const char *library, const char *part)
{
	struct result r =
	    command__run((const char *const[]){COMMAND_DIR "/procmap", path_of("%d", target__pid(t)), NULL}, 60);
	const char *end = path_of("  %s(%s)\n", library, part), *line = strstr(r.out, end);
	unsigned long from, to;
	char *after;

	cr_assert_not_null(line, "no '%s' in:\n%s", end, r.out);
	while (line > r.out && line[-1] != '\n')
		line--;
	from = strtoul(line, &after, 16);
	to = strtoul(after + 1, NULL, 16);
	cr_assert(*after == '-' && to > from, "%s", line);
	result__free(&r);
	target__say(t, path_of("seal 0x%lx 0x%lx", from, to - from));
	if (strcmp(target__hear(t), "sealed") != 0)
		cr_skip_test("this kernel has no mseal(2)");
}

/* The exchange stops there: afterwards both are of `version`, and can go on from there unless what they would need
 * is still sealed. */
static void stop_at(const char *library, const char *part, int version)
{
	struct pair p = pair__begin();

	seal(p.target, library, part);
	pair__install(&p, "v2", "v2");
	struct result r = pair__llvupdate(&p, (const char *const[]){"-n", "1", NULL});
	cr_assert_eq(r.exit_code, 4, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "could not exchange its pages"), "%s", r.out);
	result__free(&r);
	target__rounds(p.target, 2, version);
	cr_assert_eq(scene__preview_lists(&p.upper), version == 1);
	cr_assert_eq(scene__preview_lists(&p.lower), version == 1);
	pair__finish(&p);
}

Test(group_killed, the_first_table_cannot_be_moved)
{
	stop_at("liblower.so.1", "VAPI table", 1);
}

Test(group_killed, the_first_header_cannot_be_moved)
{
	stop_at("liblower.so.1", "VAPI header", 2);
}

Test(group_killed, the_second_table_cannot_be_moved)
{
	stop_at("libupper.so.1", "VAPI table", 2);
}

Test(group_killed, the_second_header_cannot_be_moved)
{
	stop_at("libupper.so.1", "VAPI header", 2);
}

/* Both at once: llvupdate is killed, and the exchange stops at the table. The read-only data that was moved by then
 * refers to the new image, so the next update must not take that away. */
Test(group_killed, where_the_table_cannot_be_moved)
{
	unsigned refused = 0;
	bool killed = true;

	for (unsigned k = 1; killed;) {
		struct scene s = scene__begin("state", "v1");
		struct result r = {0};
		int exit_code = 4;
		target__rounds(s.target, 1, 1);
		seal(s.target, s.library, "VAPI table");
		scene__install(&s, "v2");
		for (; killed && r.exit_code != 3; k++) {
			killed = kill_at(s.target, s.dir, k, &exit_code);
			cr_assert_eq(exit_code, 4, "llvupdate ends with %d", exit_code);
			wait_for_the_hand(s.target);
			result__free(&r);
			r = scene__llvupdate(&s, (const char *const[]){"-n", "1", NULL});
			cr_assert(r.exit_code == 4 || r.exit_code == 3, "exit code %d\n%s%s", r.exit_code, r.out,
				  r.err);
			/* reads what the tables refer to */
			target__ask(s.target, "rodata", "rodata same");
			if (r.exit_code == 4)
				target__rounds(s.target, 1, 1);
		}
		if (killed) {
			cr_assert(text__has(r.out, "an update was interrupted"), "%s", r.out);
			refused++;
		}
		result__free(&r);
		target__kill(s.target);
	}
	cr_assert_gt(refused, 0);
}
