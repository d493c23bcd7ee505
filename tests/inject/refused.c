/* Processes in which no hand may be raised; each is as it was afterwards. */
#include <criterion/criterion.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "freeze/freeze.h"
#include "scene.h"
#include "support/support.h"

TestSuite(refused, .fini = support__teardown, .timeout = 60);

static struct scene odd(const char *what)
{
	struct scene s = scene__start("odd", what, NULL);
	target__expect(s.target, "ready");
	scene__wait_asleep(&s, 0, -1);
	return s;
}

static void as_before(struct scene *s)
{
	scene__wait_threads(s, 1);
	cr_assert_eq(scene__wait_asleep(s, 0, -1).nr, 0, "it does not sleep in read any more");
	scene__close(s);
}

static void refuses(const char *what, enum err_kind kind, const char *words)
{
	struct scene s = odd(what);
	struct hand *h = NULL;
	REFUSED(hand__raise(s.p, &s.place, 1000, &h), kind, words);
	as_before(&s);
}

static void allows(const char *what)
{
	struct scene s = odd(what);
	struct hand *h = NULL;
	OK(hand__raise(s.p, &s.place, 1000, &h));
	hand__dismiss(h);
	as_before(&s);
}

Test(refused, not_a_filter_that_allows_all)
{
	allows("allow_all");
}

Test(refused, not_a_filter_against_writable_code)
{
	allows("no_write_exec");
}

Test(refused, a_filter_against_clone)
{
	refuses("no_clone", ERR_REFUSED, "clone");
}

Test(refused, a_filter_against_executable_mappings)
{
	refuses("no_exec", ERR_REFUSED, "mmap");
}

Test(refused, strict_seccomp_mode)
{
	refuses("strict", ERR_REFUSED, "strict seccomp");
}

Test(refused, no_further_thread_allowed)
{
	refuses("no_threads", ERR_SYSTEM, "no thread could be made");
}

Test(refused, pads_that_are_not_pads)
{
	struct scene s = odd("plain");
	struct hand *h = NULL;
	uint8_t byte = 0x90;
	OK(process__write(s.p, taddr_add(s.place.pads, ARCH_PAD_SIGRETURN), &byte, 1));
	REFUSED(hand__raise(s.p, &s.place, 1000, &h), ERR_REFUSED, "pads");
	struct hand_place elsewhere = s.place;
	elsewhere.pads = s.place.scratch; /* not executable */
	REFUSED(hand__raise(s.p, &elsewhere, 1000, &h), ERR_REFUSED, "pads");
	elsewhere = s.place;
	elsewhere.scratch_len = 4096;
	REFUSED(hand__raise(s.p, &elsewhere, 1000, &h), ERR_USAGE, "too small");
	as_before(&s);
}

Test(refused, stopped_by_job_control)
{
	struct scene s = odd("plain");
	struct hand *h = NULL;
	struct thread_view v;
	kill(process__pid(s.p), SIGSTOP);
	do {
		OK(process__look(s.p, process__pid(s.p), &v));
	} while (v.state != THREAD_STOPPED);
	REFUSED(hand__raise(s.p, &s.place, 100, &h), ERR_RETRY, "job control");
	OK(process__look(s.p, process__pid(s.p), &v));
	cr_assert_eq(v.state, THREAD_STOPPED);
	kill(process__pid(s.p), SIGCONT);
	as_before(&s);
}

/* Whether the debugger has stopped it or lets it run. */
Test(refused, traced_by_another)
{
	for (int stopped = 0; stopped < 2; stopped++) {
		struct scene s = odd("plain");
		struct hand *h = NULL;
		struct freeze *f = NULL;
		struct trange r = {s.place.pads, taddr_add(s.place.pads, 64)};
		struct freeze_options opt = {.inside = &r, .n_inside = 1, .stop_ms = 100, .strict = true};
		int ready[2];
		char c = 0;
		cr_assert_eq(pipe(ready), 0);
		pid_t debugger = fork();
		if (debugger == 0) {
			int status;
			ptrace(PTRACE_SEIZE, process__pid(s.p), 0, 0);
			if (stopped) {
				ptrace(PTRACE_INTERRUPT, process__pid(s.p), 0, 0);
				waitpid(process__pid(s.p), &status, __WALL);
			}
			(void)!write(ready[1], "x", 1);
			for (;;)
				pause();
		}
		cr_assert_eq(read(ready[0], &c, 1), 1);
		REFUSED(hand__raise(s.p, &s.place, 100, &h), ERR_BUSY, "traced");
		REFUSED(freeze__begin(s.p, &opt, &f), ERR_BUSY, "traced");
		kill(debugger, SIGKILL);
		waitpid(debugger, NULL, 0);
		as_before(&s);
	}
}
