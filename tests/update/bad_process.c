/* Processes that cannot be updated: the reason is said, and the process is as it was. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "scene.h"

TestSuite(bad_process, .fini = support__teardown);

static struct result update_pid(const char *pid)
{
	return command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-p", pid, "-l",
						  path_of("%s/log", temp_dir()), "-n", "1", "-t", "2", NULL},
			    60);
}

/* llvupdate -p PID fails in order (no success, no signal), and says why. */
static void refuse_pid(const char *pid, const char *reason)
{
	struct result r = update_pid(pid);

	cr_assert(r.exit_code > 0 && r.exit_code <= 5, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, reason) || text__has(r.err, reason), "no word of '%s' in:\n%s%s", reason, r.out,
		  r.err);
	cr_assert(!text__has(r.out, "SUCCESS: [1-9]"), "%s", r.out);
	result__free(&r);
}

Test(bad_process, no_such_pid)
{
	/* Above the kernel's limit of PIDs: nobody can have it. */
	refuse_pid("4194305", "4194305");
}

Test(bad_process, not_a_pid)
{
	static const char *const words[] = {"twelve", "-1", "0", "12x", "", "99999999999999999999"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		struct result r = update_pid(words[i]);
		cr_assert_eq(r.exit_code, 2, "'%s': exit code %d\n%s%s", words[i], r.exit_code, r.out, r.err);
		result__free(&r);
	}
}

Test(bad_process, kernel_thread)
{
	refuse_pid("2", "kernel thread");
}

Test(bad_process, itself)
{
	struct result r = command__run(
	    (const char *const[]){"/bin/sh", "-c", "exec " COMMAND_DIR "/llvupdate -p $$ -l /dev/null", NULL}, 60);

	cr_assert(r.exit_code > 0 && r.exit_code <= 5, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "itself") || text__has(r.err, "itself"), "%s%s", r.out, r.err);
	result__free(&r);
}

Test(bad_process, program_of_32_bits)
{
	struct target *t = target__start((const char *const[]){FIXTURE_DIR "/program32", NULL}, NULL);

	/* A kernel without IA32 emulation cannot run it. */
	if (access("/proc/sys/abi/vsyscall32", F_OK) != 0 && !target__alive(t))
		cr_skip_test("32-bit programs do not run here");
	target__expect(t, "ready");
	refuse_pid(path_of("%d", target__pid(t)), "32-bit|64-bit");
	free(target__finish(t));
}

static void refuse_program(const char *program, const char *reason)
{
	struct target *t = target__start((const char *const[]){program, NULL}, NULL);

	target__expect(t, "ready");
	refuse_pid(path_of("%d", target__pid(t)), reason);
	free(target__finish(t));
}

Test(bad_process, static_program)
{
	refuse_program(FIXTURE_DIR "/static_program", "linked statically");
}

Test(bad_process, program_of_musl)
{
	refuse_program(FIXTURE_DIR "/musl_program",
		       "its dynamic loader is /lib/ld-musl-x86_64.so.1, not that of glibc");
}

Test(bad_process, nothing_split_in_it)
{
	struct target *t = target__start((const char *const[]){"/bin/cat", NULL}, NULL);

	target__ask(t, "hello", "hello");
	struct result r = update_pid(path_of("%d", target__pid(t)));
	cr_assert_eq(r.exit_code, 1, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "No process requires a Live library Update operation\\."), "%s", r.out);
	result__free(&r);
	target__ask(t, "again", "again");
	free(target__finish(t));
}

Test(bad_process, traced_by_a_debugger)
{
	struct scene s = scene__begin("state", "v1");
	pid_t pid = target__pid(s.target);

	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2");
	cr_assert_eq(ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0);
	refuse_pid(path_of("%d", pid), "[Tt]race|debugger");
	target__rounds(s.target, 2, 1);
	/* Detaching wants a stopped thread. */
	int status;
	cr_assert_eq(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
	cr_assert_eq(waitpid(pid, &status, __WALL), pid);
	cr_assert_eq(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
	target__rounds(s.target, 2, 1);
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

Test(bad_process, seccomp_forbids_it)
{
	struct scene s = scene__prepare("libstate.so.1", fixture_library("v1", "libstate.so.1"), BY_RENAME);

	scene__start(&s, (const char *const[]){FIXTURE_DIR "/seccomp_driver", NULL});
	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2");
	scene__refuse(&s, "seccomp");
	target__rounds(s.target, 3, 1);
	free(target__finish(s.target));
}

/* Another user's process: this one is root's. */
Test(bad_process, not_permitted)
{
	if (geteuid() != 0)
		cr_skip_test("only root can become another user");
	struct scene s = scene__begin("state", "v1");

	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2");
	/* From a directory that the other user may read, whatever the build directory's rights are. */
	const char *tool = path_of("%s/llvupdate", s.dir);
	file__copy(COMMAND_DIR "/llvupdate", tool);
	file__copy(COMMAND_DIR "/libllu.so.0", path_of("%s/libllu.so.0", s.dir));
	struct result r =
	    command__run((const char *const[]){"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", tool,
					       "-p", path_of("%d", target__pid(s.target)), "-l", "/dev/null", NULL},
			 60);
	cr_assert(r.exit_code == 5 || r.exit_code == 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "[Pp]ermi|allowed|root") || text__has(r.err, "[Pp]ermi|allowed|root"), "%s%s", r.out,
		  r.err);
	result__free(&r);
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}

Test(bad_process, stopped_by_job_control)
{
	struct scene s = scene__begin("state", "v1");
	pid_t pid = target__pid(s.target);
	int status;

	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2");
	kill(pid, SIGSTOP);
	cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
	/* Updated or not: it must still be stopped afterwards, and be right when it goes on. */
	struct result r = update_pid(path_of("%d", pid));
	cr_assert(r.exit_code == 0 || r.exit_code == 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	char stat_path[64], line[512];
	snprintf(stat_path, sizeof(stat_path), "/proc/%d/stat", pid);
	FILE *f = fopen(stat_path, "re");
	cr_assert(f && fgets(line, sizeof(line), f));
	fclose(f);
	cr_assert_eq(strrchr(line, ')')[2], 'T', "the process is no longer stopped: %s", line);
	kill(pid, SIGCONT);
	target__rounds(s.target, 2, r.exit_code == 0 ? 2 : 1);
	result__free(&r);
	free(target__finish(s.target));
}

static void wait_us(long us)
{
	struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	nanosleep(&ts, NULL);
}

/* The process is killed at different moments of the operation: llvupdate ends in order every time. */
Test(bad_process, exits_in_the_middle, .timeout = 180)
{
	for (int i = 0; i < 25; i++) {
		struct scene s = scene__begin("state", "v1");
		target__rounds(s.target, 1, 1);
		scene__install(&s, "v2");
		pid_t tool = command__start((const char *const[]){COMMAND_DIR "/llvupdate", "-p",
								  path_of("%d", target__pid(s.target)), "-l",
								  path_of("%s/log", s.dir), "-n", "1", NULL});
		wait_us(i * 800L);
		target__kill(s.target);
		int code = command__wait(tool, 60);
		cr_assert(code >= 0 && code <= 5, "killed after %d us: llvupdate ended with %d", i * 800, code);
		support__teardown();
	}
}

/* llvupdate itself is killed at different moments: the process runs on and is right, on the old version or
 * the new one, and the next llvupdate brings it to the new one. */
Test(bad_process, the_tool_is_killed, .timeout = 180)
{
	struct scene s = scene__prepare("libcallback.so.1", fixture_library("v1", "libcallback.so.1"), BY_RENAME);

	scene__start(&s, (const char *const[]){FIXTURE_DIR "/callback_driver", "3", NULL});
	target__rounds(s.target, 1, 1);
	int version = 1;
	for (int i = 0; i < 40; i++) {
		version = version % 3 + 1;
		int before = target__round(s.target);
		scene__install(&s, path_of("v%d", version));
		pid_t tool = command__start((const char *const[]){COMMAND_DIR "/llvupdate", "-p",
								  path_of("%d", target__pid(s.target)), "-l",
								  path_of("%s/log", s.dir), NULL});
		wait_us(i * 700L);
		kill(tool, SIGKILL);
		command__wait(tool, 60);
		int after = target__round(s.target);
		cr_assert(after == before || after == version, "killed after %d us: version %d", i * 700, after);
		if (i % 8 == 7) {
			struct result r = scene__llvupdate(&s, NULL);
			cr_assert(r.exit_code == 0 || (r.exit_code == 1 && after == version), "exit code %d\n%s%s",
				  r.exit_code, r.out, r.err);
			result__free(&r);
			target__rounds(s.target, 2, version);
		}
	}
	free(target__finish(s.target));
}

/* Two at once: one works, and is kept busy by the thread inside; the other is told so, whichever it is. */
Test(bad_process, two_operations_at_once)
{
	struct scene s = scene__begin("callback", "v1");
	bool told = false, first_ended = false;
	int first_code = -1;

	target__ask(s.target, "enter", "entered");
	scene__install(&s, "v2");
	pid_t first =
	    command__start((const char *const[]){COMMAND_DIR "/llvupdate", "-p", path_of("%d", target__pid(s.target)),
						 "-n", "1", "-t", "60", "-l", path_of("%s/log", s.dir), NULL});
	while (!told) {
		struct result r = scene__llvupdate(&s, (const char *const[]){"-n", "1", "-t", "1", NULL});
		told = r.exit_code == 5;
		/* 3: this one was alone, since the first had not begun, or had been turned away by the one before. */
		cr_assert(told || r.exit_code == 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
		result__free(&r);
		if (!told && command__ended(first, &first_code)) {
			cr_assert_eq(first_code, 5, "the first ended with %d", first_code);
			told = first_ended = true;
		}
	}
	target__ask(s.target, "leave", "left");
	if (first_ended)
		scene__update(&s);
	else
		cr_assert_eq(command__wait(first, 90), 0);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}
