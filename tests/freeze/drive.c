/* A thread that is driven out comes by the pad, whichever way it leaves, and nothing is left behind when it does not;
 * also when the tool is killed with the return address replaced. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "freeze/freeze.h"
#include "remap/discover.h"
#include "scene.h"

TestSuite(drive, .fini = support__teardown, .timeout = 100);

enum { PATIENCE_MS = 10000, RANGES_MAX = 4 };

/* A driver on the split libdrive, and what the freeze wants to know about it. */
struct sight {
	struct scene scene;
	struct process *p;
	loaded_list libraries;
	struct hand_place park;
	struct trange inside[RANGES_MAX];
	size_t n_inside;
};

static void ok(struct err *e)
{
	if (e)
		cr_assert_fail("%s", err__text(e));
}

static struct sight see(void)
{
	struct sight s = {.scene = scene__begin("drive", "v1")};
	struct image_segment segments[RANGES_MAX];
	ok(process__open(target__pid(s.scene.target), &s.p));
	ok(discover__libraries(s.p, DISCOVER_SPLIT, &s.libraries));
	cr_assert_eq(s.libraries.n, 1);
	const struct loaded *l = &s.libraries.items[0];
	s.park = loaded__hand_place(l);
	size_t n = image_file__segments(l->vapi, segments, RANGES_MAX);
	for (size_t i = 0; i < n; i++)
		if (segments[i].exec)
			s.inside[s.n_inside++] = (struct trange){loaded__at(l, segments[i].at),
								 loaded__at(l, segments[i].at + segments[i].len)};
	return s;
}

static void close_sight(struct sight *s)
{
	loaded_list__free(&s->libraries);
	process__close(s->p);
}

static struct err *freeze(const struct sight *s, int drive_ms, struct freeze **f)
{
	struct freeze_options opt = {
	    .inside = s->inside, .n_inside = s->n_inside, .park = &s->park, .drive_ms = drive_ms, .stop_ms = 1000};
	return freeze__begin(s->p, &opt, f);
}

static bool armed(const struct sight *s)
{
	struct arch_park_record r;
	ok(process__read(s->p, hand_place__record(&s->park), &r, sizeof(r)));
	return r.original != 0;
}

/* Waits until some thread's return address is replaced. */
static void await_armed(const struct sight *s)
{
	int64_t deadline = support__now_ms() + PATIENCE_MS;
	while (!armed(s) && support__now_ms() < deadline)
		nanosleep(&(struct timespec){0, 100000}, NULL);
}

static void hold(struct sight *s, const char *how)
{
	target__ask(s->scene.target, path_of("hold %s", how), "held");
}

/* Waits until so many of its threads sleep. */
static void await_sleepers(const struct sight *s, size_t wanted)
{
	int64_t deadline = support__now_ms() + PATIENCE_MS;
	size_t asleep;
	do {
		FREE_CLEANUP pid_t *tids = NULL;
		size_t n = 0;
		asleep = 0;
		ok(process__threads(s->p, &tids, &n));
		for (size_t i = 0; i < n; i++) {
			struct thread_view v;
			ok(process__look(s->p, tids[i], &v));
			asleep += v.at_rest && v.state == THREAD_SLEEPING;
		}
		nanosleep(&(struct timespec){0, 100000}, NULL);
	} while (asleep < wanted && support__now_ms() < deadline);
}

/* Says `go` when the thread is about to be driven out. */
static void *says_go(void *arg)
{
	struct sight *s = arg;
	await_armed(s);
	target__say(s->scene.target, "go");
	return NULL;
}

/* The driver's thread leaves while it is driven. */
static struct err *drive_and_go(struct sight *s, int drive_ms, struct freeze_stats *st)
{
	pthread_t other;
	struct freeze *f = NULL;
	*st = (struct freeze_stats){0};
	cr_assert_eq(pthread_create(&other, NULL, says_go, s), 0);
	struct err *e = freeze(s, drive_ms, &f);
	pthread_join(other, NULL);
	if (!e) {
		freeze__stats(f, st);
		freeze__thaw(f);
	}
	return e;
}

/* It returns, at once or after something else that happens in it. */
Test(drive, returns_by_the_pad)
{
	static const char *const ways[] = {"return", "backtrace", "signal", "swap"};
	struct sight s = see();
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct freeze_stats st;
		hold(&s, ways[i]);
		ok(drive_and_go(&s, 5000, &st));
		cr_expect_eq(st.driven_out, 1, "%s: %zu driven out", ways[i], st.driven_out);
		cr_expect(!armed(&s), "%s: the record is still in use", ways[i]);
		target__expect(s.scene.target, "ok");
	}
	close_sight(&s);
}

/* It leaves another way, and is outside all the same. */
Test(drive, leaves_another_way)
{
	static const char *const ways[] = {"throw", "longjmp", "exit", "cancel"};
	struct sight s = see();
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct freeze_stats st;
		hold(&s, ways[i]);
		ok(drive_and_go(&s, 500, &st));
		cr_expect_eq(st.driven_out, 0, "%s: came by the pad", ways[i]);
		cr_expect(!armed(&s), "%s: the record is still in use", ways[i]);
		target__expect(s.scene.target, "ok");
	}
	close_sight(&s);
}

static void not_now(struct sight *s, struct err *e, const char *words)
{
	cr_assert(e, "it is taken to be outside: %s", words);
	cr_expect_eq(err__kind(e), ERR_RETRY, "%s", err__text(e));
	cr_expect(strstr(err__text(e), words), "no word of '%s' in: %s", words, err__text(e));
	cr_expect(!armed(s), "the record is still in use");
	err__free(e);
}

/* It does not leave: everything is as it was. */
Test(drive, stays)
{
	struct sight s = see();
	struct freeze *f = NULL;
	struct freeze_stats st;
	hold(&s, "return");
	not_now(&s, freeze(&s, 10, &f), "did not leave in time");
	not_now(&s, freeze(&s, 10, &f), "will return into the code to be replaced");
	target__ask(s.scene.target, "go", "ok");

	/* it is on a coroutine when the time is over; the function that it left returns later */
	hold(&s, "swap");
	ERR_CLEANUP struct err *e = drive_and_go(&s, 20, &st);
	cr_assert(e && err__kind(e) == ERR_RETRY);
	target__expect(s.scene.target, "ok");
	ok(freeze(&s, 10, &f));
	freeze__thaw(f);

	/* it waits for somebody who stands still */
	hold(&s, "lock");
	not_now(&s, drive_and_go(&s, 5000, &st), "it waits there");
	target__expect(s.scene.target, "ok");
	target__ask(s.scene.target, "lock", "locked");
	await_sleepers(&s, 2);
	not_now(&s, freeze(&s, 10, &f), "it waits in futex(2), called from");
	target__ask(s.scene.target, "unlock", "unlocked");

	/* it waits for an event: that is not waited for */
	hold(&s, "wait");
	await_sleepers(&s, 2);
	not_now(&s, freeze(&s, 60000, &f), "it waits in read(2), called from");
	target__ask(s.scene.target, "go", "ok");
	ok(freeze(&s, 10, &f));
	freeze__thaw(f);
	close_sight(&s);
}

/* A tool that drives the thread out, killed when the return address is replaced. */
static void kill_armed(struct sight *s)
{
	int status;
	pid_t tool = fork();
	if (tool == 0) {
		struct freeze *f;
		err__free(freeze(s, 60000, &f));
		_exit(1);
	}
	await_armed(s);
	kill(tool, SIGKILL);
	cr_assert_eq(waitpid(tool, &status, 0), tool);
	cr_assert(WIFSIGNALED(status), "the tool ended by itself");
	cr_assert(armed(s));
}

Test(drive, the_tool_is_killed)
{
	static const char *const ways[] = {"return",    "throw", "longjmp", "exit", "cancel",
					   "backtrace", "fork",  "signal",  "swap", "lock"};
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct sight s = see();
		struct freeze *f;
		hold(&s, ways[i]);
		kill_armed(&s);
		target__ask(s.scene.target, "go", "ok");
		/* the next one finds the record in use, and nobody who needs it */
		ok(freeze(&s, 10, &f));
		freeze__thaw(f);
		cr_expect(!armed(&s), "%s: the record is still in use", ways[i]);
		close_sight(&s);
		support__teardown();
	}
}

/* The next tool comes while the thread is still inside. */
Test(drive, the_tool_is_killed_and_the_next_one_comes)
{
	struct sight s = see();
	struct freeze *f;
	struct freeze_stats st;
	hold(&s, "backtrace");
	kill_armed(&s);
	not_now(&s, freeze(&s, 10, &f), "did not leave in time");
	ok(drive_and_go(&s, 5000, &st));
	cr_expect_eq(st.driven_out, 1);
	target__expect(s.scene.target, "ok");
	close_sight(&s);
}
