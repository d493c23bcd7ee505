/* Law 3 for what is not a call: all that the processor and the kernel keep for a thread and a process is as before
 * after an update, and timers and signals that come meanwhile arrive: see fixtures/drivers/registers_driver.c. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stage.h"

TestSuite(registers, .fini = support__teardown, .timeout = 100);

static struct target *start(const struct stage *st, const char *threads, const char *more)
{
	struct target *t =
	    stage__start(st, (const char *const[]){FIXTURE_DIR "/registers_driver", threads, more, NULL});
	const char *line = target__hear(t);
	cr_assert_eq(strncmp(line, "ready ", 6), 0, "the driver says: %s", line);
	if (strcmp(line, "ready avx512") != 0)
		fprintf(stderr, "skipped, as it cannot run here: vectors wider than those of '%s'\n", line);
	return t;
}

static void expect_ok(struct target *t, const char *what)
{
	const char *line = target__hear(t);
	cr_assert_eq(strncmp(line, "ok ", 3), 0, "%s: %s", what, line);
}

static void ask(struct target *t, const char *what)
{
	target__say(t, what);
	expect_ok(t, what);
}

/* Timers expire and signals come while it is updated. */
static void updates(const char *threads)
{
	enum { TIMES = 5 };
	struct stage st = stage__new();
	struct target *t = start(&st, threads, NULL);
	ask(t, "check");
	for (int i = 0; i < TIMES; i++) {
		ask(t, "arm");
		target__say(t, "stream");
		stage__update(&st, t, i % 2);
		stage__update(&st, t, false);
		expect_ok(t, "stream");
		ask(t, "settle");
		ask(t, "check");
	}
	free(target__finish(t));
}

/* Its only thread, which runs all the time. */
Test(registers, of_a_thread_that_is_borrowed)
{
	updates("1");
}

/* One of them is borrowed, all are stopped. */
Test(registers, of_threads_that_are_stopped)
{
	updates("3");
}

/* A request for notification ends when a descriptor of the queue is closed in the process (mq_notify(3)), as the
 * hand does with its own. */
Test(registers, and_a_request_for_notification_stays)
{
	struct stage st = stage__new();
	struct target *t = start(&st, "1", "mq_notify");
	ask(t, "check");
	stage__flip(&st);
	struct result r = stage__llvupdate(path_of("%d", target__pid(t)), NULL);
	cr_expect_eq(r.exit_code, 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_expect(text__has(r.out, "message queue"), "%s", r.out);
	result__free(&r);
	ask(t, "check");
	free(target__finish(t));
}
