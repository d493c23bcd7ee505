/* Many processes at once: one that is stuck, or ends the process of ours that is at work on it, is a matter of its own.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scene.h"

enum { MANY = 6, WAIT_S = 60 };

TestSuite(many, .fini = support__teardown, .timeout = 200);

struct many {
	struct scene scene;
	struct target *targets[MANY]; /* the first of them stays in what changes, until it is told to leave */
	const char *pids;
};

static struct many begin(void)
{
	struct many m = {.scene = scene__prepare("libdrive.so.1", fixture_library("v1", "libdrive.so.1"), BY_RENAME)};
	m.pids = "";
	for (int i = 0; i < MANY; i++) {
		scene__start(&m.scene, (const char *const[]){FIXTURE_DIR "/drive_driver", NULL});
		m.targets[i] = m.scene.target;
		m.pids = path_of("%s %d", m.pids, target__pid(m.targets[i]));
	}
	target__ask(m.targets[0], "block", "blocked");
	scene__install(&m.scene, "v2");
	return m;
}

static const char *log_of(const struct many *m)
{
	return path_of("%s/log", m->scene.dir);
}

static pid_t start(const struct many *m, const char *seconds)
{
	return command__start((const char *const[]){COMMAND_DIR "/llvupdate", "-p", m->pids, "-n", "1", "-t", seconds,
						    "-l", log_of(m), NULL});
}

/* Until all but the first run the new code. */
static void await_others(const struct many *m)
{
	int64_t end = support__now_ms() + (int64_t)WAIT_S * 1000;
	for (int i = 1; i < MANY; i++)
		while (target__round(m->targets[i]) != 2)
			cr_assert(support__now_ms() < end, "not updated while another one is stuck");
}

static char *read_log(const struct many *m)
{
	char *text = calloc(1, 1 << 16);
	FILE *f = fopen(log_of(m), "r");
	cr_assert(f && fread(text, 1, (1 << 16) - 1, f) > 0);
	fclose(f);
	return text;
}

/* Until that is in the log. */
static void await_log(const struct many *m, const char *words)
{
	int64_t end = support__now_ms() + (int64_t)WAIT_S * 1000;
	for (bool there = false; !there;) {
		char text[1 << 14] = "";
		FILE *f = fopen(log_of(m), "r");
		there = f && fread(text, 1, sizeof(text) - 1, f) > 0 && strstr(text, words);
		if (f)
			fclose(f);
		cr_assert(support__now_ms() < end, "the log never says: %s", words);
	}
}

static void expect_state(const struct many *m, const char *log, int i, const char *state)
{
	char *is = report_state(log, target__pid(m->targets[i]));
	cr_expect_str_eq(is, state, "process %d is '%s':\n%s", i, is, log);
	free(is);
}

static void finish(struct many *m)
{
	for (int i = 0; i < MANY; i++)
		free(target__finish(m->targets[i]));
}

Test(many, one_that_is_stuck_holds_up_nobody)
{
	struct many m = begin();
	int code;
	pid_t tool = start(&m, "250");
	await_others(&m);
	cr_assert(!command__ended(tool, &code), "it has not waited for the one that is stuck");
	target__ask(m.targets[0], "unblock", "unblocked");
	cr_assert_eq(command__wait(tool, WAIT_S), 0);
	char *log = read_log(&m);
	for (int i = 0; i < MANY; i++)
		expect_state(&m, log, i, "SUCCESS");
	cr_expect(text__has(log, "tonotify:6\n.*suspended:6\n.*updated:6\n"), "%s", log);
	free(log);
	target__rounds(m.targets[0], 1, 2);
	finish(&m);
}

/* In the order in which they were asked for, whoever came first. */
Test(many, the_stuck_one_is_named)
{
	struct many m = begin();
	pid_t tool = start(&m, "3");
	cr_assert_eq(command__wait(tool, WAIT_S), 3);
	char *log = read_log(&m);
	expect_state(&m, log, 0, "NOT UPDATED");
	for (int i = 1; i < MANY; i++)
		expect_state(&m, log, i, "SUCCESS");
	cr_expect(text__has(log, path_of("%d drive_driver NOT UPDATED\n%d drive_driver SUCCESS\n",
					 target__pid(m.targets[0]), target__pid(m.targets[1]))),
		  "%s", log);
	cr_expect(
	    text__has(log, "called from drive_block \\(changed in the new build[^\n]*\n  run llvupdate again later"),
	    "%s", log);
	free(log);
	target__ask(m.targets[0], "unblock", "unblocked");
	finish(&m);
}

/* The processes of ours that do the work. */
Test(many, who_does_the_work_is_killed)
{
	struct many m = begin();
	pid_t tool = start(&m, "250");
	await_others(&m);
	descendants__kill(tool, SIGKILL);
	cr_assert_eq(command__wait(tool, WAIT_S), 4);
	char *log = read_log(&m);
	expect_state(&m, log, 0, "FAILURE");
	cr_expect(text__has(log, "llvupdate's own process that was at work on it was ended by signal 9"), "%s", log);
	cr_expect(text__has(log, "run cllvupdate -u"), "%s", log);
	free(log);
	struct result r = command__run((const char *const[]){COMMAND_DIR "/cllvupdate", "-u", NULL}, WAIT_S);
	cr_expect_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	result__free(&r);
	target__ask(m.targets[0], "unblock", "unblocked");
	target__rounds(m.targets[0], 1, 1);
	m.scene.target = m.targets[0];
	scene__update(&m.scene);
	target__rounds(m.targets[0], 1, 2);
	finish(&m);
}

/* They go on: a process could stand still for as long as they do. */
Test(many, who_does_the_work_is_stopped)
{
	struct many m = begin();
	pid_t tool = start(&m, "250");
	await_others(&m);
	descendants__kill(tool, SIGSTOP);
	target__ask(m.targets[0], "unblock", "unblocked");
	cr_assert_eq(command__wait(tool, WAIT_S), 0);
	target__rounds(m.targets[0], 1, 2);
	finish(&m);
}

/* Ctrl-Z reaches all of them: nobody stops, with processes that stand still for it. */
Test(many, a_terminal_does_not_stop_it)
{
	struct many m = begin();
	static const int signals[] = {SIGTSTP, SIGTTIN, SIGTTOU};
	pid_t tool = start(&m, "250");
	await_others(&m);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		descendants__kill(tool, signals[i]);
		kill(tool, signals[i]);
	}
	target__ask(m.targets[0], "unblock", "unblocked");
	cr_assert_eq(command__wait(tool, WAIT_S), 0);
	target__rounds(m.targets[0], 1, 2);
	finish(&m);
}

/* A terminal's Ctrl-C reaches all of them; a session that is lost, too. */
static void tell_all(pid_t tool, int signal)
{
	descendants__kill(tool, signal);
	kill(tool, signal);
}

static void ends_with_its_report(int signal)
{
	struct many m = begin();
	pid_t tool = command__start((const char *const[]){COMMAND_DIR "/llvupdate", "-p", m.pids, "-n", "3", "-t", "4",
							  "-l", log_of(&m), NULL});
	await_others(&m);
	tell_all(tool, SIGHUP);
	tell_all(tool, signal);
	cr_assert_eq(command__wait(tool, WAIT_S), 3);
	char *log = read_log(&m);
	expect_state(&m, log, 0, "NOT UPDATED");
	for (int i = 1; i < MANY; i++)
		expect_state(&m, log, i, "SUCCESS");
	cr_expect(text__has(log, "End of try 1/3, number of processes to be retried 1\n"), "%s", log);
	cr_expect(!strstr(log, "TRY 2"), "%s", log);
	free(log);
	target__ask(m.targets[0], "unblock", "unblocked");
	target__rounds(m.targets[0], 1, 1);
	finish(&m);
}

Test(many, interrupted_it_ends_with_its_report)
{
	ends_with_its_report(SIGINT);
}

Test(many, terminated_it_ends_with_its_report)
{
	ends_with_its_report(SIGTERM);
}

static bool blocks(pid_t pid, int signal)
{
	char text[4096] = "";
	FILE *f = fopen(path_of("/proc/%d/status", pid), "r");
	cr_assert(f && fread(text, 1, sizeof(text) - 1, f) > 0);
	fclose(f);
	return strtoull(strstr(text, "SigBlk:") + 7, NULL, 16) >> (signal - 1) & 1;
}

Test(many, interrupted_twice_it_ends_at_once)
{
	struct many m = begin();
	pid_t tool = start(&m, "250");
	await_others(&m);
	cr_assert(blocks(tool, SIGINT));
	tell_all(tool, SIGINT);
	for (int64_t end = support__now_ms() + (int64_t)WAIT_S * 1000; blocks(tool, SIGINT);)
		cr_assert(support__now_ms() < end, "it does not hear the first");
	tell_all(tool, SIGINT);
	cr_assert_eq(command__wait(tool, WAIT_S), -SIGINT);
	target__ask(m.targets[0], "unblock", "unblocked");
	finish(&m);
}

/* The signal is there, blocked, when the command begins: it is heard before the first try. */
static void ended_before_it_begins(const char *pids, const struct many *m, int n)
{
	static const char script[] = "import os, signal, sys\n"
				     "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
				     "os.kill(os.getpid(), signal.SIGTERM)\n"
				     "os.execv(sys.argv[1], sys.argv[1:])\n";
	struct result r = command__run(
	    (const char *const[]){"python3", "-c", script, COMMAND_DIR "/llvupdate", "-p", pids, "-l", log_of(m), NULL},
	    WAIT_S);
	cr_assert_eq(r.exit_code, 3, "%s%s", r.out, r.err);
	for (int i = 0; i < n; i++) {
		expect_state(m, r.out, i, "NOT UPDATED");
		cr_expect(
		    text__has(r.out, path_of("\nProcess drive_driver pid %d: the operation was ended before its turn "
					     "came\n *run llvupdate again",
					     target__pid(m->targets[i]))),
		    "%s", r.out);
	}
	cr_expect(!strstr(r.out, "TRY 1"), "%s", r.out);
	result__free(&r);
}

Test(many, ended_before_their_turn)
{
	struct many m = begin();
	ended_before_it_begins(m.pids, &m, MANY);
	ended_before_it_begins(path_of("%d", target__pid(m.targets[0])), &m, 1);
	target__ask(m.targets[0], "unblock", "unblocked");
	for (int i = 0; i < MANY; i++)
		target__rounds(m.targets[i], 1, 1);
	finish(&m);
}

/* Whoever kills the command has killed all of it: the process may be updated by another one at once. `stopped`: all of
 * it was stopped before. */
static void kill_the_command(bool stopped)
{
	struct many m = begin();
	pid_t tool = start(&m, "250");
	await_others(&m);
	if (stopped) {
		cr_assert_eq(kill(tool, SIGSTOP), 0);
		descendants__kill(tool, SIGSTOP);
	}
	cr_assert_eq(kill(tool, SIGKILL), 0);
	cr_assert_eq(command__wait(tool, WAIT_S), -SIGKILL);
	struct result r;
	int64_t end = support__now_ms() + (int64_t)WAIT_S * 1000;
	do { /* busy for as long as the last one of its processes is dying */
		r = command__run((const char *const[]){COMMAND_DIR "/cllvupdate", "-u", NULL}, WAIT_S);
		cr_assert(r.exit_code == 0 || (r.exit_code == 5 && support__now_ms() < end), "%s%s", r.out, r.err);
		result__free(&r);
	} while (r.exit_code != 0);
	target__ask(m.targets[0], "unblock", "unblocked"); /* not before: what is dying could still finish it */
	m.scene.target = m.targets[0];
	scene__update(&m.scene);
	target__rounds(m.targets[0], 1, 2);
	finish(&m);
}

Test(many, the_command_is_killed)
{
	kill_the_command(false);
}

Test(many, the_command_is_stopped_and_killed)
{
	kill_the_command(true);
}

/* ---- what there is too little of, and what changes meanwhile ---- */

/* $1 is llvupdate, $2 the PIDs, $3 the log. */
static struct result run_script(const struct many *m, const char *script)
{
	return command__run(
	    (const char *const[]){"bash", "-c", script, "bash", COMMAND_DIR "/llvupdate", m->pids, log_of(m), NULL},
	    WAIT_S);
}

/* Who is stuck holds a file of the command's for as long as there are tries. */
Test(many, few_files)
{
	struct many m = begin();
	for (int i = 1; i < MANY; i++)
		target__ask(m.targets[i], "block", "blocked");
	struct result r = run_script(&m, "ulimit -Sn 10; exec \"$1\" -p \"$2\" -n 1 -t 1 -l \"$3\"");
	cr_expect_eq(r.exit_code, 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_expect(strstr(r.out, "NOT UPDATED: 6 FAILURE: 0"), "%s", r.out);
	cr_expect(!strstr(r.out, "Too many open files"), "%s", r.out);
	result__free(&r);
	/* where there are no more to be had: nothing was done, and that is said */
	r = run_script(&m, "ulimit -n 10; exec \"$1\" -p \"$2\" -n 1 -t 1 -l \"$3\"");
	cr_expect_eq(r.exit_code, 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_expect(strstr(r.out, "NOT UPDATED: 6 FAILURE: 0"), "%s", r.out);
	cr_expect(strstr(r.out, "Too many open files"), "%s", r.out);
	result__free(&r);
	for (int i = 0; i < MANY; i++) {
		target__ask(m.targets[i], "unblock", "unblocked");
		target__rounds(m.targets[i], 1, 1);
	}
	finish(&m);
}

/* Without a process of its own it does one after the other itself. */
Test(many, few_processes)
{
	if (geteuid() != 0)
		cr_skip_test("only root can be another user");
	struct result r =
	    command__run((const char *const[]){"setpriv", "--reuid=54321", "--clear-groups", "prlimit", "--nproc=0",
					       COMMAND_DIR "/llvupdate", "-p", "1 4194305", NULL},
			 WAIT_S);
	cr_expect_eq(r.exit_code, 5, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_expect(strstr(r.out, "\n1 - NOT UPDATED\n4194305 - NOT UPDATED\n"), "%s%s", r.out, r.err);
	cr_expect(text__has(r.out, "Cannot look at PID 4194305: .*no such process"), "%s", r.out);
	result__free(&r);
}

Test(many, the_command_itself)
{
	struct many m = begin();
	target__ask(m.targets[0], "unblock", "unblocked");
	struct result r = run_script(&m, "exec \"$1\" -p \"$$ $2\" -l \"$3\"");
	cr_expect_eq(r.exit_code, 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_expect(text__has(r.out, "Cannot look at PID [0-9]+: it is this tool itself\n"), "%s", r.out);
	cr_expect(strstr(r.out, "SUCCESS: 6 NOT UPDATED: 1 FAILURE: 0"), "%s", r.out);
	result__free(&r);
	finish(&m);
}

/* Between the preview and the update: the report still has its name, and says why. */
Test(many, one_ends_meanwhile)
{
	struct many m = begin();
	char *log;
	target__ask(m.targets[0], "unblock", "unblocked");
	pid_t tool = command__start(
	    (const char *const[]){COMMAND_DIR "/llvupdate", "-p", m.pids, "--delay", "2", "-l", log_of(&m), NULL});
	await_log(&m, "operation begins in\n");
	target__kill(m.targets[1]);
	cr_expect_eq(command__wait(tool, WAIT_S), 3);
	log = read_log(&m);
	pid_t pid = target__pid(m.targets[1]);
	cr_expect(text__has(log, path_of("\n%d drive_driver NOT UPDATED\n", pid)), "%s", log);
	cr_expect(text__has(log, path_of("\nCannot look at PID %d: .*==== LLU Report ====", pid)), "%s", log);
	cr_expect(strstr(log, "SUCCESS: 5 NOT UPDATED: 1 FAILURE: 0"), "%s", log);
	free(log);
	for (int i = 0; i < MANY; i++)
		if (i != 1)
			free(target__finish(m.targets[i]));
}

/* PIDs would be those of other processes. */
Test(many, proc_is_of_another_namespace)
{
	static const char *const commands[] = {"llvupdate -P", "llvupdate -a", "llvupdate -p 1", "cllvupdate -u",
					       "procmap 1"};
	if (geteuid() != 0)
		cr_skip_test("only root can make a PID namespace");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		struct result r =
		    command__run((const char *const[]){"unshare", "--pid", "--fork", "sh", "-c",
						       path_of(COMMAND_DIR "/%s; exit $?", commands[i]), NULL},
				 WAIT_S);
		cr_expect_eq(r.exit_code, 5, "%s: exit code %d\n%s%s", commands[i], r.exit_code, r.out, r.err);
		cr_expect(strstr(r.err, "/proc: it is not mounted, or for another PID namespace"), "%s: %s%s",
			  commands[i], r.out, r.err);
		result__free(&r);
	}
}
