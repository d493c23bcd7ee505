/* A thread asleep in a system call is borrowed, and the call ends as if nothing had happened. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/syscall.h>

#include "scene.h"
#include "support/support.h"

TestSuite(calls, .fini = support__teardown, .timeout = 100);

static void raise_and_dismiss(const struct scene *s, int timeout_ms)
{
	struct hand *h = NULL;
	int64_t result = 0;
	OK(hand__raise(s->p, &s->place, timeout_ms, &h));
	OK(hand__call(h, SYS_getpid, (const uint64_t[6]){0}, &result));
	cr_assert_eq(result, process__pid(s->p));
	hand__dismiss(h);
	scene__wait_threads(s, 1);
}

/* Calls that an event ends: borrowed three times, then the event comes. */
static const char *const event_calls[] = {
    "read",      "recv",  "recv_timeo", "read_timeo", "accept",     "accept_timeo", "epoll",       "epoll_pwait",
    "poll",      "ppoll", "select",     "pause",      "sigsuspend", "sigtimedwait", "sigwaitinfo", "futex",
    "futex_abs", "semop", "semtimedop", "msgrcv",     "wait",       "flock",
};

Test(calls, wait_on_for_their_event)
{
	for (size_t i = 0; i < sizeof(event_calls) / sizeof(event_calls[0]); i++) {
		struct scene s = scene__start("one_call", event_calls[i], NULL);
		struct thread_view v = scene__wait_asleep(&s, 0, SYS_write);
		for (int k = 0; k < 3; k++) {
			raise_and_dismiss(&s, 2000);
			struct thread_view again = scene__wait_asleep(&s, 0, -1);
			cr_expect_eq(again.nr, v.nr, "%s: sleeps in call %d, not %d", event_calls[i], (int)again.nr,
				     (int)v.nr);
			cr_expect_eq(again.sp.v, v.sp.v, "%s: the stack pointer moved", event_calls[i]);
			cr_expect_eq(again.pc.v, v.pc.v, "%s: the program counter moved", event_calls[i]);
			cr_expect_arr_eq(again.arg, v.arg, sizeof(v.arg));
		}
		target__say(s.target, "go");
		const char *line = target__hear(s.target);
		cr_expect_str_eq(line, "ok", "%s: %s", event_calls[i], line);
		scene__close(&s);
	}
}

/* Calls that a time ends. Some can be made anew; in the others the thread is borrowed when the call is
 * over, and not before. */
static const char *const timed_calls[] = {
    "epoll_time", "poll_time", "ppoll_time", "select_time", "sigwait_time", "nanosleep", "nanosleep_abs", "futex_time",
};

Test(calls, end_at_their_time)
{
	for (size_t i = 0; i < sizeof(timed_calls) / sizeof(timed_calls[0]); i++) {
		struct scene s = scene__start("one_call", timed_calls[i], NULL);
		scene__wait_asleep(&s, 0, SYS_write);
		raise_and_dismiss(&s, 5000);
		const char *line = target__hear(s.target);
		cr_expect_str_eq(line, "ok", "%s: %s", timed_calls[i], line);
		scene__close(&s);
	}
}

/* When the wait for such a thread is given up, it is sent back to sleep for the time that is left. */
Test(calls, given_up_end_at_their_time)
{
	static const char *const names[] = {"poll_time", "nanosleep", "futex_time"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct scene s = scene__start("one_call", names[i], NULL);
		struct hand *h = NULL;
		scene__wait_asleep(&s, 0, SYS_write);
		for (int k = 0; k < 3; k++)
			REFUSED(hand__raise(s.p, &s.place, 20, &h), ERR_RETRY, "timeout");
		const char *line = target__hear(s.target);
		cr_expect_str_eq(line, "ok", "%s: %s", names[i], line);
		scene__close(&s);
	}
}
