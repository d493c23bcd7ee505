/* Bringing threads to rest (see threads.h).
 *
 * Before the first thread is stopped: who sleeps, with a clean stack? They are left alone. All others
 * are seized, then all are interrupted, then all are waited for; then the list of threads is read again
 * until it shows no thread that is not at rest. A thread can only be born to one that runs, so when
 * the list is complete it stays so, as long as the sleepers sleep.
 */
#include "freeze/threads.h"

#include <sys/syscall.h>

#include "freeze/judge.h"
#include "freeze/stack.h"
#include "inject/clock.h"
#include "inject/proc.h"
#include "inject/restart.h"

enum {
	ROUNDS = 10,     /* times stop_ms: for threads that are born while others are stopped */
	STRAY_MS = 5000, /* for a thread that did not stop in time to stop after all and be let go */
};

void thread__in_the_way(struct thread *th, const struct err *e)
{
	free(th->in_the_way);
	th->in_the_way = xstrdup(err__text(e));
}

static struct err *not_now(const struct threads *t, struct thread *th, const char *hint, const char *why)
{
	char call[CALL_NAME_MAX];
	struct err *e = th->view.at_rest && th->view.nr >= 0
			    ? process__err(t->p, th->tid, ERR_RETRY, 0, hint, "%s (it waits in %s)", why,
					   call_name(call, th->view.nr))
			    : process__err(t->p, th->tid, ERR_RETRY, 0, hint, "%s", why);
	thread__in_the_way(th, e);
	return e;
}

/* Both lists are nearly in the same order: the search begins where the one before ended. */
static bool known(const struct threads *t, pid_t tid, size_t *at)
{
	for (size_t i = 0; i < t->v.n; i++, (*at)++) {
		if (*at >= t->v.n)
			*at = 0;
		if (t->v.items[*at].tid == tid)
			return true;
	}
	return false;
}

/* --- sleepers --- */

static bool same_sleep(const struct thread_view *a, const struct thread_view *b)
{
	return a->at_rest && b->at_rest && a->state == b->state && a->sp.v == b->sp.v && a->pc.v == b->pc.v &&
	       a->nr == b->nr;
}

/* May the sleeper be woken by a stop without the program noticing? */
static struct err *may_be_stopped(const struct threads *t, struct thread *th, const char *why)
{
	if (th->view.state == THREAD_BLOCKED)
		return not_now(t, th, NULL, why);
	if (th->view.nr < 0 || restart__class(t->p, &th->view) == RESTART_NEVER)
		return not_now(t, th, NULL, why);
	return NULL;
}

/* ", in lib_write": the function that a word found on a stack leads into; the caller frees it. */
static char *name_of_word(const struct threads *t, taddr_t at)
{
	uint64_t word = 0;
	ERR_CLEANUP struct err *e = at.v ? process__read(t->p, at, &word, sizeof(word)) : NULL;
	const struct freeze_function *f = !e && word ? functions__at(t->opt, taddr(word - 1)) : NULL;
	return f && f->name ? xasprintf(", in %s", f->name) : xstrdup("");
}

/* Looks at a thread that sleeps: REST_ASLEEP if it may be left so, else it stays REST_NONE, to be stopped. */
static struct err *try_asleep(struct threads *t, struct thread *th)
{
	const struct freeze_options *opt = t->opt;
	if (thread_view__waits_for_vfork(&th->view))
		return not_now(t, th, NULL, "it waits for its vfork child, which runs in the same memory");
	if (ranges__have(opt->inside, opt->n_inside, th->view.pc) ||
	    ranges__have(opt->suspects, opt->n_suspects, th->view.pc))
		return may_be_stopped(t, th, "it is inside the code to be replaced");
	if (opt->strict)
		return may_be_stopped(t, th, "it sleeps in a call that a stop would disturb");

	/* look, scan, look again */
	TRY(process__status(t->p, th->tid, &th->status));
	TRY(process__look(t->p, th->tid, &th->view));
	if (!th->view.at_rest)
		return NULL;
	struct stack_query q = {
	    .first = th->tid == process__pid(t->p),
	    .own_tid = th->status.own_tid,
	    .sp = th->view.sp,
	    .maps = &t->maps,
	    .inside = opt->inside,
	    .n_inside = opt->n_inside,
	    .suspects = opt->suspects,
	    .n_suspects = opt->n_suspects,
	};
	struct stack_answer a;
	struct thread_view again;
	struct thread_status after;
	TRY(stack__scan(t->p, &q, &a));
	TRY(process__look(t->p, th->tid, &again));
	TRY(process__status(t->p, th->tid, &after));
	if (after.switches != th->status.switches || !same_sleep(&th->view, &again)) {
		th->view = again; /* it has run */
		return NULL;
	}
	if (a.verdict == STACK_CLEAN) {
		th->rest = REST_ASLEEP;
		return NULL;
	}
	if (a.verdict == STACK_UNKNOWN)
		return may_be_stopped(t, th, "it sleeps on a stack that is not known to be its own");
	FREE_CLEANUP char *where = name_of_word(t, a.word_at);
	FREE_CLEANUP char *why = xasprintf("addresses in the code to be replaced are on its stack%s", where);
	return may_be_stopped(t, th, why);
}

/* --- stopping --- */

/* Asleep on its way out: exit(2) does not come back. */
static bool is_ending(const struct thread_view *v)
{
	return v->at_rest && (v->nr == SYS_exit || v->nr == SYS_exit_group);
}

static struct err *look_at(struct threads *t, struct thread *th)
{
	TRY(process__look(t->p, th->tid, &th->view));
	if (th->view.io_worker || th->tid == t->opt->except || is_ending(&th->view)) {
		th->rest = REST_IGNORED;
		return NULL;
	}
	switch (th->view.state) {
	case THREAD_DEAD:
		th->rest = REST_GONE;
		return NULL;
	case THREAD_STOPPED:
		if (th->view.traced)
			return process__err(t->p, th->tid, ERR_BUSY, 0, "let the other tracer finish",
					    "it is traced by another process (a debugger?)");
		return not_now(t, th, "continue it", "it is stopped by job control");
	case THREAD_SLEEPING:
	case THREAD_BLOCKED:
		return try_asleep(t, th);
	default:
		return NULL;
	}
}

/* Has the process as many threads as are known, none of which can have made room for another? To read a
 * long list takes time in which all stand still; the number does not. Only threads that are left
 * alone can end now: io_uring workers, in which case the list is read, and sleepers that have woken,
 * which threads__slept_on() tells. */
static bool number_is_known(const struct threads *t)
{
	char buf[8192];
	size_t alive = 0;
	for (size_t i = 0; i < t->v.n; i++) {
		if (t->v.items[i].view.io_worker)
			return false;
		alive += t->v.items[i].rest != REST_GONE;
	}
	if (proc_read(t->p->dirfd, "status", buf, sizeof(buf)) < 0)
		return false;
	const char *n = proc_field(buf, "Threads");
	return n && strtoul(n, NULL, 10) == alive;
}

/* New threads go to the end of the list. */
static struct err *look_for_new(struct threads *t, size_t *n_new)
{
	FREE_CLEANUP pid_t *tids = NULL;
	size_t n = 0;
	size_t at = 0;
	*n_new = 0;
	TRY(process__threads(t->p, &tids, &n));
	for (size_t i = 0; i < n; i++) {
		if (known(t, tids[i], &at))
			continue;
		struct thread th = {.tid = tids[i]};
		struct err *e = look_at(t, &th);
		vec__push(&t->v, th);
		(*n_new)++;
		TRY(e);
	}
	return NULL;
}

static struct err *seize(struct threads *t, struct thread *th)
{
	struct err *e = tracee__seize(t->p, th->tid, &th->tracee);
	if (e && err__kind(e) == ERR_GONE) {
		err__free(e);
		th->rest = REST_GONE;
		return process__alive(t->p);
	}
	TRY(e);
	th->seized = true;
	return NULL;
}

static struct err *await(struct threads *t, struct thread *th, uint64_t deadline)
{
	TRY(tracee__wait(&th->tracee, deadline));
	switch (th->tracee.state) {
	case TRACEE_GONE:
		th->rest = REST_GONE;
		th->seized = false;
		return process__alive(t->p);
	case TRACEE_GROUP:
		return not_now(t, th, "continue it", "it is stopped by job control");
	case TRACEE_RUNNING: {
		TRY(process__look(t->p, th->tid, &th->view));
		if (thread_view__waits_for_vfork(&th->view))
			return not_now(t, th, NULL, "it waits for its vfork child, which runs in the same memory");
		return err__as_passing(not_now(t, th, NULL, "it did not stop in time"));
	}
	default:
		th->rest = REST_STOPPED;
		th->stopped = clock_ns();
		return NULL;
	}
}

/* All that are not at rest: seize, then interrupt, then wait. */
static struct err *stop_the_rest(struct threads *t)
{
	for (size_t i = 0; i < t->v.n; i++)
		if (t->v.items[i].rest == REST_NONE && !t->v.items[i].seized)
			TRY(seize(t, &t->v.items[i]));
	bool any = false;
	for (size_t i = 0; i < t->v.n; i++)
		any = any || t->v.items[i].rest == REST_NONE;
	if (!any)
		return NULL;
	if (!t->first_stop)
		t->first_stop = clock_ns();
	for (size_t i = 0; i < t->v.n; i++)
		if (t->v.items[i].rest == REST_NONE)
			tracee__interrupt(&t->v.items[i].tracee);
	uint64_t deadline = clock_deadline(t->opt->stop_ms);
	for (size_t i = 0; i < t->v.n; i++)
		if (t->v.items[i].rest == REST_NONE)
			TRY(await(t, &t->v.items[i], deadline));
	return NULL;
}

static size_t count(const struct threads *t, enum rest rest)
{
	size_t n = 0;
	for (size_t i = 0; i < t->v.n; i++)
		n += t->v.items[i].rest == rest;
	return n;
}

/* Sleepers that have woken up are to be brought to rest as well. To look at all of them takes time in
 * which the others stand still, so it is done only when a thread has ended meanwhile: one that waits for
 * that end wakes up, and makes the next thread perhaps. */
static struct err *look_for_woken(struct threads *t, size_t *n_woken)
{
	*n_woken = 0;
	for (size_t i = 0; i < t->v.n; i++) {
		struct thread *th = &t->v.items[i];
		struct thread_view now;
		struct thread_status status;
		if (th->rest != REST_ASLEEP)
			continue;
		TRY(process__look(t->p, th->tid, &now));
		TRY(process__status(t->p, th->tid, &status));
		if (status.switches == th->status.switches && same_sleep(&th->view, &now))
			continue;
		th->rest = REST_NONE;
		(*n_woken)++;
		TRY(look_at(t, th));
	}
	return NULL;
}

/* Until all that there are are at rest. */
static struct err *stop_all(struct threads *t)
{
	size_t n_new = 0;
	size_t n_woken = 0;
	uint64_t deadline = clock_deadline(t->opt->stop_ms * ROUNDS);
	do {
		size_t ended = count(t, REST_GONE);
		TRY(stop_the_rest(t));
		n_woken = 0;
		if (count(t, REST_GONE) != ended)
			TRY(look_for_woken(t, &n_woken));
		n_new = 0;
		if (!number_is_known(t))
			TRY(look_for_new(t, &n_new));
		if ((n_new || n_woken) && clock_ns() > deadline)
			return process__err(t->p, 0, ERR_RETRY, 0, NULL,
					    "it makes threads faster than they can be stopped");
	} while (n_new || n_woken);
	return NULL;
}

struct err *threads__bring_to_rest(struct threads *t)
{
	size_t n_new = 0;
	t->begun = trace__now();
	TRY(process__maps(t->p, &t->maps));
	TRY(look_for_new(t, &n_new));
	return stop_all(t);
}

struct err *threads__complete(struct threads *t)
{
	size_t n_new = 0;
	TRY(look_for_new(t, &n_new));
	return stop_all(t);
}

/* What became of each thread. Sleepers only where all were brought to rest: there may be many, and many attempts. */
static void trace_threads(const struct threads *t)
{
	char call[CALL_NAME_MAX];
	for (size_t i = 0; i < t->v.n; i++) {
		const struct thread *th = &t->v.items[i];
		struct trace_event e = {.pid = process__pid(t->p), .tid = th->tid, .end = t->ended};
		size_t n = 0;
		if (th->rest == REST_STOPPED) {
			e.name = "stopped";
			e.start = th->stopped;
		} else if (th->rest == REST_ASLEEP && t->at_rest) {
			e.name = "left asleep";
			e.start = t->begun;
			if (th->view.nr >= 0)
				e.args[n++] = (struct trace_arg){.key = "in", .text = call_name(call, th->view.nr)};
		} else if (th->in_the_way) {
			e.name = "in the way";
			e.start = t->begun;
		} else {
			continue;
		}
		if (th->in_the_way)
			e.args[n++] = (struct trace_arg){.key = "in_the_way", .text = th->in_the_way};
		trace__add(process__trace(t->p), &e);
	}
}

static void release(struct thread *th)
{
	uint64_t deadline = clock_deadline(STRAY_MS);
	if (th->let_be)
		err__free(tracee__wait(&th->tracee, deadline)); /* whatever came, it is let go below */
	if (!th->let_be || th->tracee.state != TRACEE_RUNNING)
		(void)tracee__release(&th->tracee, deadline);
}

uint64_t threads__let_go(struct threads *t)
{
	size_t strays = 0;
	for (size_t i = 0; i < t->v.n; i++) {
		struct thread *th = &t->v.items[i];
		if (th->seized && th->tracee.state != TRACEE_RUNNING)
			tracee__detach(&th->tracee);
		else if (th->seized)
			strays++;
	}
	t->ended = clock_ns();
	uint64_t frozen = t->first_stop ? t->ended - t->first_stop : 0;
	/* Threads that were seized but not interrupted, or did not stop in time. Only a stopped thread can be
	 * let go, so it is waited for; should it take longer still, it is let go when the tool ends. */
	for (size_t i = 0; strays && i < t->v.n; i++)
		if (t->v.items[i].seized && t->v.items[i].tracee.state == TRACEE_RUNNING && !t->v.items[i].let_be)
			tracee__interrupt(&t->v.items[i].tracee);
	for (size_t i = 0; strays && i < t->v.n; i++)
		if (t->v.items[i].seized && t->v.items[i].tracee.state == TRACEE_RUNNING)
			release(&t->v.items[i]);
	return frozen;
}

void threads__free(struct threads *t)
{
	if (process__trace(t->p))
		trace_threads(t);
	for (size_t i = 0; i < t->v.n; i++)
		free(t->v.items[i].in_the_way);
	mappings__free(&t->maps);
	vec__free(&t->v);
}

struct err *threads__slept_on(const struct threads *t, bool *out)
{
	*out = true;
	for (size_t i = 0; *out && i < t->v.n; i++) {
		const struct thread *th = &t->v.items[i];
		struct thread_view now;
		struct thread_status status;
		if (th->rest != REST_ASLEEP)
			continue;
		TRY(process__look(t->p, th->tid, &now));
		TRY(process__status(t->p, th->tid, &status));
		*out = status.switches == th->status.switches && same_sleep(&th->view, &now);
	}
	return NULL;
}
