/* Who sleeps all the while, and who only seems to. */
#include <criterion/criterion.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "freeze/sleepers.h"
#include "scene.h"
#include "support/support.h"
#include "support/target.h"

TestSuite(sleepers, .fini = support__teardown, .timeout = 60);

/* A child that gives back each byte that it is given. */
struct echo {
	pid_t pid;
	int to, from;
	struct process *p;
};

static struct echo start(void)
{
	int there[2], back[2];
	char byte;

	cr_assert(pipe(there) == 0 && pipe(back) == 0);
	struct echo c = {.pid = fork(), .to = there[1], .from = back[0]};
	if (c.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (read(there[0], &byte, 1) == 1)
			cr_assert(write(back[1], &byte, 1) == 1);
		_exit(0);
	}
	OK(process__open(c.pid, &c.p));
	return c;
}

static void end(struct echo *c)
{
	process__close(c->p);
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
}

/* When it returns the child has run, and may run still. */
static void run(const struct echo *c)
{
	char byte = 0;

	cr_assert(write(c->to, &byte, 1) == 1 && read(c->from, &byte, 1) == 1);
}

static struct sleepers wait_until_it_rests(const struct echo *c)
{
	struct sleepers s;

	/* who falls asleep while it is noted counts as one who has run */
	for (int64_t last = support__now_ms() + 20000; sleepers__note(c->p, &s), !sleepers__slept_on(c->p, &s);) {
		sleepers__free(&s);
		cr_assert(support__now_ms() < last, "it never rests");
	}
	return s;
}

Test(sleepers, who_sleeps_all_the_while)
{
	struct echo c = start();
	struct sleepers s = wait_until_it_rests(&c);

	cr_assert(sleepers__slept_on(c.p, &s));
	sleepers__free(&s);
	end(&c);
}

/* Its child runs in its memory meanwhile. */
Test(sleepers, who_waits_for_a_vfork_child)
{
	struct target *t = target__start((const char *const[]){FIXTURE_DIR "/odd", "vfork", NULL}, NULL);
	struct process *p;
	struct thread_view v = {0};
	struct sleepers s;

	target__hear(t); /* where its pads are */
	target__expect(t, "ready");
	OK(process__open(target__pid(t), &p));
	for (int64_t last = support__now_ms() + 20000; !thread_view__waits_for_vfork(&v);) {
		OK(process__look(p, target__pid(t), &v));
		cr_assert(support__now_ms() < last, "it never waits");
	}
	sleepers__note(p, &s);
	cr_assert(!sleepers__slept_on(p, &s));
	sleepers__free(&s);
	process__close(p);
	target__kill(t);
}

Test(sleepers, who_was_awake_in_between_and_sleeps_again)
{
	struct echo c = start();

	for (int i = 0; i < 100; i++) {
		struct sleepers before = wait_until_it_rests(&c);
		run(&c);
		struct sleepers again = wait_until_it_rests(&c);
		cr_assert(!sleepers__slept_on(c.p, &before), "round %d", i);
		cr_assert(sleepers__slept_on(c.p, &again));
		sleepers__free(&before);
		sleepers__free(&again);
	}
	end(&c);
}

Test(sleepers, who_was_stopped_and_let_run)
{
	struct echo c = start();

	kill(c.pid, SIGSTOP);
	cr_assert(waitpid(c.pid, NULL, WUNTRACED) == c.pid);
	struct sleepers s = wait_until_it_rests(&c);
	cr_assert(sleepers__slept_on(c.p, &s));
	kill(c.pid, SIGCONT);
	run(&c);
	kill(c.pid, SIGSTOP);
	cr_assert(waitpid(c.pid, NULL, WUNTRACED) == c.pid);
	cr_assert(!sleepers__slept_on(c.p, &s));
	sleepers__free(&s);
	end(&c);
}

Test(sleepers, who_never_sleeps)
{
	pid_t pid = fork();
	struct process *p;
	struct sleepers s;

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (volatile unsigned i = 0;; i++)
			;
	}
	OK(process__open(pid, &p));
	sleepers__note(p, &s);
	cr_assert(s.n == 0 && !sleepers__slept_on(p, &s));
	sleepers__free(&s);
	process__close(p);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
