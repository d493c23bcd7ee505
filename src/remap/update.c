/* Looking at a process, and judging what it needs (see update.h). What is done to it: operate.c. */
#include "remap/target_parts.h"

#include <string.h>

#include "base/printable.h"
#include "remap/glibc.h"
#include "remap/imports.h"
#include "remap/lock.h"
#include "remap/unwinding.h"

/* ---- results ---- */

void target__set_reason(struct result *r, enum outcome outcome, enum err_kind kind, const char *code, const char *text,
			const char *hint)
{
	free(r->reason);
	free(r->hint);
	r->outcome = outcome;
	r->kind = kind;
	r->code = code;
	r->reason = printable__copy(text);
	r->hint = hint ? xstrdup(hint) : NULL;
}

/* What an error before the commit means: the process is as it was. */
static void not_updated(struct result *r, const struct err *e)
{
	enum outcome o = err__kind(e) == ERR_RETRY     ? OUTCOME_PENDING
			 : err__kind(e) == ERR_SURGERY ? OUTCOME_FAILURE
						       : OUTCOME_NOT_UPDATED;
	target__set_reason(r, o, err__kind(e), err_kind__name(err__kind(e)), err__text(e), err__hint(e));
}

/* ---- groups ---- */

struct result *target__member(const struct target *t, const struct group *g, size_t i)
{
	return &t->results[g->members[i]];
}

/* All of a group are pending, or none is. */
bool target__group_pending(const struct target *t, const struct group *g)
{
	return target__member(t, g, 0)->outcome == OUTCOME_PENDING;
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
	target__set_reason(r, OUTCOME_NOT_UPDATED, cause->kind, "group", text, cause->hint);
}

/* Where one cannot be updated, the others of the group are not, and say so. */
static void hold_back(const struct target *t, const struct group *g)
{
	const struct result *cause = NULL;
	for (size_t i = 0; i < g->n && !cause; i++)
		if (target__member(t, g, i)->outcome != OUTCOME_PENDING)
			cause = target__member(t, g, i);
	for (size_t i = 0; cause && i < g->n; i++)
		if (target__member(t, g, i)->outcome == OUTCOME_PENDING)
			blame(t, target__member(t, g, i), cause);
}

void target__group_failed(const struct target *t, const struct group *g, const struct err *e, int at_fault)
{
	for (size_t i = 0; i < g->n; i++)
		if (at_fault == TARGET_ALL_ALIKE || err__kind(e) == ERR_RETRY || (size_t)at_fault == i)
			not_updated(target__member(t, g, i), e);
	hold_back(t, g);
}

/* ---- looking and planning ---- */

static void trace_plan(const struct process *p, const struct result *r, uint64_t since, const struct err *e)
{
	struct trace_event x = {
	    .pid = process__pid(p),
	    .name = "plan",
	    .start = since,
	    .end = trace__now(),
	    .args = {{.key = "library", .text = r->library->path}, {.key = "cached", .number = r->plan_cached}}};
	if (r->plan && r->plan->refusals.n)
		x.args[2] = (struct trace_arg){.key = "refused", .text = r->plan->refusals.items[0].code};
	if (e)
		x.args[2] = (struct trace_arg){.key = "why", .text = err__text(e)};
	trace__add(process__trace(p), &x);
}

static void plan_library(const struct process *p, struct result *r, const struct plan_options *opt)
{
	struct loaded *l = r->library;
	uint64_t since = trace__now();
	if (!l->outdated)
		return;
	if (l->no_vapi) {
		target__set_reason(r, OUTCOME_NOT_UPDATED, ERR_REFUSED, "unprepared", l->no_vapi,
				   "restart the process to run the new build");
		return;
	}
	if (l->untrusted) {
		target__set_reason(r, OUTCOME_NOT_UPDATED, ERR_REFUSED, "untrusted-path", err__text(l->untrusted),
				   err__hint(l->untrusted));
		return;
	}
	if (!l->next) {
		target__set_reason(r, OUTCOME_NOT_UPDATED, ERR_UNREADABLE, "unreadable", l->unreadable, NULL);
		return;
	}
	ERR_CLEANUP struct err *e =
	    plan_cache__plan(opt->plans, l->vapi, l->live, &l->map, l->next, &r->plan, &r->plan_cached);
	trace_plan(p, r, since, e);
	if (e) {
		not_updated(r, e);
		return;
	}
	overrules__apply(opt->overrules, r->plan);
	if (opt->require_proof)
		plan__require_proof(r->plan);
	if (r->plan->refusals.n) {
		const struct reason *first = &r->plan->refusals.items[0];
		target__set_reason(r, OUTCOME_NOT_UPDATED, ERR_REFUSED, first->code, first->text,
				   "restart the process to run the new build");
		return;
	}
	r->outcome = OUTCOME_PENDING;
}

/* Where the new imports of a group's members lead. *at_fault: whose cannot be resolved. */
struct err *target__resolve_imports(const struct target *t, const struct group *g, struct linkmap *map, int *at_fault)
{
	size_t n = t->libraries.n;
	FREE_CLEANUP struct provider *p = xcalloc(n, sizeof(*p));
	for (size_t i = 0; i < n; i++)
		p[i].library = &t->libraries.items[i];
	for (size_t i = 0; i < g->n; i++) {
		p[g->members[i]].plan = target__member(t, g, i)->plan;
		p[g->members[i]].order = i;
	}
	for (size_t i = 0; i < g->n; i++) {
		struct result *r = target__member(t, g, i);
		*at_fault = (int)i;
		free(r->imports);
		r->imports = xcalloc(imports__count(r->plan), sizeof(*r->imports));
		if (imports__any(r->plan))
			TRY(imports__resolve(map, p, n, g->members[i], r->imports));
	}
	*at_fault = TARGET_ALL_ALIKE;
	return NULL;
}

bool target__any_imports(const struct target *t, const struct group *g)
{
	for (size_t i = 0; i < g->n; i++)
		if (imports__any(target__member(t, g, i)->plan))
			return true;
	return false;
}

static void refuse_member(const struct target *t, const struct group *g, int i, const char *code, struct err *e)
{
	if (!e)
		return;
	target__group_failed(t, g, e, i);
	if (i != TARGET_ALL_ALIKE && err__kind(e) == ERR_REFUSED)
		target__member(t, g, (size_t)i)->code = code;
	err__free(e);
}

/* What must be true of all of a group together, beyond each one's plan. `map` is NULL, and `no_map` says why, where the
 * loader's list cannot be read: then only who has new imports depends on it. */
static void judge_group(const struct target *t, const struct group *g, struct linkmap *map, const struct err *no_map)
{
	for (size_t i = 0; i < g->n; i++)
		target__member(t, g, i)->group = g;
	hold_back(t, g);
	for (size_t i = 0; i < g->n && map && target__group_pending(t, g); i++)
		refuse_member(t, g, (int)i, "dependency",
			      group__check_plain(t->process, map, &t->libraries, target__member(t, g, i)->library));
	if (!target__group_pending(t, g))
		return;
	if (no_map && target__any_imports(t, g)) {
		target__group_failed(t, g, no_map, TARGET_ALL_ALIKE);
		return;
	}
	int at_fault;
	struct err *e = target__resolve_imports(t, g, map, &at_fault);
	refuse_member(t, g, at_fault, "import", e);
}

static bool any_plain_pending(const struct target *t)
{
	for (size_t i = 0; i < t->libraries.n; i++)
		if (t->results[i].outcome == OUTCOME_PENDING && loaded__is_plain(&t->libraries.items[i]))
			return true;
	return false;
}

/* ERR_GONE when the process ended meanwhile. */
static struct err *judge_groups(struct target *t, bool foresee)
{
	LINKMAP_CLEANUP struct linkmap *map = NULL;
	ERR_CLEANUP struct err *no_map = target__outdated(t) ? linkmap__read(t->process, &map) : NULL;
	glibc__judge(t, map, no_map);
	group_list__make(&t->libraries, map, &t->groups);
	for (size_t i = 0; i < t->groups.n; i++)
		judge_group(t, &t->groups.items[i], map, no_map);
	if (foresee && map && any_plain_pending(t))
		unwinding__foresee(map);
	return process__alive(t->process);
}

struct err *target__open(pid_t pid, const struct plan_options *opt, struct target **out)
{
	struct target *t = xcalloc(1, sizeof(*t));
	t->pid = pid;
	uint64_t since = trace__now();
	struct err *e = process__open(pid, &t->process);
	if (!e) {
		process__trace_to(t->process, opt->trace);
		process__keep_files_in(t->process, opt->files);
		process__know_others(t->process, opt->census);
		e = discover__libraries(t->process, opt->split_only ? DISCOVER_SPLIT : DISCOVER_ALL, &t->libraries);
		process__did(t->process, "look", since, e,
			     (struct trace_arg){.key = "libraries", .number = (int64_t)t->libraries.n});
	}
	if (e) {
		target__close(t);
		return e;
	}
	t->name = xstrdup(process__name(t->process));
	t->start_time = process__start_time(t->process);
	t->results = xcalloc(t->libraries.n, sizeof(*t->results));
	for (size_t i = 0; i < t->libraries.n; i++) {
		t->results[i].library = &t->libraries.items[i];
		plan_library(t->process, &t->results[i], opt);
	}
	since = trace__now();
	e = judge_groups(t, opt->foresee);
	process__did(t->process, "judge groups", since, e,
		     (struct trace_arg){.key = "groups", .number = (int64_t)t->groups.n});
	if (e) {
		target__close(t);
		return e;
	}
	*out = t;
	return NULL;
}

void target__close(struct target *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->groups.n; i++)
		target__release_surgeries(t, &t->groups.items[i]);
	group_list__free(&t->groups);
	for (size_t i = 0; t->results && i < t->libraries.n; i++) {
		struct result *r = &t->results[i];
		plan__free(r->plan);
		free(r->imports);
		free(r->reason);
		free(r->hint);
		free(r->held_by);
	}
	free(t->results);
	loaded_list__free(&t->libraries);
	lock__drop(t->lock);
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

void target__give_up(struct target *t)
{
	for (size_t i = 0; i < t->libraries.n; i++) {
		struct result *r = &t->results[i];
		if (r->outcome != OUTCOME_PENDING)
			continue;
		r->outcome = OUTCOME_NOT_UPDATED;
		if (!r->hint)
			r->hint =
			    xstrdup("run llvupdate again later, with more or longer tries (-n, -t), or restart the "
				    "process");
	}
}
