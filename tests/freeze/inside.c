/* The freeze finds every thread that is, or will return, inside, and no other. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "freeze/freeze.h"
#include "scene.h"
#include "support/support.h"

TestSuite(inside, .fini = support__teardown, .timeout = 60);

struct sight {
	struct target *target;
	struct process *p;
	struct trange inside;
	pid_t tid;
};

/* Starts fixtures/inside; `asleep`: waits until its thread sleeps as well. */
static struct sight see(const char *how, bool asleep)
{
	const char *argv[] = {path_of("%s/inside", FIXTURE_DIR), how, NULL};
	struct sight s = {.target = target__start(argv, NULL)};
	const char *line = target__hear(s.target);
	unsigned long from = 0;
	unsigned long to = 0;
	cr_assert_eq(sscanf(line, "inside=%lx-%lx tid=%d", &from, &to, &s.tid), 3, "%s", line);
	s.inside = (struct trange){{from}, {to}};
	OK(process__open(target__pid(s.target), &s.p));
	struct scene scene = {.target = s.target, .p = s.p};
	scene__wait_asleep(&scene, 0, SYS_write); /* the first thread waits for a line */
	if (asleep)
		scene__wait_asleep(&scene, s.tid, -1);
	return s;
}

static struct err *freeze(const struct sight *s, struct freeze **f)
{
	struct freeze_options opt = {.inside = &s->inside, .n_inside = 1, .stop_ms = 1000};
	return freeze__begin(s->p, &opt, f);
}

/* After a freeze, granted or not, the program goes on to its end. */
static void leaves(struct sight *s)
{
	struct scene scene = {.p = s->p};
	scene__wait_threads(&scene, 2);
	target__ask(s->target, "leave", "left");
	process__close(s->p);
}

static void must_be_inside(const char *how, bool asleep, const char *words)
{
	struct sight s = see(how, asleep);
	struct freeze *f = NULL;
	struct err *e = freeze(&s, &f);
	char who[32];
	snprintf(who, sizeof(who), "thread %d", s.tid);
	cr_assert(e, "%s: was taken to be outside", how);
	cr_expect(strstr(err__text(e), who), "%s: names another thread: %s", how, err__text(e));
	REFUSED(e, ERR_RETRY, words);
	leaves(&s);
}

static void must_be_outside(const char *how, bool asleep, size_t stopped)
{
	struct sight s = see(how, asleep);
	struct freeze *f = NULL;
	struct freeze_stats st;
	OK(freeze(&s, &f));
	freeze__stats(f, &st);
	cr_expect_eq(st.threads, 2);
	cr_expect_eq(st.stopped, stopped, "%s: %zu stopped", how, st.stopped);
	cr_expect_eq(st.asleep, 2 - stopped, "%s: %zu asleep", how, st.asleep);
	uint64_t ns = freeze__thaw(f);
	cr_expect_eq(ns != 0, stopped != 0);
	leaves(&s);
}

Test(inside, running_in_the_code)
{
	must_be_inside("runs", false, "is inside the code");
}

Test(inside, will_return_into_the_code)
{
	must_be_inside("called", false, "will return into the code");
}

Test(inside, asleep_and_will_return_into_the_code)
{
	must_be_inside("sleeps", true, "will return into the code");
}

Test(inside, on_an_alternate_stack)
{
	must_be_inside("altstack", false, "will return into the code");
}

Test(inside, on_an_alternate_stack_above_the_interrupted_code)
{
	must_be_inside("nested", false, "will return into the code");
}

Test(inside, on_a_coroutine_that_the_code_switched_to)
{
	must_be_inside("coroutine", false, "");
}

/* What cannot be told counts as inside. */
Test(inside, stale_words_that_cannot_be_unwound)
{
	must_be_inside("no_cfi", false, "cannot be unwound");
}

/* A stop would cut the write short, so this sleeper is not stopped to be unwound. */
Test(inside, asleep_in_a_write_with_stale_words)
{
	struct sight s = see("stale_write", true);
	struct freeze *f = NULL;
	REFUSED(freeze(&s, &f), ERR_RETRY, "on its stack (it waits in write(2))");
	process__close(s.p);
}

Test(inside, not_a_thread_that_never_was)
{
	must_be_outside("leaf", false, 1);
}

Test(inside, not_stale_words_below_live_frames)
{
	must_be_outside("stale", false, 1);
}

Test(inside, not_stale_words_of_a_sleeper)
{
	must_be_outside("stale_sleep", true, 1);
}

Test(inside, not_a_handler_on_an_alternate_stack)
{
	must_be_outside("altstack_out", false, 1);
}

Test(inside, not_a_coroutine)
{
	must_be_outside("coroutine_out", false, 1);
}
