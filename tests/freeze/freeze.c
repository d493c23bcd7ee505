/* Freezing and thawing leaves the program as it was. */
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/alloc.h"
#include "freeze/freeze.h"
#include "scene.h"
#include "support/support.h"

TestSuite(freeze, .fini = support__teardown, .timeout = 100);

/* Code that no thread is ever in. */
static struct freeze_options nowhere(const struct scene *s, struct trange *r)
{
	*r = (struct trange){s->place.pads, taddr_add(s->place.pads, 4096)};
	return (struct freeze_options){.inside = r, .n_inside = 1, .stop_ms = 1000};
}

/* Calls that an event ends. */
static const char *const event_calls[] = {
    "read",      "recv",  "recv_timeo", "read_timeo", "accept",     "accept_timeo", "epoll",       "epoll_pwait",
    "poll",      "ppoll", "select",     "pause",      "sigsuspend", "sigtimedwait", "sigwaitinfo", "futex",
    "futex_abs", "semop", "semtimedop", "msgrcv",     "wait",       "flock",
};
/* Calls that a time ends. */
static const char *const timed_calls[] = {
    "epoll_time", "poll_time", "ppoll_time", "select_time", "sigwait_time", "nanosleep", "nanosleep_abs", "futex_time",
};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void freeze_and_thaw(const struct scene *s, bool strict)
{
	struct trange r;
	struct freeze_options opt = nowhere(s, &r);
	struct freeze *f = NULL;
	struct freeze_stats st;
	bool slept_on = false;
	opt.strict = strict;
	OK(freeze__begin(s->p, &opt, &f));
	freeze__stats(f, &st);
	cr_expect_eq(st.stopped, strict ? 1 : 0);
	cr_expect_eq(st.asleep, strict ? 0 : 1);
	OK(freeze__slept_on(f, &slept_on));
	cr_expect(slept_on);
	freeze__thaw(f);
	scene__wait_threads(s, 1);
}

static void calls_end_well(const char *const *names, size_t n, bool strict, bool event)
{
	for (size_t i = 0; i < n; i++) {
		struct scene s = scene__start("one_call", names[i], NULL);
		scene__wait_asleep(&s, 0, SYS_write);
		for (int k = 0; k < 3; k++) {
			freeze_and_thaw(&s, strict);
			scene__wait_asleep(&s, 0, -1);
		}
		if (event)
			target__say(s.target, "go");
		const char *line = target__hear(s.target);
		cr_expect_str_eq(line, "ok", "%s: %s", names[i], line);
		scene__close(&s);
	}
}

Test(freeze, sleepers_are_left_alone)
{
	calls_end_well(event_calls, COUNT(event_calls), false, true);
	calls_end_well(timed_calls, COUNT(timed_calls), false, false);
}

Test(freeze, stopped_sleepers_wait_on_for_their_event)
{
	calls_end_well(event_calls, COUNT(event_calls), true, true);
}

Test(freeze, stopped_sleepers_end_at_their_time)
{
	calls_end_well(timed_calls, COUNT(timed_calls), true, false);
}

/* A handler must run and end the calls that a handler ends, even when the signal comes while the process is
 * frozen: a call simply made again would sleep for ever. */
Test(freeze, signals_that_come_meanwhile_interrupt)
{
	static const char *const names[] = {"pause", "sigsuspend", "sigtimedwait", "sigwaitinfo"};
	for (size_t i = 0; i < COUNT(names); i++) {
		struct scene s = scene__start("one_call", names[i], NULL);
		struct trange r;
		struct freeze_options opt = nowhere(&s, &r);
		struct freeze *f = NULL;
		opt.strict = true;
		scene__wait_asleep(&s, 0, SYS_write);
		OK(freeze__begin(s.p, &opt, &f));
		kill(process__pid(s.p), SIGUSR1);
		freeze__thaw(f);
		const char *line = target__hear(s.target);
		cr_expect_str_eq(line, "ok", "%s: %s", names[i], line);
		scene__close(&s);
	}
}

Test(freeze, stops_every_thread)
{
	struct scene s = scene__start("busy", "sleepers", "20", NULL);
	struct trange r;
	struct freeze_options opt = nowhere(&s, &r);
	FREE_CLEANUP pid_t *tids = NULL;
	size_t n = 0;
	struct freeze *f = NULL;
	opt.strict = true;
	OK(freeze__begin(s.p, &opt, &f));
	OK(process__threads(s.p, &tids, &n));
	cr_assert_geq(n, 24);
	for (size_t i = 0; i < n; i++) {
		struct thread_view v;
		OK(process__look(s.p, tids[i], &v));
		cr_expect(v.traced, "thread %zu runs", i);
	}
	freeze__thaw(f);
	target__say(s.target, "check");
	cr_assert(strncmp(target__hear(s.target), "ok", 2) == 0);
	scene__close(&s);
}

/* Threads are born and die all the time; registers, masks, memory are checked by the program itself. Whether a
 * sleeper wakes meanwhile is not ours to say, but it is ours to tell. */
Test(freeze, while_threads_come_and_go)
{
	struct scene s = scene__start("busy", "spawn", "sleepers", "5", NULL);
	struct trange r;
	struct freeze_options opt = nowhere(&s, &r);
	int undisturbed = 0;
	for (int i = 0; i < 200; i++) {
		struct freeze *f = NULL;
		FREE_CLEANUP pid_t *tids = NULL;
		size_t n = 0;
		size_t running = 0;
		bool slept_on = false;
		OK(freeze__begin(s.p, &opt, &f));
		OK(process__threads(s.p, &tids, &n));
		for (size_t k = 0; k < n; k++) {
			struct thread_view v;
			OK(process__look(s.p, tids[k], &v));
			running += v.state == THREAD_RUNNING;
		}
		OK(freeze__slept_on(f, &slept_on));
		undisturbed += slept_on;
		cr_assert(!slept_on || !running, "round %d: a thread runs", i);
		freeze__thaw(f);
		if (i % 10 == 0) {
			target__say(s.target, "check");
			const char *line = target__hear(s.target);
			cr_assert(strncmp(line, "ok", 2) == 0, "%s", line);
		}
	}
	cr_assert_gt(undisturbed, 100, "sleepers woke in %d of 200 rounds", 200 - undisturbed);
	scene__close(&s);
}

/* Waits until so many threads sleep in pause(2). */
static void wait_until_paused(const struct scene *s, size_t wanted)
{
	int64_t deadline = support__now_ms() + 20000;
	size_t asleep = 0;
	while (asleep < wanted) {
		FREE_CLEANUP pid_t *tids = NULL;
		size_t n = 0;
		cr_assert_lt(support__now_ms(), deadline, "%zu of %zu threads sleep", asleep, wanted);
		OK(process__threads(s->p, &tids, &n));
		asleep = 0;
		for (size_t i = 0; i < n; i++) {
			struct thread_view v;
			OK(process__look(s->p, tids[i], &v));
			asleep += v.state == THREAD_SLEEPING && v.at_rest && v.nr == SYS_pause;
		}
	}
}

/* The time frozen is that of the threads that run. */
Test(freeze, leaves_a_hundred_sleepers_asleep)
{
	struct scene s = scene__start("busy", "sleepers", "100", NULL);
	struct trange r;
	struct freeze_options opt = nowhere(&s, &r);
	struct freeze_stats st;
	struct freeze *f = NULL;
	target__say(s.target, "check");
	target__hear(s.target);
	wait_until_paused(&s, 100);
	OK(freeze__begin(s.p, &opt, &f));
	freeze__stats(f, &st);
	freeze__thaw(f);
	cr_expect_geq(st.asleep, 100);
	cr_expect_leq(st.stopped, 4);
	scene__close(&s);
}

Test(freeze, except_the_hand)
{
	struct scene s = scene__start("busy", NULL);
	struct trange r;
	struct freeze_options opt = nowhere(&s, &r);
	struct freeze *f = NULL;
	struct hand *h = NULL;
	int64_t result = 0;
	OK(hand__raise(s.p, &s.place, 5000, &h));
	opt.except = hand__tid(h);
	OK(freeze__begin(s.p, &opt, &f));
	OK(hand__call(h, SYS_getpid, (const uint64_t[6]){0}, &result));
	cr_assert_eq(result, process__pid(s.p));
	freeze__thaw(f);
	hand__dismiss(h);
	scene__close(&s);
}

Test(freeze, not_a_process_stopped_by_job_control)
{
	struct scene s = scene__start("busy", NULL);
	struct trange r;
	struct freeze_options opt = nowhere(&s, &r);
	struct freeze *f = NULL;
	struct thread_view v;
	kill(process__pid(s.p), SIGSTOP);
	do {
		OK(process__look(s.p, process__pid(s.p), &v));
	} while (v.state != THREAD_STOPPED);
	REFUSED(freeze__begin(s.p, &opt, &f), ERR_RETRY, "stopped by job control");
	OK(process__look(s.p, process__pid(s.p), &v));
	cr_assert_eq(v.state, THREAD_STOPPED, "it still is");
	kill(process__pid(s.p), SIGCONT);
	target__say(s.target, "check");
	cr_assert(strncmp(target__hear(s.target), "ok", 2) == 0);
	scene__close(&s);
}

/* SIGSTOP while frozen: the program is stopped afterwards, as it would be. */
Test(freeze, keeps_a_stop_that_comes_meanwhile)
{
	struct scene s = scene__start("busy", NULL);
	struct trange r;
	struct freeze_options opt = nowhere(&s, &r);
	struct freeze *f = NULL;
	struct thread_view v;
	OK(freeze__begin(s.p, &opt, &f));
	kill(process__pid(s.p), SIGSTOP);
	freeze__thaw(f);
	int64_t deadline = support__now_ms() + 5000;
	do {
		OK(process__look(s.p, process__pid(s.p), &v));
	} while (v.state != THREAD_STOPPED && support__now_ms() < deadline);
	cr_assert_eq(v.state, THREAD_STOPPED);
	kill(process__pid(s.p), SIGCONT);
	target__say(s.target, "check");
	cr_assert(strncmp(target__hear(s.target), "ok", 2) == 0);
	scene__close(&s);
}

Test(freeze, not_a_process_that_ended)
{
	struct scene s = scene__start("busy", NULL);
	struct trange r;
	struct freeze_options opt = nowhere(&s, &r);
	struct freeze *f = NULL;
	target__kill(s.target);
	REFUSED(freeze__begin(s.p, &opt, &f), ERR_GONE, "ended");
	scene__close(&s);
}
