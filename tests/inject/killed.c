/* Law 1: SIGKILL of the tool at any instant leaves the target running and correct.
 *
 * The surgery is done by a child of the test. In one suite the test steps through the child's system calls
 * and kills it at the entry or exit of the first, the second, the third ... that touches the target,
 * until the surgery comes to its end; in the other it kills at instants taken as they come.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "freeze/freeze.h"
#include "scene.h"
#include "support/forked.h"
#include "support/support.h"

TestSuite(killed, .fini = support__teardown, .timeout = 110);

static int complain(struct err *e, int code)
{
	if (e)
		fprintf(stderr, "surgery: %s\n", err__text(e));
	return e ? code : 0;
}

/* All that the surgery consists of. Runs in the child: says what went wrong by its exit code. */
static int surgery(const struct scene *s)
{
	struct trange nowhere = {s->place.pads, taddr_add(s->place.pads, 4096)};
	struct freeze_options opt = {.inside = &nowhere, .n_inside = 1, .stop_ms = 1000, .strict = true};
	struct hand *h = NULL;
	struct freeze *f = NULL;
	int64_t at = 0;
	size_t done = 0;
	int code = complain(hand__raise(s->p, &s->place, 5000, &h), 2);
	if (code)
		return code;
	const uint64_t map[6] = {0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0};
	code = complain(hand__call(h, SYS_mmap, map, &at), 3);
	if (code || at < 0)
		return 3;
	struct arch_batch_entry batch[] = {
	    {SYS_mprotect, {(uint64_t)at, 4096, PROT_READ}, 0},
	    {SYS_munmap, {(uint64_t)at, 8192}, 0},
	};
	opt.except = hand__tid(h);
	code = complain(hand__load_batch(h, batch, 2), 4);
	if (!code)
		code = complain(freeze__begin(s->p, &opt, &f), 5);
	if (!code)
		code = complain(hand__run_batch(h, batch, 2, &done), 6);
	if (code || done != 2)
		return 6;
	freeze__thaw(f);
	hand__dismiss(h);
	return 0;
}

/* --- step by step --- */

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

/* Starts the surgery and kills it at the `k`-th stop. False: it came to its end before. */
static bool kill_at(const struct scene *s, unsigned k)
{
	int status = 0;
	pid_t tool = fork();
	if (tool == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(surgery(s));
	}
	cr_assert_eq(waitpid(tool, &status, 0), tool);
	ptrace(PTRACE_SETOPTIONS, tool, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	return forked__kill_at(tool, k, touches_the_target);
}

Test(killed, at_every_step_in_a_busy_program)
{
	struct scene s = scene__start("busy", NULL);
	size_t threads = scene__threads(&s);
	char before[32];
	target__say(s.target, "check");
	snprintf(before, sizeof(before), "%s", target__hear(s.target));
	unsigned k = 1;
	for (; kill_at(&s, k); k++) {
		scene__wait_threads(&s, threads);
		target__ask(s.target, "check", before);
	}
	cr_assert_gt(k, 100, "only %u steps", k);
	scene__close(&s);
}

/* The only thread sleeps; it must go on sleeping in the same call, and wake up at its event. */
Test(killed, at_every_step_in_a_sleeping_program)
{
	static const char *const names[] = {"read", "recv", "accept", "pause"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct scene s = scene__start("one_call", names[i], NULL);
		struct thread_view v = scene__wait_asleep(&s, 0, SYS_write);
		for (unsigned k = 1 + (unsigned)i; kill_at(&s, k); k += 4) {
			scene__wait_threads(&s, 1);
			struct thread_view again = scene__wait_asleep(&s, 0, -1);
			cr_assert_eq(again.sp.v, v.sp.v, "%s, step %u: somewhere else", names[i], k);
			cr_assert_eq(again.pc.v, v.pc.v, "%s, step %u: somewhere else", names[i], k);
		}
		target__say(s.target, "go");
		const char *line = target__hear(s.target);
		cr_expect_str_eq(line, "ok", "%s: %s", names[i], line);
		scene__close(&s);
	}
}

/* --- at any instant --- */

Test(killed, at_any_instant)
{
	struct scene s = scene__start("busy", "spawn", NULL);
	char before[32];
	target__say(s.target, "check");
	snprintf(before, sizeof(before), "%s", target__hear(s.target));
	unsigned seed = 1;
	for (int i = 0; i < 150; i++) {
		pid_t tool = fork();
		if (tool == 0)
			for (;;)
				if (surgery(&s))
					_exit(1);
		seed = seed * 1103515245 + 12345;
		nanosleep(&(struct timespec){0, (long)(seed >> 8) % 6000000}, NULL);
		kill(tool, SIGKILL);
		int status;
		cr_assert_eq(waitpid(tool, &status, 0), tool);
		cr_assert(WIFSIGNALED(status), "the surgery fails");
		if (i % 5 == 0)
			target__ask(s.target, "check", before);
	}
	target__ask(s.target, "check", before);
	scene__close(&s);
}
