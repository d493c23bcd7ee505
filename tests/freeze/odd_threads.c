/* Threads that are not as others are: the freeze leaves them as they are, or says why it cannot be. */
#include <criterion/criterion.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "freeze/freeze.h"
#include "inject/clock.h"
#include "scene.h"
#include "support/support.h"

TestSuite(odd_threads, .fini = support__teardown, .timeout = 100);

static struct err *freeze(const struct scene *s, bool strict, struct freeze **f)
{
	const struct trange nowhere = {s->place.pads, taddr_add(s->place.pads, 4096)};
	struct freeze_options opt = {.inside = &nowhere, .n_inside = 1, .stop_ms = 1000, .strict = strict};
	return freeze__begin(s->p, &opt, f);
}

/* Ends the program in order. */
static void ends_well(struct scene *s)
{
	process__close(s->p);
	s->p = NULL;
	FREE_CLEANUP char *rest = target__finish(s->target);
	cr_expect_str_eq(rest, "");
}

/* It has no memory that can be seen any more, though other threads go on in it. */
Test(odd_threads, a_dead_leader)
{
	const char *argv[] = {FIXTURE_DIR "/odd", "dead_leader", NULL};
	struct target *t = target__start(argv, NULL);
	struct process *p = NULL;
	cr_assert(strncmp(target__hear(t), "pads=", 5) == 0);
	target__expect(t, "ready");
	struct thread_view v;
	do { /* it may be on its way to its end still */
		struct err *e = process__open(target__pid(t), &p);
		if (e) {
			REFUSED(e, ERR_REFUSED, "its first thread has ended");
			break;
		}
		OK(process__look(p, target__pid(t), &v));
		process__close(p);
	} while (v.state != THREAD_DEAD);
	REFUSED(process__open(target__pid(t), &p), ERR_REFUSED, "its first thread has ended");
	free(target__finish(t));
}

/* Workers of the kernel are not stopped, and do not count; one of them polls all the time. */
Test(odd_threads, io_uring_workers)
{
	struct scene s = scene__start("odd", "uring", NULL);
	const char *line = target__hear(s.target);
	if (strcmp(line, "none") == 0)
		cr_skip_test("no io_uring here");
	cr_assert_str_eq(line, "ready");
	cr_assert_geq(scene__threads(&s), 3, "no workers");
	scene__wait_asleep(&s, 0, SYS_write);
	for (int strict = 0; strict < 2; strict++) {
		struct freeze *f = NULL;
		struct freeze_stats st;
		OK(freeze(&s, strict, &f));
		freeze__stats(f, &st);
		cr_expect_eq(st.threads, 1, "%zu threads", st.threads);
		cr_expect_eq(st.stopped, (size_t)strict);
		freeze__thaw(f);
	}
	ends_well(&s);
}

/* Others run in its memory, whom nobody has stopped. */
Test(odd_threads, another_process_in_the_same_memory)
{
	struct scene s = scene__start("odd", "shares", NULL);
	struct freeze *f = NULL;
	target__expect(s.target, "ready");
	REFUSED(freeze(&s, false, &f), ERR_REFUSED, "other processes share its memory: pid ");
	ends_well(&s);
}

Test(odd_threads, a_vfork_child)
{
	struct scene s = scene__start("odd", "vfork", NULL);
	struct freeze *f = NULL;
	target__expect(s.target, "ready");
	REFUSED(freeze(&s, false, &f), ERR_RETRY, "a vfork child shares its memory: pid ");
	target__say(s.target, "x"); /* the child ends, and the parent goes on to wait for the end of its input */
	int64_t deadline = support__now_ms() + 5000;
	struct err *e = freeze(&s, false, &f);
	while (e && support__now_ms() < deadline) {
		err__free(e);
		e = freeze(&s, false, &f);
	}
	OK(e);
	freeze__thaw(f);
	ends_well(&s);
}

/* Is it on its way out, never to run the program's code again (proc(5), flags; include/linux/sched.h, PF_EXITING)? */
static bool is_ending(const struct scene *s, pid_t tid)
{
	enum { PF_EXITING = 4 };
	char path[64], line[512];
	unsigned flags = PF_EXITING; /* gone, if it cannot be read */
	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", process__pid(s->p), tid);
	FILE *f = fopen(path, "re");
	const char *behind = f && fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	if (behind)
		cr_assert_eq(sscanf(behind, ") %*c %*d %*d %*d %*d %*d %u", &flags), 1, "%s", line);
	if (f)
		fclose(f);
	return flags & PF_EXITING;
}

static size_t running(const struct scene *s)
{
	FREE_CLEANUP pid_t *tids = NULL;
	size_t n = 0, running = 0;
	OK(process__threads(s->p, &tids, &n));
	for (size_t k = 0; k < n; k++) {
		struct thread_view v;
		OK(process__look(s->p, tids[k], &v));
		running += v.state == THREAD_RUNNING && !is_ending(s, tids[k]);
	}
	return running;
}

/* Thousands of threads are born and die while it is frozen again and again. When it is, nobody runs but sleepers that
 * woke up, which is told, and threads that are ending. */
Test(odd_threads, a_storm_of_threads)
{
	struct scene s = scene__start("odd", "storm", NULL);
	int frozen = 0;
	target__expect(s.target, "ready");
	for (int i = 0; i < 20; i++) {
		struct freeze *f = NULL;
		struct err *e = freeze(&s, false, &f);
		if (e) { /* not at this moment */
			REFUSED(e, ERR_RETRY, "pid");
			continue;
		}
		bool slept_on = false;
		size_t n = running(&s);
		OK(freeze__slept_on(f, &slept_on));
		cr_expect(!slept_on || !n, "round %d: %zu threads run", i, n);
		freeze__thaw(f);
		frozen++;
	}
	cr_assert_gt(frozen, 5, "frozen %d times of 20", frozen);
	ends_well(&s);
}

/* Freezes while the first thread waits for a line, which it is given then. *before: has everybody slept on until then?
 * Returns whether it is told that the thread woke. */
static bool wake_in_freeze(struct scene *s, bool *before)
{
	struct freeze *f = NULL;
	struct thread_status asleep, awake;
	bool slept_on = true;
	scene__wait_asleep(s, 0, SYS_write); /* else it is stopped, which no line ends */
	OK(freeze(s, false, &f));
	OK(process__status(s->p, process__pid(s->p), &asleep));
	OK(freeze__slept_on(f, before));
	target__say(s->target, "x");
	int64_t deadline = support__now_ms() + 5000;
	do
		OK(process__status(s->p, process__pid(s->p), &awake));
	while (awake.switches == asleep.switches && support__now_ms() < deadline);
	OK(freeze__slept_on(f, &slept_on));
	freeze__thaw(f);
	return !slept_on;
}

/* Who wakes up meanwhile is told of, among many that do. */
Test(odd_threads, sleepers_that_wake_up)
{
	struct scene s = scene__start("odd", "woken", NULL);
	size_t told = 0;
	bool before;
	target__expect(s.target, "ready");
	for (int i = 0; i < 100; i++)
		told += wake_in_freeze(&s, &before);
	cr_expect_eq(told, 100, "%zu of 100 times it was not told that the first thread woke", 100 - told);
	ends_well(&s);
}

/* Where nobody wakes up, nobody is told of. */
Test(odd_threads, sleepers_that_sleep_on)
{
	struct scene s = scene__start("odd", "plain", NULL);
	size_t told = 0, slept = 0;
	target__expect(s.target, "ready");
	for (int i = 0; i < 100; i++) {
		bool before = false;
		told += wake_in_freeze(&s, &before);
		slept += before;
	}
	cr_expect_eq(told, 100, "%zu of 100 times it was not told that the first thread woke", 100 - told);
	cr_expect_eq(slept, 100, "%zu of 100 times it was told that somebody woke", 100 - slept);
	ends_well(&s);
}

/* The number of a process that ended is that of another one now: nothing is done to that. */
Test(odd_threads, a_number_that_is_in_use_again)
{
	FILE *max = fopen("/proc/sys/kernel/ns_last_pid", "re+");
	if (!max)
		cr_skip_test("only root can choose a number");
	struct scene s = scene__start("odd", "plain", NULL);
	struct freeze *f = NULL;
	pid_t pid = process__pid(s.p);
	pid_t again = 0;
	target__expect(s.target, "ready");
	target__kill(s.target);
	for (int i = 0; again != pid && i < 1000; i++) {
		rewind(max);
		fprintf(max, "%d", pid - 1);
		fflush(max);
		again = fork();
		if (again == 0)
			for (;;)
				pause();
		if (again != pid) {
			kill(again, SIGKILL);
			waitpid(again, NULL, 0);
		}
	}
	fclose(max);
	if (again != pid)
		cr_skip_test("others took the number");
	REFUSED(freeze(&s, true, &f), ERR_GONE, "ended");
	struct process *p = NULL;
	OK(process__open(again, &p));
	pid_t tracer = 0;
	OK(process__tracer(p, &tracer));
	cr_expect_eq(tracer, 0);
	process__close(p);
	kill(again, SIGKILL);
	waitpid(again, NULL, 0);
	process__close(s.p);
}
