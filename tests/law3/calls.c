/* Law 3, call by call: a thread sleeps in a system call, outside of the library; the process is updated, by llvupdate;
 * and the call ends as if nothing had happened. The calls are those of fixtures/drivers/calls. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stage.h"

TestSuite(calls, .fini = support__teardown, .timeout = 200);

static const char llvupdate[] = COMMAND_DIR "/llvupdate";

static bool is_event(const struct row *r)
{
	return !r->timed;
}
static bool is_timed(const struct row *r)
{
	return r->timed;
}
static bool may_be_stopped(const struct row *r)
{
	return !r->timed && r->stop != NEVER;
}
static bool may_be_borrowed(const struct row *r)
{
	return !r->timed && r->stop == MADE_AGAIN;
}
static bool may_not_be_stopped(const struct row *r)
{
	return !r->timed && r->stop == NEVER;
}
static bool shows_signals(const struct row *r)
{
	return !r->timed && !r->handled;
}

static struct rows only(const struct row *r)
{
	struct rows rows = {.n = 1};
	rows.row[0] = *r;
	return rows;
}

static void expect_ok(const struct sleepers *s, const struct outcome *o)
{
	for (size_t i = 0; i < s->rows.n; i++)
		cr_expect_str_eq(o[i].text, "ok", "%s: %s", s->rows.row[i].name, o[i].text);
}

static void release(struct sleepers *s)
{
	struct outcome o[ROWS_MAX];
	target__say(s->t, "go");
	sleepers__hear(s, o);
	expect_ok(s, o);
}

/* Were threads asleep tried for the clone, as none that runs could be stopped in time on a machine with much to do? The
 * first thread, which waits for the others, would be the first to be tried. */
static bool had_to_borrow_a_sleeper(const struct sleepers *s, uint64_t first_before)
{
	pid_t pid = target__pid(s->t);
	return switches(pid, pid) != first_before;
}

/* By default they are not even woken, with --strict they are. */
static void update_groups(bool (*fit)(const struct row *r), bool strict)
{
	enum { GROUP = 8 };
	struct stage st = stage__new();
	struct rows all = rows__that(fit);
	for (size_t i = 0; i < all.n; i += GROUP) {
		struct rows rows = {.n = all.n - i < GROUP ? all.n - i : GROUP};
		struct sleepers s;
		uint64_t before[GROUP] = {0};
		memcpy(rows.row, &all.row[i], rows.n * sizeof(rows.row[0]));
		if (!sleepers__start(&st, "busy", "restart", &rows, &s))
			continue;
		pid_t pid = target__pid(s.t);
		uint64_t first = switches(pid, pid);
		for (size_t k = 0; k < s.rows.n; k++)
			before[k] = switches(pid, s.tid[k]);
		stage__update(&st, s.t, strict);
		for (size_t k = 0; k < s.rows.n; k++) {
			bool woken = switches(pid, s.tid[k]) != before[k];
			bool right = strict ? woken : !woken || had_to_borrow_a_sleeper(&s, first);
			cr_expect(right, "%s: %s", s.rows.row[k].name, woken ? "woken" : "was not stopped");
		}
		release(&s);
	}
}

Test(calls, end_as_if_there_had_been_no_update)
{
	update_groups(is_event, false);
}

Test(calls, end_as_if_they_had_not_been_stopped)
{
	update_groups(may_be_stopped, true);
}

/* The one thread there is makes the clone, twice. */
Test(calls, that_lend_their_thread)
{
	struct stage st = stage__new();
	struct rows rows = rows__that(may_be_borrowed);
	for (size_t i = 0; i < rows.n; i++) {
		struct rows row = only(&rows.row[i]);
		struct sleepers s;
		if (!sleepers__start(&st, "alone", "restart", &row, &s))
			continue;
		uint64_t before = switches(target__pid(s.t), s.tid[0]);
		stage__update(&st, s.t, false);
		stage__update(&st, s.t, false);
		cr_expect_gt(switches(target__pid(s.t), s.tid[0]), before, "%s: not borrowed", row.row[0].name);
		release(&s);
	}
}

/* --- --strict, and a call that it must not stop --- */

enum { AT_ONCE = 12 };

struct refused {
	struct sleepers s;
	const char *log;
	pid_t update;
};

static void begin_refused(const struct stage *st, const struct row *r, struct refused *x)
{
	struct rows row = only(r);
	if (!sleepers__start(st, "quiet", "restart", &row, &x->s))
		return;
	x->log = path_of("%s/log-%s", st->dir, r->name);
}

static void end_refused(struct refused *x)
{
	char text[4096] = "";
	cr_expect_eq(command__wait(x->update, 60), 3, "%s", x->s.rows.row[0].name);
	FILE *f = fopen(x->log, "r");
	cr_assert(f);
	(void)!fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	const char *why =
	    path_of("thread %d: it sleeps in a call that a stop would disturb \\(it waits in", x->s.tid[0]);
	cr_expect(text__has(text, why), "%s: no word of '%s' in:\n%s", x->s.rows.row[0].name, why, text);
	release(&x->s);
}

Test(calls, that_a_stop_would_disturb_refuse_strict)
{
	struct stage st = stage__new();
	struct rows rows = rows__that(may_not_be_stopped);
	for (size_t i = 0; i < rows.n; i += AT_ONCE) {
		static struct refused x[AT_ONCE];
		size_t n = rows.n - i < AT_ONCE ? rows.n - i : AT_ONCE;
		memset(x, 0, sizeof(x));
		for (size_t k = 0; k < n; k++)
			begin_refused(&st, &rows.row[i + k], &x[k]);
		stage__flip(&st);
		for (size_t k = 0; k < n; k++)
			if (x[k].log)
				x[k].update = command__start(
				    (const char *const[]){llvupdate, "-p", path_of("%d", target__pid(x[k].s.t)), "-l",
							  x[k].log, "--strict", "-n", "1", "-t", "1", NULL});
		for (size_t k = 0; k < n; k++)
			if (x[k].log)
				end_refused(&x[k]);
	}
}

/* --- many threads, many updates --- */

#ifdef __SANITIZE_ADDRESS__
enum { BACK_AND_FORTH = 6 }; /* llvupdate takes several times as long */
#else
enum { BACK_AND_FORTH = 20 };
#endif

static void back_and_forth(bool (*fit)(const struct row *r), bool strict)
{
	struct stage st = stage__new();
	struct rows rows = rows__that(fit);
	struct sleepers s;
	cr_assert(sleepers__start(&st, "busy", "restart", &rows, &s));
	for (int i = 0; i < BACK_AND_FORTH; i++)
		stage__update(&st, s.t, strict);
	release(&s);
}

Test(calls, of_many_threads_through_many_updates)
{
	back_and_forth(is_event, false);
}

Test(calls, of_many_threads_through_many_updates_that_stop_them)
{
	back_and_forth(may_be_stopped, true);
}

/* --- calls that a time ends --- */

enum { SLACK_MS = 700 }; /* for a machine with more to do */

/* None ends early. Those whose time starts anew end CALL_TIME_MS after `stopped` at the latest, all others after
 * their start. */
static void expect_times(const struct sleepers *s, const struct outcome *o, int64_t stopped)
{
	for (size_t i = 0; i < s->rows.n; i++) {
		const struct row *r = &s->rows.row[i];
		int64_t from = r->timeout == ANEW && stopped > o[i].start ? stopped : o[i].start;
		cr_expect_geq(o[i].end - o[i].start, CALL_TIME_MS - 2, "%s: only %d ms", r->name,
			      (int)(o[i].end - o[i].start));
		cr_expect_leq(o[i].end - from, CALL_TIME_MS + SLACK_MS, "%s: %d ms, %d of them after the last stop",
			      r->name, (int)(o[i].end - o[i].start), (int)(o[i].end - stopped));
	}
	expect_ok(s, o);
}

Test(calls, end_at_their_time_when_left_asleep)
{
	struct stage st = stage__new();
	struct rows rows = rows__that(is_timed);
	struct sleepers s;
	struct outcome o[ROWS_MAX];
	uint64_t before[ROWS_MAX] = {0};
	cr_assert(sleepers__start(&st, "busy", "restart", &rows, &s));
	uint64_t first = switches(target__pid(s.t), target__pid(s.t));
	for (size_t i = 0; i < s.rows.n; i++)
		before[i] = switches(target__pid(s.t), s.tid[i]);
	stage__update(&st, s.t, false);
	for (size_t i = 0; i < s.rows.n; i++)
		cr_expect(switches(target__pid(s.t), s.tid[i]) == before[i] || had_to_borrow_a_sleeper(&s, first),
			  "%s: woken", s.rows.row[i].name);
	int64_t stopped = had_to_borrow_a_sleeper(&s, first) ? support__now_ms() : 0;
	sleepers__hear(&s, o);
	expect_times(&s, o, stopped);
}

/* They are stopped again and again for more than the time by which one may be late. */
Test(calls, end_at_their_time_when_stopped)
{
	struct stage st = stage__new();
	struct rows rows = rows__that(is_timed);
	struct sleepers s;
	struct outcome o[ROWS_MAX];
	int64_t begun = support__now_ms();
	int64_t stopped = begun;
	cr_assert(sleepers__start(&st, "busy", "restart", &rows, &s));
	while (stopped - begun < CALL_TIME_MS * 2 / 3) {
		stage__update(&st, s.t, true);
		stopped = support__now_ms();
	}
	sleepers__hear(&s, o);
	expect_times(&s, o, stopped);
}

/* A process each, of one thread. Those whose call only the kernel can continue lend it when the call is over. */
Test(calls, end_at_their_time_when_borrowed)
{
	struct stage st = stage__new();
	struct rows rows = rows__that(is_timed);
	static struct sleepers s[ROWS_MAX];
	char pids[ROWS_MAX * 8] = "";
	size_t n = 0;
	for (size_t i = 0; i < rows.n; i++) {
		struct rows row = only(&rows.row[i]);
		if (!sleepers__start(&st, "alone", "restart", &row, &s[n]))
			continue;
		snprintf(pids + strlen(pids), sizeof(pids) - strlen(pids), "%d ", target__pid(s[n].t));
		n++;
	}
	stage__flip(&st);
	struct result r = stage__llvupdate(pids, NULL);
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	int64_t stopped = support__now_ms();
	for (size_t i = 0; i < n; i++) {
		struct outcome o;
		sleepers__hear(&s[i], &o);
		expect_times(&s[i], &o, stopped);
	}
}

/* --- signals --- */

enum when { NO_UPDATE, BEFORE, MEANWHILE };

/* What comes of calls in which a signal is handled, with an update before the signal or about the same time. */
static struct rows alarmed(struct stage *st, const char *signals, const struct rows *rows, enum when when, bool strict,
			   struct outcome *o)
{
	struct sleepers s;
	pid_t update = 0;
	cr_assert(sleepers__start(st, "busy", signals, rows, &s));
	if (when == BEFORE)
		stage__update(st, s.t, strict);
	if (when == MEANWHILE) {
		stage__flip(st);
		update = command__start((const char *const[]){llvupdate, "-p", path_of("%d", target__pid(s.t)), "-l",
							      "/dev/null", strict ? "--strict" : NULL, NULL});
	}
	target__ask(s.t, "alarm", "alarmed");
	if (update)
		cr_expect_eq(command__wait(update, 60), 0);
	target__say(s.t, "go");
	sleepers__hear(&s, o);
	return s.rows;
}

static void compare(struct stage *st, const char *signals, bool (*fit)(const struct row *r), bool strict)
{
	enum { TIMES = 3 };
	struct rows rows = rows__that(fit);
	struct outcome plain[ROWS_MAX];
	struct outcome o[ROWS_MAX];
	rows = alarmed(st, signals, &rows, NO_UPDATE, false, plain);
	for (int k = 0; k <= TIMES; k++) {
		alarmed(st, signals, &rows, k ? MEANWHILE : BEFORE, strict, o);
		for (size_t i = 0; i < rows.n; i++) {
			cr_expect_str_eq(o[i].text, plain[i].text, "%s, %s%s: %s; without an update: %s",
					 rows.row[i].name, signals, strict ? ", --strict" : "", o[i].text,
					 plain[i].text);
			cr_expect_eq(o[i].alarms, 1);
		}
	}
}

static bool shows_signals_and_stops(const struct row *r)
{
	return shows_signals(r) && may_be_stopped(r);
}

Test(calls, are_interrupted_as_without_an_update)
{
	struct stage st = stage__new();
	compare(&st, "interrupt", shows_signals, false);
	compare(&st, "interrupt", shows_signals_and_stops, true);
}

Test(calls, are_restarted_as_without_an_update)
{
	struct stage st = stage__new();
	compare(&st, "restart", shows_signals, false);
	compare(&st, "restart", shows_signals_and_stops, true);
}

/* --- the table for people --- */

Test(calls, are_in_the_table_of_the_documentation)
{
	static char text[65536];
	setenv("LD_LIBRARY_PATH", FIXTURE_DIR "/lib/v1", 1);
	struct result r = command__run((const char *const[]){FIXTURE_DIR "/calls_driver", "--table", NULL}, 60);
	FILE *f = fopen(SOURCE_DIR "/docs/calls.md", "r");
	cr_assert(f);
	(void)!fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	cr_assert(strstr(text, r.out), "docs/calls.md has not the table that `calls_driver --table` prints:\n%s",
		  r.out);
	result__free(&r);
}
