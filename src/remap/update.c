/* See update.h. */
#include "remap/update.h"

#include <string.h>
#include <time.h>

#include "remap/lock.h"

enum {
	STOP_MS = 20,       /* for one thread to stop */
	PAUSE_FIRST_MS = 2, /* between two attempts to freeze, doubled up to */
	PAUSE_LAST_MS = 100,
	RANGES_MAX = 16,
};

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void pause_ms(unsigned ms)
{
	struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000L};
	nanosleep(&t, NULL);
}

/* ---- results ---- */

static void set_reason(struct result *r, enum outcome outcome, enum err_kind kind, const char *code, const char *text,
		       const char *hint)
{
	free(r->reason);
	free(r->hint);
	r->outcome = outcome;
	r->kind = kind;
	r->code = code;
	r->reason = xstrdup(text);
	r->hint = hint ? xstrdup(hint) : NULL;
}

/* What an error before the commit means: the process is as it was. Takes over `e`. */
static void not_updated(struct result *r, struct err *e)
{
	enum outcome o = err__kind(e) == ERR_RETRY     ? OUTCOME_PENDING
			 : err__kind(e) == ERR_SURGERY ? OUTCOME_FAILURE
						       : OUTCOME_NOT_UPDATED;
	set_reason(r, o, err__kind(e), err_kind__name(err__kind(e)), err__text(e), err__hint(e));
	err__free(e);
}

/* ---- looking and planning ---- */

static void plan_library(struct result *r, const struct plan_options *opt)
{
	struct loaded *l = r->library;
	if (!l->outdated)
		return;
	if (!l->next) {
		set_reason(r, OUTCOME_NOT_UPDATED, ERR_UNREADABLE, "unreadable", l->unreadable, NULL);
		return;
	}
	struct err *e = plan_cache__plan(opt->plans, l->vapi, l->live, &l->map, l->next, &r->plan, &r->plan_cached);
	if (e) {
		not_updated(r, e);
		return;
	}
	overrules__apply(opt->overrules, r->plan);
	if (opt->require_proof)
		plan__require_proof(r->plan);
	if (r->plan->refusals.n) {
		const struct reason *first = &r->plan->refusals.items[0];
		set_reason(r, OUTCOME_NOT_UPDATED, ERR_REFUSED, first->code, first->text,
			   "restart the process to run the new build");
		return;
	}
	r->outcome = OUTCOME_PENDING;
}

struct err *target__open(pid_t pid, const struct plan_options *opt, struct target **out)
{
	struct target *t = xcalloc(1, sizeof(*t));
	t->pid = pid;
	t->lock = -1;
	struct err *e = process__open(pid, &t->process);
	if (!e)
		e = discover__libraries(t->process, &t->libraries);
	if (e) {
		target__close(t);
		return e;
	}
	t->name = xstrdup(process__name(t->process));
	t->start_time = process__start_time(t->process);
	t->results = xcalloc(t->libraries.n, sizeof(*t->results));
	for (size_t i = 0; i < t->libraries.n; i++) {
		t->results[i].library = &t->libraries.items[i];
		plan_library(&t->results[i], opt);
	}
	*out = t;
	return NULL;
}

static void release_surgery(struct result *r)
{
	if (r->hand)
		hand__dismiss(r->hand);
	r->hand = NULL;
	surgery__free(r->surgery);
	r->surgery = NULL;
}

void target__close(struct target *t)
{
	if (!t)
		return;
	for (size_t i = 0; t->results && i < t->libraries.n; i++) {
		struct result *r = &t->results[i];
		release_surgery(r);
		plan__free(r->plan);
		free(r->reason);
		free(r->hint);
	}
	free(t->results);
	loaded_list__free(&t->libraries);
	lock__drop(t->pid, t->lock);
	process__close(t->process);
	free(t->name);
	free(t);
}

bool target__outdated(const struct target *t)
{
	for (size_t i = 0; i < t->libraries.n; i++)
		if (t->results[i].outcome != OUTCOME_CURRENT)
			return true;
	return false;
}

bool target__pending(const struct target *t)
{
	for (size_t i = 0; i < t->libraries.n; i++)
		if (t->results[i].outcome == OUTCOME_PENDING)
			return true;
	return false;
}

enum outcome target__outcome(const struct target *t)
{
	static const int rank[] = {[OUTCOME_CURRENT] = 0,
				   [OUTCOME_SUCCESS] = 1,
				   [OUTCOME_PENDING] = 2,
				   [OUTCOME_NOT_UPDATED] = 3,
				   [OUTCOME_FAILURE] = 4};
	enum outcome worst = OUTCOME_CURRENT;
	for (size_t i = 0; i < t->libraries.n; i++)
		if (rank[t->results[i].outcome] > rank[worst])
			worst = t->results[i].outcome;
	return worst;
}

/* ---- preparing ---- */

/* A thread that may be borrowed must come by within the time for one try. */
static struct err *raise_hand(struct target *t, struct result *r, unsigned timeout_s)
{
	struct hand_place place = surgery__hand_place(r->surgery);
	return hand__raise(t->process, &place, (int)timeout_s * 1000, &r->hand);
}

static void dismiss_hand(struct result *r)
{
	if (r->hand)
		hand__dismiss(r->hand);
	r->hand = NULL;
}

/* Takes back what was mapped; the reason for doing so is in the result already, and stays there. A process in which
 * even that fails runs on as before, with an address range in use that nothing refers to. */
static void undo(struct target *t, struct result *r, const struct update_options *opt)
{
	struct err *e = r->hand ? NULL : raise_hand(t, r, opt->timeout_s);
	if (!e)
		e = surgery__undo(r->surgery, r->hand);
	if (e && err__kind(e) != ERR_GONE) {
		FREE_CLEANUP char *both =
		    xasprintf("%s; and what was mapped could not be taken back: %s", r->reason, err__text(e));
		set_reason(r, OUTCOME_FAILURE, ERR_SURGERY, "undo", both,
			   "the process runs on as before; pages in its window stay mapped until the next update");
	}
	err__free(e);
}

/* The state as it is now: another update may have come between, and our own changed the header. */
static struct err *begin(struct target *t, struct result *r, const struct update_options *opt)
{
	pid_t tracer;
	TRY(process__alive(t->process));
	TRY(process__tracer(t->process, &tracer));
	if (tracer)
		return err__new(ERR_BUSY, 0, NULL, "detach the debugger first", "process %d is traced by process %d",
				t->pid, tracer);
	TRY(process__shares_memory(t->process, false));
	struct vapi_header header;
	const struct loaded *l = r->library;
	TRY(process__read(t->process, loaded__at(l, l->vapi->vapi.header), &header, sizeof(header)));
	if (header.live != l->header.live || header.generation != l->header.generation)
		return err__new(ERR_RETRY, 0, NULL, "run llvupdate again",
				"the process was updated by somebody else meanwhile");
	TRY(surgery__new(t->process, l, r->plan, &r->surgery));
	TRY(raise_hand(t, r, opt->timeout_s));
	return NULL;
}

static void prepare(struct target *t, struct result *r, const struct update_options *opt)
{
	uint64_t start = now_ns();
	r->tries++;
	struct err *e = begin(t, r, opt);
	if (!e && (e = surgery__prepare(r->surgery, r->hand))) {
		not_updated(r, e);
		undo(t, r, opt);
		release_surgery(r);
	} else if (e) {
		not_updated(r, e);
		release_surgery(r);
	}
	r->total_ns += now_ns() - start;
}

void target__prepare(struct target *t, const struct update_options *opt)
{
	struct err *e = t->lock < 0 ? lock__take(t->pid, &t->lock) : NULL;
	size_t pending = 0;
	for (size_t i = 0; i < t->libraries.n; i++)
		pending += t->results[i].outcome == OUTCOME_PENDING;
	for (size_t i = 0; i < t->libraries.n; i++) {
		struct result *r = &t->results[i];
		if (r->outcome != OUTCOME_PENDING)
			continue;
		if (e)
			set_reason(r, OUTCOME_NOT_UPDATED, err__kind(e), err_kind__name(err__kind(e)), err__text(e),
				   err__hint(e));
		else
			prepare(t, r, opt);
		if (pending > 1) /* one hand at a time; the commit raises another */
			dismiss_hand(r);
	}
	err__free(e);
}

/* ---- committing ---- */

static struct err *freeze_and_exchange(struct target *t, struct result *r, const struct update_options *opt,
				       bool *committed)
{
	struct trange ranges[RANGES_MAX];
	struct freeze_options f = {.inside = ranges,
				   .n_inside = surgery__live_ranges(r->surgery, ranges, RANGES_MAX),
				   .except = hand__tid(r->hand),
				   .strict = opt->strict,
				   .stop_ms = STOP_MS};
	struct freeze *frozen;
	TRY(surgery__load(r->surgery, r->hand));
	TRY(freeze__begin(t->process, &f, &frozen));
	struct err *e = surgery__commit(r->surgery, r->hand, committed);
	freeze__stats(frozen, &r->threads);
	r->frozen_ns = freeze__thaw(frozen);
	return e;
}

/* Attempts until it succeeds or the time is up. While waiting no hand is held up in the process. */
static struct err *exchange(struct target *t, struct result *r, const struct update_options *opt, bool *committed)
{
	uint64_t deadline = now_ns() + opt->timeout_s * 1000000000ULL;
	unsigned pause = PAUSE_FIRST_MS;
	for (;;) {
		struct err *e = r->hand ? NULL : raise_hand(t, r, opt->timeout_s);
		if (!e)
			e = freeze_and_exchange(t, r, opt, committed);
		dismiss_hand(r); /* used up, or not to be left waiting */
		if (!e || err__kind(e) != ERR_RETRY || now_ns() >= deadline)
			return e;
		err__free(e);
		pause_ms(pause);
		pause = pause * 2 < PAUSE_LAST_MS ? pause * 2 : PAUSE_LAST_MS;
	}
}

static void commit(struct target *t, struct result *r, const struct update_options *opt)
{
	uint64_t start = now_ns();
	bool committed = false;
	struct err *e = exchange(t, r, opt, &committed);
	if (committed && !e)
		e = surgery__verify(r->surgery);
	if (committed) {
		surgery__places(r->surgery, &r->places);
		if (e)
			set_reason(r, OUTCOME_FAILURE, ERR_SURGERY, "surgery", err__text(e), NULL);
		else
			r->outcome = OUTCOME_SUCCESS;
		err__free(e);
	} else if (e) {
		bool gone = err__kind(e) == ERR_GONE;
		not_updated(r, e);
		if (!gone)
			undo(t, r, opt);
	}
	release_surgery(r);
	r->total_ns += now_ns() - start;
}

void target__commit(struct target *t, const struct update_options *opt)
{
	for (size_t i = 0; i < t->libraries.n; i++)
		if (t->results[i].outcome == OUTCOME_PENDING && t->results[i].surgery)
			commit(t, &t->results[i], opt);
}

void target__give_up(struct target *t)
{
	for (size_t i = 0; i < t->libraries.n; i++)
		if (t->results[i].outcome == OUTCOME_PENDING)
			t->results[i].outcome = OUTCOME_NOT_UPDATED;
}
