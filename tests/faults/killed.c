/* Law 1: llvupdate is killed at every place that changes a process or leaves a file, on the way to a new build and on
 * the way back, while the program is at work; the program is well, cllvupdate cleans up, and the next update succeeds.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bed.h"
#include "table.h"

TestSuite(killed, .fini = support__teardown, .timeout = 3000);

#ifdef SANITIZED
enum { BUDGET = 14, BUDGET_UNPREPARED = 5, STOPPED_STRIDE = 9, BUDGET_CLEANING = 3 };
#else
enum { BUDGET = 50, BUDGET_UNPREPARED = 20, STOPPED_STRIDE = 4, BUDGET_CLEANING = 8 };
#endif

enum { UPDATES = 3, MISSES = 20 };

/* What points there are on the way to build `v`. The program runs it afterwards. */
static struct places list_places(struct bed *b, int v)
{
	const char *file = path_of("%s/points.%d", b->dir, v);
	unlink(file); /* llvupdate adds to it */
	bed__install(b, v);
	struct result r = bed__update(b, (const char *const[]){path_of("LLU_FAULT_LIST=%s", file), NULL});
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	bed__is(b, v, "undisturbed");
	return places__read(file);
}

/* What to try: all points for the table, else each place, but for those in front of a step: for the process
 * they are those behind the step before. */
struct trials {
	const char **when, **place;
	size_t n;
	size_t missed; /* one after the other */
};

static struct trials trials_of(const struct places *p)
{
	size_t n = table__is_wanted() ? p->n : p->n_distinct;
	struct trials t = {.when = calloc(n, sizeof(char *)), .place = calloc(n, sizeof(char *))};
	for (size_t i = 0; i < n; i++) {
		const char *place = table__is_wanted() ? p->all[i] : p->distinct[i];
		if (!table__is_wanted() && strstr(place, " before:"))
			continue;
		t.when[t.n] = table__is_wanted() ? path_of("%zu", i + 1) : place;
		t.place[t.n++] = place;
	}
	return t;
}

static void trials__free(struct trials *t)
{
	free(t->when);
	free(t->place);
}

/* Kills llvupdate at `when` on the way to `next`, which the program runs in the end. True: it came there. llvupdate
 * itself takes leftovers away too: without `cleans` nobody else does. */
static bool kill_at(struct bed *b, const struct trials *t, size_t k, int next, bool cleans)
{
	const char *when = t->when[k], *place = t->place[k];
	int before = b->live;
	bed__install(b, next);
	struct result r = bed__update(b, (const char *const[]){path_of("LLU_FAULT=%s", when), NULL});
	bool killed = r.exit_code == -SIGKILL;
	cr_assert(killed || r.exit_code == 0, "%s: exit code %d\n%s%s", place, r.exit_code, r.out, r.err);
	result__free(&r);
	if (killed)
		place = b->killed_at; /* chosen by number it may be a neighbour: runs differ */
	bed__check(b, before, next, path_of("killed at %s", place));
	bool interrupted = b->any_interrupted;
	bool any = false;
	if (cleans) {
		any = bed__cleaned_up(b, path_of("killed at %s", place));
		cr_assert(killed || !any, "%s: something to clean up behind an update that succeeded", place);
		bed__check(b, before, next, path_of("killed at %s, cleaned up", place));
	}
	bed__updated(b, next, path_of("killed at %s, cleaned up", place));
	if (!cleans)
		(void)bed__cleaned_up(b, path_of("killed at %s, updated", place));
	if (killed)
		table__add("llvupdate killed", place,
			   path_of("well%s; %s", interrupted ? " but for one EINTR" : "",
				   any ? "cleaned up" : "nothing to clean up"));
	return killed;
}

static size_t longest(const struct trials t[UPDATES])
{
	size_t n = 0;
	for (int i = 0; i < UPDATES; i++)
		n = t[i].n > n ? t[i].n : n;
	return n;
}

/* Tries the `k`th. By numbers there is an end where runs have no more points than that: the one that was listed may
 * have met a thread inside, and tried again. True: it came there. */
static bool try_at(struct bed *b, struct trials *t, size_t k, int next, bool cleans)
{
	bool came = kill_at(b, t, k, next, cleans);
	t->missed = came ? 0 : t->missed + 1;
	if (table__is_wanted() && t->missed == MISSES)
		t->n = k;
	return came;
}

/* Three updates of one program: the first passes places that later ones do not, the second may take back the code of
 * the library's own file, the third finds constants of the same build, whose code was retired. */
static void kill_at_every_place(struct bed b, size_t budget)
{
	size_t tried = 0, came = 0;
	bed__start(&b);
	struct places on_the_way = list_places(&b, 2), back = list_places(&b, 1), again = list_places(&b, 2);
	struct places *const places[] = {&on_the_way, &back, &again};
	struct trials trials[] = {trials_of(&on_the_way), trials_of(&back), trials_of(&again)};
	size_t n = longest(trials), stride = table__stride(n, budget);
	bed__stop(&b);
	cr_assert_gt(trials[0].n, 80, "only %zu places", trials[0].n);
	for (size_t k = 0; k < longest(trials); k += stride) {
		bed__start(&b);
		for (int i = 0; i < UPDATES; i++) {
			int next = i % 2 ? 1 : 2;
			if (k < trials[i].n) {
				came += try_at(&b, &trials[i], k, next, table__is_wanted() || tried % 2 == 0);
				tried++;
			} else {
				bed__install(&b, next);
				bed__updated(&b, next, "undisturbed");
			}
		}
		bed__stop(&b);
	}
	fprintf(stderr, "%zu of %zu places reached\n", came, tried);
	cr_assert_gt(came, (tried - (table__is_wanted() ? UPDATES * MISSES : 0)) * 6 / 10,
		     "of %zu places only %zu were reached", tried, came);
	for (int i = 0; i < UPDATES; i++) {
		trials__free(&trials[i]);
		places__free(places[i]);
	}
}

Test(killed, at_every_place)
{
	kill_at_every_place(bed__make(), BUDGET);
}

/* Where nothing is split, room is made beside the libraries first. */
Test(killed, at_every_place_unprepared)
{
	kill_at_every_place(bed__make_unprepared(), BUDGET_UNPREPARED);
}

/* ---- the exchange stops, as a call fails, and llvupdate dies before it has mended that ---- */

static bool is_of_batch(const char *call)
{
	return strstr(call, "hand__load_batch") != NULL;
}

/* The places of an update that met no thread inside a library: each batch was loaded once, and calls have the numbers
 * that they have in any other such update. The libraries are two groups. */
static struct places list_calm(struct bed *b)
{
	enum { GROUPS = 2 };
	for (int i = 0;; i++) {
		size_t loads = 0;
		bed__start(b);
		struct places p = list_places(b, 2);
		bed__stop(b);
		for (size_t k = 0; k < p.n; k++)
			loads += strstr(p.all[k], "write before: process__write<hand__load_batch") != NULL;
		if (loads == GROUPS)
			return p;
		cr_assert_lt(i, 50, "batches were loaded %zu times", loads);
		places__free(&p);
	}
}

/* A program, and llvupdate with these faults. Where a thread is inside the library, the batch is loaded once more, and
 * the call that was to fail is not part of what runs: then all of it once more. */
static struct result start_and_fail(struct bed *b, const char *const faults[])
{
	for (int i = 0;; i++) {
		bed__start(b);
		bed__install(b, 2);
		struct result r = bed__update(b, faults);
		if (r.exit_code != 0)
			return r;
		cr_assert_lt(i, 50, "the fault does not come:\n%s%s", r.out, r.err);
		result__free(&r);
		bed__stop(b);
	}
}

/* What points there are when call `k` fails; the program has the old build in the end, or the new one. */
static struct places list_failing(struct bed *b, const char *call)
{
	const char *file = path_of("%s/failing.%s", b->dir, call);
	unlink(file);
	struct result r = start_and_fail(
	    b, (const char *const[]){path_of("LLU_FAULT_CALL=%s", call), path_of("LLU_FAULT_LIST=%s", file), NULL});
	cr_assert(r.exit_code == 3 || r.exit_code == 4, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	bed__well(b, "a call fails");
	bed__stop(b);
	return places__read(file);
}

static void stop_exchange(struct bed *b, const char *call, const char *place)
{
	const char *when = path_of("call %s fails, killed at %s", call, place);
	struct result r = start_and_fail(
	    b, (const char *const[]){path_of("LLU_FAULT_CALL=%s", call), path_of("LLU_FAULT=%s", place), NULL});
	cr_assert(r.exit_code == -SIGKILL || r.exit_code == 3 || r.exit_code == 4, "%s: exit code %d\n%s%s", when,
		  r.exit_code, r.out, r.err);
	bool killed = r.exit_code == -SIGKILL;
	result__free(&r);
	bed__well(b, when); /* the two of the pair may be apart now */
	bool any = bed__cleaned_up(b, when);
	cr_assert(any || !killed, "%s: nothing to clean up", when);
	bed__check(b, 1, 2, when);
	bed__updated(b, 2, when);
	bed__install(b, 1);
	bed__updated(b, 1, when);
	if (killed)
		table__add("call fails, llvupdate killed", place, "well; cleaned up");
	bed__stop(b);
}

/* Every step of the exchange fails in turn; llvupdate dies in front of each step of mending it. */
Test(killed, while_a_stopped_exchange_is_mended)
{
	struct bed b = bed__make();
	size_t seen = 0, tried = 0;
	struct places there = list_calm(&b);
	for (size_t k = 0; k < there.n_calls; k++) {
		const char *call = path_of("%zu:%d", k + 1, ENOMEM);
		if (!is_of_batch(there.calls[k]))
			continue;
		struct places failing = list_failing(&b, call);
		for (size_t i = 0; i < failing.n_distinct; i++) {
			if (!strstr(failing.distinct[i], "<exchange__run") || strstr(failing.distinct[i], " after:"))
				continue;
			if (!table__is_wanted() && seen++ % STOPPED_STRIDE != 0)
				continue;
			tried++;
			stop_exchange(&b, call, failing.distinct[i]);
		}
		places__free(&failing);
	}
	cr_assert_gt(tried, 5, "only %zu", tried);
	places__free(&there);
}

/* ---- cllvupdate is killed as well ---- */

/* How a dead llvupdate left the program. */
struct mess {
	const char *name;
	const char *killed_at; /* words of the place */
	unsigned step;         /* of the exchange that fails before, counted from 1; 0: none */
};

static const struct mess messes[] = {
    {"pages mapped", "write after: process__write<map_shadows", 0},
    {"exchange stopped before a table", "<hand__forget_batch<exchange__run", 2},
    {"exchange stopped behind a table", "<mend<exchange__run", 4},
};

/* Settings for llvupdate that make the mess, found out with a program of its own. */
static void learn(struct bed *b, const struct places *there, const struct mess *m, const char *faults[3])
{
	const char *call = NULL;
	unsigned step = 0;
	for (size_t k = 0; k < there->n_calls && m->step && !call; k++)
		if (is_of_batch(there->calls[k]) && ++step == m->step)
			call = path_of("%zu:%d", k + 1, ENOMEM);
	struct places failing = {0};
	if (call)
		failing = list_failing(b, call);
	const char *place = places__find(call ? &failing : there, m->killed_at);
	cr_assert(place, "%s: no such place", m->name);
	faults[0] = path_of("LLU_FAULT=%s", place);
	faults[1] = call ? path_of("LLU_FAULT_CALL=%s", call) : NULL;
	faults[2] = NULL;
	places__free(&failing);
}

static void make_mess(struct bed *b, const struct mess *m, const char *const faults[])
{
	struct result r = start_and_fail(b, faults);
	cr_assert_eq(r.exit_code, -SIGKILL, "%s: exit code %d\n%s%s", m->name, r.exit_code, r.out, r.err);
	result__free(&r);
	bed__well(b, m->name);
}

static void kill_cleaner(struct bed *b, const struct mess *m, const char *const faults[], const char *place)
{
	const char *when = path_of("%s, cllvupdate killed at %s", m->name, place);
	make_mess(b, m, faults);
	struct result r = bed__clean_up(b, (const char *const[]){path_of("LLU_FAULT=%s", place), NULL});
	cr_assert(r.exit_code == -SIGKILL || r.exit_code == 0, "%s: exit code %d\n%s%s", when, r.exit_code, r.out,
		  r.err);
	bool killed = r.exit_code == -SIGKILL;
	result__free(&r);
	bed__well(b, when);
	bool any = bed__cleaned_up(b, when);
	bed__check(b, 1, 2, when);
	bed__updated(b, 2, when);
	if (killed)
		table__add("cllvupdate killed", place, any ? "well; cleaned up" : "well; nothing to clean up");
	bed__stop(b);
}

Test(killed, cllvupdate_itself)
{
	struct bed b = bed__make();
	struct places there = list_calm(&b);
	for (size_t i = 0; i < sizeof(messes) / sizeof(messes[0]); i++) {
		const char *faults[3], *file = path_of("%s/cleaning.%zu", b.dir, i);
		learn(&b, &there, &messes[i], faults);
		make_mess(&b, &messes[i], faults);
		struct result r = bed__clean_up(&b, (const char *const[]){path_of("LLU_FAULT_LIST=%s", file), NULL});
		cr_assert_eq(r.exit_code, 0, "%s: exit code %d\n%s%s", messes[i].name, r.exit_code, r.out, r.err);
		result__free(&r);
		bed__check(&b, 1, 2, messes[i].name);
		bed__stop(&b);
		struct places cleaning = places__read(file);
		size_t n = cleaning.n_distinct, step = table__stride(n, BUDGET_CLEANING);
		cr_assert_gt(n, 10, "%s: only %zu places", messes[i].name, n);
		for (size_t k = 0; k < n; k += step)
			kill_cleaner(&b, &messes[i], faults, cleaning.distinct[k]);
		places__free(&cleaning);
	}
	places__free(&there);
}
