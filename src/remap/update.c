/* See update.h. */
#include "remap/update.h"

#include <string.h>
#include <time.h>

#include "remap/exchange.h"
#include "remap/imports.h"
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

/* What an error before the commit means: the process is as it was. */
static void not_updated(struct result *r, const struct err *e)
{
	enum outcome o = err__kind(e) == ERR_RETRY     ? OUTCOME_PENDING
			 : err__kind(e) == ERR_SURGERY ? OUTCOME_FAILURE
						       : OUTCOME_NOT_UPDATED;
	set_reason(r, o, err__kind(e), err_kind__name(err__kind(e)), err__text(e), err__hint(e));
}

/* ---- groups ---- */

static struct result *member(const struct target *t, const struct group *g, size_t i)
{
	return &t->results[g->members[i]];
}

/* All of a group are pending, or none is. */
static bool is_pending(const struct target *t, const struct group *g)
{
	return member(t, g, 0)->outcome == OUTCOME_PENDING;
}

static const char *name_of(const struct loaded *l)
{
	const char *slash = strrchr(l->path, '/');
	return *l->vapi->soname ? l->vapi->soname : slash ? slash + 1 : l->path;
}

static void blame(const struct target *t, struct result *r, const struct result *cause)
{
	size_t n = strlen(cause->library->path), self = (size_t)(r - t->results);
	bool names_itself =
	    strncmp(cause->reason, cause->library->path, n) == 0 && strncmp(cause->reason + n, ": ", 2) == 0;
	FREE_CLEANUP char *text = xasprintf(
	    "%s, which %s, cannot be updated: %s", name_of(cause->library),
	    group__depends(&t->libraries, self, (size_t)(cause - t->results)) ? "it depends on" : "is updated with it",
	    cause->reason + (names_itself ? n + 2 : 0));
	set_reason(r, OUTCOME_NOT_UPDATED, cause->kind, "group", text, cause->hint);
}

/* Where one cannot be updated, the others of the group are not, and say so. */
static void hold_back(const struct target *t, const struct group *g)
{
	const struct result *cause = NULL;
	for (size_t i = 0; i < g->n && !cause; i++)
		if (member(t, g, i)->outcome != OUTCOME_PENDING)
			cause = member(t, g, i);
	for (size_t i = 0; cause && i < g->n; i++)
		if (member(t, g, i)->outcome == OUTCOME_PENDING)
			blame(t, member(t, g, i), cause);
}

enum { ALL_ALIKE = -1 };

/* An error before the commit, about the member `at_fault` or about ALL_ALIKE. */
static void group_not_updated(const struct target *t, const struct group *g, const struct err *e, int at_fault)
{
	for (size_t i = 0; i < g->n; i++)
		if (at_fault == ALL_ALIKE || err__kind(e) == ERR_RETRY || (size_t)at_fault == i)
			not_updated(member(t, g, i), e);
	hold_back(t, g);
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
	ERR_CLEANUP struct err *e =
	    plan_cache__plan(opt->plans, l->vapi, l->live, &l->map, l->next, &r->plan, &r->plan_cached);
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

/* Where the new imports of a group's members lead. *at_fault: whose cannot be resolved. */
static struct err *resolve_imports(const struct target *t, const struct group *g, struct linkmap *map, int *at_fault)
{
	size_t n = t->libraries.n;
	FREE_CLEANUP struct provider *p = xcalloc(n, sizeof(*p));
	for (size_t i = 0; i < n; i++)
		p[i].library = &t->libraries.items[i];
	for (size_t i = 0; i < g->n; i++) {
		p[g->members[i]].plan = member(t, g, i)->plan;
		p[g->members[i]].order = i;
	}
	for (size_t i = 0; i < g->n; i++) {
		struct result *r = member(t, g, i);
		*at_fault = (int)i;
		free(r->imports);
		r->imports = xcalloc(imports__count(r->plan), sizeof(*r->imports));
		if (imports__any(r->plan))
			TRY(imports__resolve(map, p, n, g->members[i], r->imports));
	}
	*at_fault = ALL_ALIKE;
	return NULL;
}

static bool any_imports(const struct target *t, const struct group *g)
{
	for (size_t i = 0; i < g->n; i++)
		if (imports__any(member(t, g, i)->plan))
			return true;
	return false;
}

static void refuse_member(const struct target *t, const struct group *g, int i, const char *code, struct err *e)
{
	if (!e)
		return;
	group_not_updated(t, g, e, i);
	if (i != ALL_ALIKE && err__kind(e) == ERR_REFUSED)
		member(t, g, (size_t)i)->code = code;
	err__free(e);
}

/* What must be true of all of a group together, beyond each one's plan. `map` is NULL, and `no_map` says why, where the
 * loader's list cannot be read: then only who has new imports depends on it. */
static void judge_group(const struct target *t, const struct group *g, struct linkmap *map, const struct err *no_map)
{
	for (size_t i = 0; i < g->n; i++)
		member(t, g, i)->group = g;
	hold_back(t, g);
	for (size_t i = 0; i < g->n && map && is_pending(t, g); i++)
		refuse_member(t, g, (int)i, "dependency",
			      group__check_plain(t->process, map, &t->libraries, member(t, g, i)->library));
	if (!is_pending(t, g))
		return;
	if (no_map && any_imports(t, g)) {
		group_not_updated(t, g, no_map, ALL_ALIKE);
		return;
	}
	int at_fault;
	struct err *e = resolve_imports(t, g, map, &at_fault);
	refuse_member(t, g, at_fault, "import", e);
}

/* ERR_GONE when the process ended meanwhile. */
static struct err *judge_groups(struct target *t)
{
	LINKMAP_CLEANUP struct linkmap *map = NULL;
	ERR_CLEANUP struct err *no_map = target__outdated(t) ? linkmap__read(t->process, &map) : NULL;
	group_list__make(&t->libraries, map, &t->groups);
	for (size_t i = 0; i < t->groups.n; i++)
		judge_group(t, &t->groups.items[i], map, no_map);
	return process__alive(t->process);
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
	e = judge_groups(t);
	if (e) {
		target__close(t);
		return e;
	}
	*out = t;
	return NULL;
}

static void dismiss_hand(struct target *t)
{
	if (t->hand)
		hand__dismiss(t->hand);
	t->hand = NULL;
}

static void release_surgeries(struct target *t, const struct group *g)
{
	dismiss_hand(t);
	for (size_t i = 0; i < g->n; i++) {
		surgery__free(member(t, g, i)->surgery);
		member(t, g, i)->surgery = NULL;
	}
}

void target__close(struct target *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->groups.n; i++)
		release_surgeries(t, &t->groups.items[i]);
	group_list__free(&t->groups);
	for (size_t i = 0; t->results && i < t->libraries.n; i++) {
		struct result *r = &t->results[i];
		plan__free(r->plan);
		free(r->imports);
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

/* One hand makes the calls for all of a group, from the VAPI of the first. A thread that may be borrowed must come by
 * within the time for one try. */
static struct err *raise_hand(struct target *t, const struct group *g, unsigned timeout_s)
{
	struct hand_place place = loaded__hand_place(member(t, g, 0)->library);
	return t->hand ? NULL : hand__raise(t->process, &place, (int)timeout_s * 1000, &t->hand);
}

/* The hand of an llvupdate that was killed may be at work in any of the process's libraries. */
static struct err *await_other_hands(const struct target *t, unsigned timeout_s)
{
	for (size_t i = 0; i < t->libraries.n; i++) {
		struct hand_place place = loaded__hand_place(&t->libraries.items[i]);
		TRY(hand__await_place(t->process, &place, (int)timeout_s * 1000));
	}
	return NULL;
}

/* Takes back what was mapped; the reason for doing so is in the results already, and stays there. A process in which
 * even that fails runs on as before, with an address range in use that nothing refers to. */
static void undo(struct target *t, const struct group *g, const struct update_options *opt)
{
	for (size_t i = 0; i < g->n; i++) {
		struct result *r = member(t, g, i);
		if (!r->surgery)
			continue;
		ERR_CLEANUP struct err *e = raise_hand(t, g, opt->timeout_s);
		if (!e)
			e = surgery__undo(r->surgery, t->hand);
		if (!e || err__kind(e) == ERR_GONE)
			continue;
		FREE_CLEANUP char *both =
		    xasprintf("%s; and what was mapped could not be taken back: %s", r->reason, err__text(e));
		set_reason(r, OUTCOME_FAILURE, ERR_SURGERY, "undo", both,
			   "the process runs on as before; pages in its window stay mapped until the next update");
	}
}

/* The state as it is now: another update may have come between, and our own changed the headers. */
static struct err *check_headers(const struct target *t, const struct group *g)
{
	for (size_t i = 0; i < g->n; i++) {
		struct vapi_header header;
		const struct loaded *l = member(t, g, i)->library;
		TRY(process__read(t->process, loaded__at(l, l->vapi->vapi.header), &header, sizeof(header)));
		if (header.live != l->header.live || header.generation != l->header.generation)
			return err__new(ERR_RETRY, 0, NULL, "run llvupdate again",
					"the process was updated by somebody else meanwhile");
	}
	return NULL;
}

/* The process may have loaded more since they were resolved. */
static struct err *resolve_again(const struct target *t, const struct group *g, int *at_fault)
{
	LINKMAP_CLEANUP struct linkmap *map = NULL;
	*at_fault = ALL_ALIKE;
	if (!any_imports(t, g))
		return NULL;
	TRY(linkmap__read(t->process, &map));
	return resolve_imports(t, g, map, at_fault);
}

static struct err *begin(struct target *t, const struct group *g, const struct update_options *opt, int *at_fault)
{
	pid_t tracer;
	*at_fault = ALL_ALIKE;
	TRY(process__alive(t->process));
	TRY(process__tracer(t->process, &tracer));
	if (tracer)
		return err__new(ERR_BUSY, 0, NULL, "detach the debugger first", "process %d is traced by process %d",
				t->pid, tracer);
	TRY(process__shares_memory(t->process, false));
	TRY(check_headers(t, g));
	TRY(resolve_again(t, g, at_fault));
	for (size_t i = 0; i < g->n; i++) {
		struct result *r = member(t, g, i);
		*at_fault = (int)i;
		TRY(surgery__new(t->process, r->library, r->plan, r->imports, &r->surgery));
	}
	*at_fault = ALL_ALIKE;
	TRY(await_other_hands(t, opt->timeout_s));
	TRY(raise_hand(t, g, opt->timeout_s));
	return check_headers(t, g); /* an earlier hand may have come to its end only now */
}

static struct err *prepare_members(struct target *t, const struct group *g, int *at_fault)
{
	for (size_t i = 0; i < g->n; i++) {
		*at_fault = (int)i;
		TRY(surgery__prepare(member(t, g, i)->surgery, t->hand));
	}
	return NULL;
}

static void add_time(const struct target *t, const struct group *g, uint64_t since)
{
	uint64_t took = now_ns() - since;
	for (size_t i = 0; i < g->n; i++)
		member(t, g, i)->total_ns += took;
}

static void prepare(struct target *t, const struct group *g, const struct update_options *opt)
{
	uint64_t start = now_ns();
	int at_fault;
	for (size_t i = 0; i < g->n; i++)
		member(t, g, i)->tries++;
	ERR_CLEANUP struct err *e = begin(t, g, opt, &at_fault);
	bool begun = !e;
	if (!e)
		e = prepare_members(t, g, &at_fault);
	if (e) {
		group_not_updated(t, g, e, at_fault);
		if (begun)
			undo(t, g, opt);
		release_surgeries(t, g);
	}
	add_time(t, g, start);
}

void target__prepare(struct target *t, const struct update_options *opt)
{
	ERR_CLEANUP struct err *e = t->lock < 0 ? lock__take(t->pid, &t->lock) : NULL;
	size_t pending = 0;
	for (size_t i = 0; i < t->groups.n; i++)
		pending += is_pending(t, &t->groups.items[i]);
	for (size_t i = 0; i < t->groups.n; i++) {
		const struct group *g = &t->groups.items[i];
		if (!is_pending(t, g))
			continue;
		if (e)
			for (size_t k = 0; k < g->n; k++)
				set_reason(member(t, g, k), OUTCOME_NOT_UPDATED, err__kind(e),
					   err_kind__name(err__kind(e)), err__text(e), err__hint(e));
		else
			prepare(t, g, opt);
		if (pending > 1) /* one hand at a time; the commit raises another */
			dismiss_hand(t);
	}
}

/* ---- committing ---- */

typedef VEC(struct trange) range_list;

static void list_live_ranges(const struct target *t, const struct group *g, range_list *out)
{
	for (size_t i = 0; i < g->n; i++) {
		struct trange ranges[RANGES_MAX];
		size_t n = surgery__live_ranges(member(t, g, i)->surgery, ranges, RANGES_MAX);
		for (size_t k = 0; k < n; k++)
			vec__push(out, ranges[k]);
	}
}

static struct err *freeze_and_exchange(struct target *t, const struct group *g, const struct update_options *opt,
				       struct exchange *x, bool *committed)
{
	range_list inside = {0};
	struct freeze *frozen = NULL;
	list_live_ranges(t, g, &inside);
	struct freeze_options f = {.inside = inside.items,
				   .n_inside = inside.n,
				   .except = hand__tid(t->hand),
				   .strict = opt->strict,
				   .stop_ms = STOP_MS};
	struct err *e = exchange__load(x, t->hand);
	if (!e)
		e = freeze__begin(t->process, &f, &frozen);
	vec__free(&inside);
	if (e)
		return e;
	e = exchange__run(x, t->hand, committed);
	struct freeze_stats threads;
	freeze__stats(frozen, &threads);
	uint64_t frozen_ns = freeze__thaw(frozen);
	for (size_t i = 0; i < g->n; i++) {
		member(t, g, i)->threads = threads;
		member(t, g, i)->frozen_ns = frozen_ns;
	}
	return e;
}

/* Attempts until it succeeds or the time is up. While waiting no hand is held up in the process. */
static struct err *attempt(struct target *t, const struct group *g, const struct update_options *opt,
			   struct exchange *x, bool *committed)
{
	uint64_t deadline = now_ns() + opt->timeout_s * 1000000000ULL;
	unsigned pause = PAUSE_FIRST_MS;
	for (;;) {
		struct err *e = raise_hand(t, g, opt->timeout_s);
		if (!e)
			e = freeze_and_exchange(t, g, opt, x, committed);
		dismiss_hand(t); /* used up, or not to be left waiting */
		if (!e || err__kind(e) != ERR_RETRY || now_ns() >= deadline)
			return e;
		err__free(e);
		pause_ms(pause);
		pause = pause * 2 < PAUSE_LAST_MS ? pause * 2 : PAUSE_LAST_MS;
	}
}

static struct err *exchange(struct target *t, const struct group *g, const struct update_options *opt, bool *committed)
{
	struct exchange *x;
	FREE_CLEANUP struct surgery **members = xcalloc(g->n, sizeof(void *));
	for (size_t i = 0; i < g->n; i++)
		members[i] = member(t, g, i)->surgery;
	TRY(exchange__new(members, g->n, &x));
	struct err *e = attempt(t, g, opt, x, committed);
	exchange__free(x);
	return e;
}

/* Frees the room of shadow pages that did not get to their places. Where that fails, the room is lost to the next
 * update, no more. */
static void clear_shadows(struct target *t, const struct group *g, const struct update_options *opt)
{
	ERR_CLEANUP struct err *e = raise_hand(t, g, opt->timeout_s);
	for (size_t i = 0; i < g->n && !e; i++)
		e = surgery__clear_shadows(member(t, g, i)->surgery, t->hand);
}

/* `stopped`: what stopped the exchange, which was finished all the same; or NULL. */
static void settle_member(struct result *r, const struct err *stopped)
{
	ERR_CLEANUP struct err *wrong = surgery__verify(r->surgery);
	const struct err *e = stopped ? stopped : wrong;
	surgery__places(r->surgery, &r->places);
	if (e)
		set_reason(r, OUTCOME_FAILURE, ERR_SURGERY, "surgery", err__text(e),
			   wrong
			       ? "restart the process: it may run old and new code side by side"
			       : "it runs the new code, as was checked afterwards; restart it when that is convenient");
	else
		r->outcome = OUTCOME_SUCCESS;
}

static void commit(struct target *t, const struct group *g, const struct update_options *opt)
{
	uint64_t start = now_ns();
	bool committed = false;
	ERR_CLEANUP struct err *e = exchange(t, g, opt, &committed);
	if (committed) {
		if (e)
			clear_shadows(t, g, opt);
		for (size_t i = 0; i < g->n; i++)
			settle_member(member(t, g, i), e);
	} else if (e) {
		group_not_updated(t, g, e, ALL_ALIKE);
		if (err__kind(e) != ERR_GONE)
			undo(t, g, opt);
	}
	release_surgeries(t, g);
	add_time(t, g, start);
}

void target__commit(struct target *t, const struct update_options *opt)
{
	for (size_t i = 0; i < t->groups.n; i++) {
		const struct group *g = &t->groups.items[i];
		if (is_pending(t, g) && member(t, g, 0)->surgery)
			commit(t, g, opt);
	}
}

void target__give_up(struct target *t)
{
	for (size_t i = 0; i < t->libraries.n; i++)
		if (t->results[i].outcome == OUTCOME_PENDING)
			t->results[i].outcome = OUTCOME_NOT_UPDATED;
}
