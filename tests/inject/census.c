/* Who is left out of the search for those who share a process's memory, and who must not be. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inject/census.h"
#include "scene.h"
#include "support/support.h"

TestSuite(census, .fini = support__teardown, .timeout = 60);

enum { OTHERS = 20, TRIES = 50 };

static pid_t start_idle(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static struct census *take(void)
{
	struct census *c = census__take();

	cr_assert(c != NULL);
	return c;
}

static bool may_share(const struct census *c, pid_t pid, pid_t other)
{
	pid_t pids[] = {pid, other};
	size_t n = census__may_share(c, pid, pids, 2);

	return n == 2 && pids[1] == other;
}

Test(census, most_are_left_out)
{
	pid_t others[OTHERS];
	size_t left_out = 0;

	for (size_t i = 0; i < OTHERS; i++)
		others[i] = start_idle();
	struct census *c = take();
	for (size_t i = 0; i < OTHERS; i++)
		for (size_t k = 0; k < OTHERS; k++)
			left_out += i != k && !may_share(c, others[i], others[k]);
	cr_assert_gt(left_out, OTHERS * (OTHERS - 1) / 2, "%zu", left_out);
	census__free(c);
	for (size_t i = 0; i < OTHERS; i++)
		end(others[i]);
}

/* The children of this process alone, and they are gone when it returns. */
Test(census, it_leaves_nobody_behind)
{
	census__free(take());
	cr_assert(waitpid(-1, NULL, WNOHANG) < 0);
}

static void is_told(const struct scene *s, const struct census *c)
{
	process__know_others(s->p, c);
	REFUSED(process__shares_memory(s->p, false), ERR_REFUSED, "share its memory");
	process__know_others(s->p, NULL);
}

static struct scene sharing(void)
{
	struct scene s = scene__start("odd", "shares", NULL, NULL);

	target__expect(s.target, "ready");
	return s;
}

Test(census, who_shared_memory_before)
{
	for (int i = 0; i < 20; i++) {
		struct scene s = sharing();
		struct census *c = take();
		is_told(&s, c);
		census__free(c);
		scene__close(&s);
	}
}

/* That one has no memory, as kernel threads have none. */
Test(census, who_shared_memory_and_has_lost_its_first_thread)
{
	struct scene s = scene__start("odd", "shares_with_a_thread", NULL, NULL);

	target__expect(s.target, "ready");
	struct census *c = take();
	is_told(&s, c);
	census__free(c);
	scene__close(&s);
}

Test(census, who_was_not_there_yet)
{
	struct census *c = take();
	struct scene s = sharing();

	is_told(&s, c);
	census__free(c);
	scene__close(&s);
}

Test(census, who_shares_nothing)
{
	struct scene s = scene__start("odd", "plain", NULL, NULL);

	target__expect(s.target, "ready");
	struct census *c = take();
	process__know_others(s.p, c);
	OK(process__shares_memory(s.p, false));
	scene__close(&s);
	census__free(c);
}

/* ---- a sharer that comes after the census, with a PID that was another's in it ---- */

static _Noreturn int idle(void *unused)
{
	(void)unused;
	for (;;)
		pause();
}

static bool set_last_pid(pid_t pid)
{
	char text[16];
	int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC),
	    len = snprintf(text, sizeof(text), "%d", pid);
	bool set = fd >= 0 && write(fd, text, (size_t)len) == len;

	if (fd >= 0)
		close(fd);
	return set;
}

/* Of this very process's memory, as only it can be given the PID in time; 0: it could not. */
static pid_t share_with_pid(pid_t wanted, void *stack_end)
{
	pid_t pid = set_last_pid(wanted - 1) ? clone(idle, stack_end, CLONE_VM | SIGCHLD, NULL) : 0;

	if (pid > 0 && pid != wanted) {
		end(pid);
		pid = 0;
	}
	return pid;
}

Test(census, whose_pid_was_another_ones)
{
	enum { STACK = 65536 };
	char *stack = malloc(STACK);
	bool tried = false;

	if (!set_last_pid(getpid()))
		cr_skip_test("needs CAP_CHECKPOINT_RESTORE, and CONFIG_CHECKPOINT_RESTORE");
	for (int i = 0; i < TRIES && !tried; i++) {
		pid_t old = start_idle();
		struct census *c = take();
		bool before = may_share(c, getpid(), old);
		end(old);
		pid_t sharer = share_with_pid(old, stack + STACK);
		tried = sharer > 0 && !before;
		if (sharer > 0) {
			cr_assert(may_share(c, getpid(), sharer));
			end(sharer);
		}
		census__free(c);
	}
	free(stack);
	if (!tried)
		cr_skip_test("other processes got the PID each time");
}

/* The same of the one that is asked about: what is known of it was of another. */
Test(census, about_a_pid_that_was_another_ones)
{
	pid_t old = start_idle(), other = start_idle();
	struct census *c = take();

	end(old);
	cr_assert(may_share(c, old, other));
	census__free(c);
	end(other);
}
