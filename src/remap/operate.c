/* What is done to a process: prepare, freeze and exchange, undo (see update.h). */
#include <string.h>

#include "freeze/holders.h"
#include "inject/clock.h"
#include "inject/room.h"
#include "remap/annex.h"
#include "remap/exchange.h"
#include "remap/glibc.h"
#include "remap/imports.h"
#include "remap/lock.h"
#include "remap/recover.h"
#include "remap/retire.h"
#include "remap/target_parts.h"
#include "remap/unwinding.h"

enum {
	STOP_MS = 20,       /* for one thread to stop */
	DRIVE_MS = 10,      /* for one thread to leave the live code by itself */
	PAUSE_FIRST_MS = 2, /* between two attempts to freeze, doubled up to */
	PAUSE_LAST_MS = 100,
	MEMORY_SPARE = 1 << 20, /* for pages that replace others, page tables, the hand */
	LOOK_MAX = 256 << 20,   /* of memory, while the process stands still */
	LOOK_MS = 60000,        /* for all of it, while the process runs */
	MAPPINGS_SPARE = 64,    /* an image's segments, and both sides of each page that is replaced */
};

static void dismiss_hand(struct target *t)
{
	if (t->hand)
		hand__dismiss(t->hand);
	t->hand = NULL;
}

void target__release_surgeries(struct target *t, const struct group *g)
{
	dismiss_hand(t);
	for (size_t i = 0; i < g->n; i++) {
		surgery__free(target__member(t, g, i)->surgery);
		target__member(t, g, i)->surgery = NULL;
	}
}

/* For the trace. */
static struct trace_arg library_of(const struct result *r)
{
	return (struct trace_arg){.key = "library", .text = r->library->path};
}

static struct trace_arg try_of(const struct target *t, const struct group *g)
{
	return (struct trace_arg){.key = "try", .number = target__member(t, g, 0)->tries};
}

/* ---- the journal ---- */

/* Whether `step` is that of `g`, or (NULL) of all that is under way: other groups stay prepared meanwhile. */
static struct err *write_journal(struct target *t, const struct group *g, enum journal_step step)
{
	struct journal *j = journal__new(t->pid, t->start_time, t->name);
	j->step = step;
	for (size_t i = 0; i < t->groups.n; i++)
		for (size_t k = 0; k < t->groups.items[i].n; k++) {
			const struct group *of = &t->groups.items[i];
			const struct surgery *s = target__member(t, of, k)->surgery;
			if (s)
				surgery__record(s, of == g && step != JOURNAL_PREPARE, j);
		}
	for (size_t i = 0; i < t->annexes.n; i++)
		vec__push(&j->annexes, t->annexes.items[i]);
	struct err *e = journal__write(j);
	journal__free(j);
	t->journal = t->journal || !e;
	return e;
}

/* Behind the commit and the undo of a group: is anything left to be written down? */
static void settle_journal(struct target *t)
{
	if (t->left_behind || !t->journal)
		return;
	for (size_t i = 0; i < t->libraries.n; i++)
		if (t->results[i].surgery)
			return; /* another group; what is said of this one does no harm */
	journal__remove(t->pid);
	t->journal = false;
}

/* ---- preparing ---- */

/* One hand makes the calls for all of a group, from the VAPI of the first. A thread that may be borrowed must come by
 * within the time for one try. */
static struct err *raise_hand(struct target *t, const struct group *g, unsigned timeout_s)
{
	struct hand_place place = loaded__hand_place(target__member(t, g, 0)->library);
	return t->hand ? NULL : hand__raise(t->process, &place, (int)timeout_s * 1000, &t->hand);
}

/* The hand of an llvupdate that was killed may be at work in any of the process's libraries. */
static struct err *await_other_hands(const struct target *t, unsigned timeout_s)
{
	for (size_t i = 0; i < t->libraries.n; i++) {
		struct hand_place place = loaded__hand_place(&t->libraries.items[i]);
		if (!loaded__has_vapi(&t->libraries.items[i]))
			continue;
		TRY(hand__await_place(t->process, &place, (int)timeout_s * 1000));
	}
	return NULL;
}

/* The first update of an unprepared library needs room. */
static struct err *make_annexes(struct target *t, const struct group *g, unsigned timeout_s, int *at_fault)
{
	for (size_t i = 0; i < g->n; i++) {
		struct loaded *l = target__member(t, g, i)->library;
		*at_fault = (int)i;
		if (loaded__has_vapi(l))
			continue;
		TRY(annex__choose(t->process, l));
		struct journal_annex a = {annex__range(l), l->bias};
		vec__push(&t->annexes, a);
		struct err *e = write_journal(t, g, JOURNAL_PREPARE);
		if (e) {
			t->annexes.n--;
			l->shift = 0;
			return e;
		}
		TRY(annex__make(t->process, l, (int)timeout_s * 1000));
	}
	*at_fault = TARGET_ALL_ALIKE;
	return NULL;
}

static void forget_annex(struct target *t, taddr_t start)
{
	size_t n = 0;
	for (size_t i = 0; i < t->annexes.n; i++)
		if (t->annexes.items[i].range.start.v != start.v)
			t->annexes.items[n++] = t->annexes.items[i];
	t->annexes.n = n;
}

/* While nobody knows of it, it can be given back. Where that fails it stays, of no use, until cllvupdate -u. */
static void remove_annexes(struct target *t, const struct group *g, unsigned timeout_s)
{
	for (size_t i = 0; i < g->n; i++) {
		struct loaded *l = target__member(t, g, i)->library;
		struct trange r = annex__range(l);
		if (!l->fresh)
			continue;
		dismiss_hand(t);
		ERR_CLEANUP struct err *e = annex__remove(t->process, l, (int)timeout_s * 1000);
		if (!e)
			forget_annex(t, r.start);
		t->left_behind = t->left_behind || e;
		l->shift = 0;
		l->fresh = false;
	}
}

/* Takes back what was mapped; the reason for doing so is in the results already, and stays there. A process in which
 * even that fails runs on as before, with an address range in use that nothing refers to. */
static void undo(struct target *t, const struct group *g, const struct update_options *opt)
{
	bool mapped = false;
	for (size_t i = 0; i < g->n; i++)
		mapped = mapped ||
			 (target__member(t, g, i)->surgery && surgery__has_mapped(target__member(t, g, i)->surgery));
	if (mapped)
		err__free(write_journal(t, g, JOURNAL_UNDO)); /* the older step does */
	for (size_t i = 0; i < g->n; i++) {
		struct result *r = target__member(t, g, i);
		if (!r->surgery)
			continue;
		uint64_t since = trace__now();
		ERR_CLEANUP struct err *e = surgery__has_mapped(r->surgery) ? raise_hand(t, g, opt->timeout_s) : NULL;
		if (!e)
			e = surgery__undo(r->surgery, t->hand);
		process__did(t->process, "undo", since, e, library_of(r));
		if (!e || err__kind(e) == ERR_GONE)
			continue;
		t->left_behind = true;
		FREE_CLEANUP char *both =
		    xasprintf("%s; and what was mapped could not be taken back: %s", r->reason, err__text(e));
		target__set_reason(r, OUTCOME_FAILURE, ERR_SURGERY, "undo", both,
				   "the process runs on as before; cllvupdate -u takes back what is left");
	}
	if (!t->left_behind)
		remove_annexes(t, g, opt->timeout_s);
}

/* Is this the state that was planned for? Images that are mapped are the same; what is being prepared by a tool that
 * is dead may have come or gone. */
static bool same_state(const struct vapi_header *a, const struct vapi_header *b)
{
	bool same = a->live == b->live && a->generation == b->generation && a->own_code == b->own_code;
	for (size_t i = 0; same && i < VAPI_IMAGES_MAX; i++) {
		bool in_a = a->image[i].state > VAPI_IMAGE_PREPARING, in_b = b->image[i].state > VAPI_IMAGE_PREPARING;
		same = in_a == in_b && (!in_a || memcmp(&a->image[i], &b->image[i], sizeof(a->image[i])) == 0);
	}
	return same;
}

/* The header as it is now: another update may have come between, and our own changed it. */
static struct err *check_header(const struct target *t, struct loaded *l)
{
	struct vapi_header now;
	if (!loaded__has_vapi(l))
		return NULL;
	TRY(process__read(t->process, loaded__at(l, l->vapi->vapi.header), &now, sizeof(now)));
	if (now.magic == 0)
		now = (struct vapi_header){.library = now.library};
	if (owner__is_alive(&now))
		return err__new(ERR_BUSY, 0, l->path, "wait for it to end",
				"another llvupdate (process %u) is at work on it", now.owner);
	if (!same_state(&now, &l->header))
		return err__new(ERR_RETRY, 0, NULL, "run llvupdate again",
				"the process was updated by somebody else meanwhile");
	l->header = now;
	owner__clear(&l->header);
	return NULL;
}

static struct err *check_headers(const struct target *t, const struct group *g)
{
	for (size_t i = 0; i < g->n; i++)
		TRY(check_header(t, target__member(t, g, i)->library));
	return NULL;
}

static struct err *still_ours(const struct target *t, const struct group *g)
{
	for (size_t i = 0; i < g->n; i++)
		TRY(surgery__still_ours(target__member(t, g, i)->surgery));
	return NULL;
}

/* The process may have loaded more since they were resolved. */
static struct err *resolve_again(const struct target *t, const struct group *g, int *at_fault)
{
	LINKMAP_CLEANUP struct linkmap *map = NULL;
	*at_fault = TARGET_ALL_ALIKE;
	if (!target__any_imports(t, g))
		return NULL;
	TRY(linkmap__read(t->process, &map));
	return target__resolve_imports(t, g, map, at_fault);
}

/* Where there is no room the kernel may kill the process, or nothing could be taken back. */
static struct err *check_room(const struct target *t, const struct group *g)
{
	uint64_t bytes = MEMORY_SPARE, mappings = 0;
	for (size_t i = 0; i < g->n; i++) {
		const struct plan *p = target__member(t, g, i)->plan;
		bytes += p->image_len + p->pages.n * LLU_PAGE + MEMORY_SPARE;
		mappings += MAPPINGS_SPARE + 2 * p->pages.n;
	}
	return process__has_room(t->process, bytes, mappings);
}

static struct err *begin(struct target *t, const struct group *g, const struct update_options *opt, int *at_fault)
{
	pid_t tracer;
	*at_fault = TARGET_ALL_ALIKE;
	TRY(process__alive(t->process));
	TRY(check_headers(t, g)); /* before the tracer: that may be another llvupdate */
	TRY(process__tracer(t->process, &tracer));
	if (tracer)
		return err__new(ERR_BUSY, 0, NULL, "detach the debugger first", "process %d is traced by process %d",
				t->pid, tracer);
	TRY(process__shares_memory(t->process, false));
	TRY(check_room(t, g));
	TRY(await_other_hands(t, opt->timeout_s));
	TRY(check_headers(t, g));                          /* a dead tool's hand may have come to its end only now */
	TRY(make_annexes(t, g, opt->timeout_s, at_fault)); /* imports may lead there */
	TRY(resolve_again(t, g, at_fault));
	for (size_t i = 0; i < g->n; i++) {
		struct result *r = target__member(t, g, i);
		uint64_t since = trace__now();
		*at_fault = (int)i;
		TRY(surgery__new(t->process, r->library, r->plan, r->imports, &r->surgery));
		process__did(t->process, "make the image", since, NULL, library_of(r));
	}
	*at_fault = TARGET_ALL_ALIKE;
	TRY(write_journal(t, g, JOURNAL_PREPARE));
	for (size_t i = 0; i < g->n; i++)
		TRY(surgery__claim(target__member(t, g, i)->surgery));
	TRY(raise_hand(t, g, opt->timeout_s));
	return still_ours(t, g);
}

static struct err *prepare_members(struct target *t, const struct group *g, int *at_fault)
{
	for (size_t i = 0; i < g->n; i++) {
		uint64_t since = trace__now();
		*at_fault = (int)i;
		TRY(surgery__prepare(target__member(t, g, i)->surgery, t->hand));
		process__did(t->process, "map the image", since, NULL, library_of(target__member(t, g, i)));
	}
	return NULL;
}

static void add_time(const struct target *t, const struct group *g, uint64_t since)
{
	uint64_t took = clock_ns() - since;
	for (size_t i = 0; i < g->n; i++)
		target__member(t, g, i)->total_ns += took;
}

static void prepare(struct target *t, const struct group *g, const struct update_options *opt)
{
	uint64_t start = clock_ns();
	int at_fault;
	for (size_t i = 0; i < g->n; i++)
		target__member(t, g, i)->tries++;
	ERR_CLEANUP struct err *e = begin(t, g, opt, &at_fault);
	if (!e)
		e = prepare_members(t, g, &at_fault);
	process__did(t->process, "prepare", start, e, try_of(t, g));
	if (e) {
		target__group_failed(t, g, e, at_fault);
		undo(t, g, opt);
		target__release_surgeries(t, g);
		settle_journal(t);
	}
	add_time(t, g, start);
}

void target__prepare(struct target *t, const struct update_options *opt)
{
	uint64_t since = trace__now();
	ERR_CLEANUP struct err *e = t->lock ? NULL : lock__take(t->pid, &t->lock);
	if (!e && !t->journal)
		e = recover__check(t->process);
	process__did(t->process, "lock", since, e, (struct trace_arg){0});
	size_t pending = 0;
	for (size_t i = 0; i < t->groups.n; i++)
		pending += target__group_pending(t, &t->groups.items[i]);
	for (size_t i = 0; i < t->groups.n; i++) {
		const struct group *g = &t->groups.items[i];
		if (!target__group_pending(t, g))
			continue;
		if (e)
			for (size_t k = 0; k < g->n; k++)
				target__set_reason(target__member(t, g, k), OUTCOME_NOT_UPDATED, err__kind(e),
						   err_kind__name(err__kind(e)), err__text(e), err__hint(e));
		else
			prepare(t, g, opt);
		if (pending > 1) /* one hand at a time; the commit raises another */
			dismiss_hand(t);
	}
}

/* ---- committing ---- */

static void list_live_ranges(const struct target *t, const struct group *g, trange_list *out)
{
	for (size_t i = 0; i < g->n; i++)
		surgery__live_ranges(target__member(t, g, i)->surgery, out);
}

/* Then nobody may wake up in the middle of an exchange either (image/unprepared.h). */
static bool is_entangled(const struct target *t, const struct group *g)
{
	for (size_t i = 0; i < g->n; i++)
		if (target__member(t, g, i)->plan->entangled)
			return true;
	return false;
}

/* The words that lead into these ranges, from memory that is no thread's stack. `still`: in a freeze. */
static struct err *find_words(const struct target *t, const trange_list *ranges, bool still, holder_list *found)
{
	trange_list skip = {0};
	for (size_t i = 0; i < t->libraries.n; i++) {
		const struct loaded *l = &t->libraries.items[i];
		const struct vapi_note *v = &l->vapi->vapi;
		if (loaded__has_vapi(l)) /* table, header, scratch */
			vec__push(&skip,
				  (struct trange){loaded__at(l, v->table), loaded__at(l, v->scratch + v->scratch_len)});
	}
	struct holders_query q = {.ranges = ranges->items,
				  .n_ranges = ranges->n,
				  .skip = skip.items,
				  .n_skip = skip.n,
				  .pointer_guard = holders__pointer_guard(t->process, hand__thread_pointer(t->hand)),
				  .deadline = clock_deadline(still ? STOP_MS * 100 : LOOK_MS),
				  .still = still,
				  .bytes_max = still ? LOOK_MAX : 0};
	struct err *e = holders__find(t->process, &q, found);
	vec__free(&skip);
	return e;
}

static struct err *is_parked(const struct target *t, const struct holder *h)
{
	return err__new(ERR_RETRY, 0, process__name(t->process), "run llvupdate again later, or restart the process",
			"an address in the old code is at 0x%lx: a parked stack or context?", h->at.v);
}

/* Is anybody parked in old code that would not do beside the new? In a freeze. Pointers to functions are no sign: what
 * would be gone on with lies behind a start. */
static struct err *check_parked(const struct target *t, const trange_list *inside)
{
	holder_list found = {0};
	struct err *e = find_words(t, inside, true, &found);
	for (size_t i = 0; !e && i < found.n; i++) {
		const struct holder *h = &found.items[i];
		struct trange r = inside->items[h->range];
		if (h->to.v > r.start.v && h->to.v < r.end.v)
			e = is_parked(t, h);
	}
	vec__free(&found);
	return e;
}

static int by_start(const void *a, const void *b)
{
	const struct freeze_function *x = a, *y = b;
	return (x->range.start.v > y->range.start.v) - (x->range.start.v < y->range.start.v);
}

static int by_return(const void *a, const void *b)
{
	const struct freeze_return *x = a, *y = b;
	return (x->at.v > y->at.v) - (x->at.v < y->at.v);
}

static void list_functions(const struct target *t, const struct group *g, function_list *out, return_list *returns)
{
	for (size_t i = 0; i < g->n; i++) {
		surgery__functions(target__member(t, g, i)->surgery, out);
		surgery__returns(target__member(t, g, i)->surgery, returns);
	}
	if (out->n)
		qsort(out->items, out->n, sizeof(out->items[0]), by_start);
	if (returns->n)
		qsort(returns->items, returns->n, sizeof(returns->items[0]), by_return);
}

static bool any_everywhere(const struct target *t, const struct group *g)
{
	for (size_t i = 0; i < g->n; i++)
		if (glibc__is_everywhere(target__member(t, g, i)->library))
			return true;
	return false;
}

/* What is exchanged while the process stands still. *committed says whether the new code is live, with an error too. */
static struct err *exchange_frozen(struct target *t, const struct group *g, struct freeze *frozen, struct exchange *x,
				   const trange_list *inside, bool *committed)
{
	struct err *e = still_ours(t, g);
	if (!e && is_entangled(t, g))
		e = check_parked(t, inside);
	if (!e)
		e = exchange__run(x, t->hand, committed);
	struct freeze_stats threads;
	freeze__stats(frozen, &threads);
	threads.moved = 0;
	if (*committed) { /* a thread that cannot be moved goes on in the old code, which stays mapped */
		err__free(freeze__move(frozen, &threads.moved));
	}
	uint64_t frozen_ns = freeze__thaw(frozen);
	for (size_t i = 0; i < g->n; i++) {
		target__member(t, g, i)->threads = threads;
		target__member(t, g, i)->frozen_ns = frozen_ns;
	}
	return e;
}

/* One of the steps that nobody may be in the loader for. */
static struct err *tell_step(const struct target *t, const struct update_options *opt, const struct unwinding *u,
			     struct err *(*step)(const struct unwinding *u))
{
	struct trange loader = unwinding__loader(u);
	struct freeze_options f = {.what = "tell the loader",
				   .inside = &loader,
				   .n_inside = 1,
				   .except = hand__tid(t->hand),
				   .stop_ms = STOP_MS,
				   .turns = opt->turns};
	struct freeze *frozen = NULL;
	TRY(freeze__begin(t->process, &f, &frozen));
	struct err *e = step(u);
	(void)freeze__thaw(frozen);
	return e;
}

/* Before the freeze, in which threads may be driven out by the annex's pads: exceptions must find their way from there.
 */
static struct err *tell_loader(struct target *t, const struct group *g, const struct update_options *opt)
{
	FREE_CLEANUP const struct loaded **plain = xcalloc(g->n, sizeof(void *));
	struct unwinding *u = NULL;
	size_t n = 0;
	for (size_t i = 0; i < g->n; i++)
		if (loaded__is_plain(target__member(t, g, i)->library))
			plain[n++] = target__member(t, g, i)->library;
	if (n)
		TRY(unwinding__prepare(t->process, plain, n, t->hand, &u));
	for (size_t i = 0; i < g->n; i++)
		target__member(t, g, i)->library->fresh = false; /* from the first step on */
	if (!u)
		return NULL;
	struct err *e = tell_step(t, opt, u, unwinding__make_room);
	if (!e)
		e = tell_step(t, opt, u, unwinding__tell);
	unwinding__free(u);
	return e;
}

/* Threads that are asleep may wake up in the middle of an exchange. They find words old or new; but in the bytes of an
 * entry they could be between two instructions that become one. */
static bool writes_code(const struct target *t, const struct group *g)
{
	for (size_t i = 0; i < g->n; i++)
		if (target__member(t, g, i)->plan->jumps.n)
			return true;
	return false;
}

static struct err *freeze_and_exchange(struct target *t, const struct group *g, const struct update_options *opt,
				       struct exchange *x, bool *committed)
{
	trange_list old = {0}, tables = {0};
	function_list functions = {0};
	return_list returns = {0};
	struct freeze *frozen = NULL;
	const struct hand_place park = loaded__hand_place(target__member(t, g, 0)->library);
	TRY(tell_loader(t, g, opt));
	TRY(process__shares_memory(t->process, false)); /* it is a while since begin() asked */
	list_live_ranges(t, g, &old);
	for (size_t i = 0; i < g->n; i++)
		surgery__live_tables(target__member(t, g, i)->surgery, &tables);
	list_functions(t, g, &functions, &returns);
	struct freeze_options f = {.what = "exchange",
				   .inside = old.items,
				   .n_inside = old.n,
				   .functions = functions.items,
				   .n_functions = functions.n,
				   .returns = returns.items,
				   .n_returns = returns.n,
				   .tables = tables.items,
				   .n_tables = tables.n,
				   .park = &park,
				   .drive_ms = DRIVE_MS,
				   .except = hand__tid(t->hand),
				   .strict = opt->strict || writes_code(t, g),
				   .unwinds = any_everywhere(t, g),
				   .for_good = is_entangled(t, g),
				   .stop_ms = STOP_MS,
				   .turns = opt->turns};
	struct err *e = exchange__load(x, t->hand);
	if (!e)
		e = freeze__begin(t->process, &f, &frozen);
	if (!e)
		e = exchange_frozen(t, g, frozen, x, &old, committed);
	vec__free(&old);
	vec__free(&functions);
	vec__free(&returns);
	vec__free(&tables);
	return e;
}

/* Attempts until it succeeds or the time is up. While waiting no hand is held up in the process. */
static struct err *attempt(struct target *t, const struct group *g, const struct update_options *opt,
			   struct exchange *x, bool *committed)
{
	uint64_t deadline = clock_ns() + opt->timeout_s * 1000000000ULL;
	unsigned pause = PAUSE_FIRST_MS;
	struct err *last = NULL;
	for (;;) {
		struct err *e = raise_hand(t, g, opt->timeout_s);
		if (!e)
			e = freeze_and_exchange(t, g, opt, x, committed);
		exchange__trace(x);
		dismiss_hand(t);                          /* used up, or not to be left waiting */
		if (!last || !e || !err__is_passing(e)) { /* else what was before says more */
			err__free(last);
			last = e;
		} else {
			err__free(e);
		}
		if (!last || err__kind(last) != ERR_RETRY || clock_ns() >= deadline)
			return last;
		clock_pause(pause);
		pause = pause * 2 < PAUSE_LAST_MS ? pause * 2 : PAUSE_LAST_MS;
	}
}

/* Is `a` behind the start of an entry? In address order. */
static bool is_within(const trange_list *entries, taddr_t a)
{
	size_t lo = 0, hi = entries->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (entries->items[mid].end.v <= a.v)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < entries->n && entries->items[lo].start.v < a.v;
}

/* A context that a signal handler has left may be parked between any two instructions, also within the bytes that are
 * to become a jump. While the process runs: in the freeze it would take too long. */
static struct err *check_entries(const struct target *t, struct result *r)
{
	trange_list entries = {0}, all = {0};
	holder_list found = {0};
	surgery__entries(r->surgery, &entries);
	if (!entries.n)
		return NULL;
	vec__push(&all, (struct trange){entries.items[0].start, entries.items[entries.n - 1].end});
	struct err *e = find_words(t, &all, false, &found);
	for (size_t i = 0; !e && i < found.n; i++)
		if (is_within(&entries, found.items[i].to))
			e = is_parked(t, &found.items[i]);
	vec__free(&found);
	vec__free(&all);
	vec__free(&entries);
	return e;
}

/* Where nobody may be parked in old code at all, that is asked in the freeze. */
static struct err *check_all_entries(struct target *t, const struct group *g, const struct update_options *opt)
{
	if (is_entangled(t, g) || !writes_code(t, g))
		return NULL;
	uint64_t since = trace__now();
	TRY(raise_hand(t, g, opt->timeout_s));
	for (size_t i = 0; i < g->n; i++)
		TRY(check_entries(t, target__member(t, g, i)));
	process__did(t->process, "look for parked contexts", since, NULL, (struct trace_arg){0});
	return NULL;
}

static struct err *exchange(struct target *t, const struct group *g, const struct update_options *opt, bool *committed)
{
	struct exchange *x;
	FREE_CLEANUP struct surgery **members = xcalloc(g->n, sizeof(void *));
	for (size_t i = 0; i < g->n; i++)
		members[i] = target__member(t, g, i)->surgery;
	TRY(write_journal(t, g, JOURNAL_EXCHANGE));
	TRY(check_all_entries(t, g, opt));
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
		e = surgery__clear_shadows(target__member(t, g, i)->surgery, t->hand);
}

/* `stopped`: what stopped the exchange, which was finished all the same; or NULL. */
static void settle_member(struct result *r, const struct err *stopped)
{
	ERR_CLEANUP struct err *wrong = surgery__verify(r->surgery);
	const struct err *e = stopped ? stopped : wrong;
	surgery__places(r->surgery, &r->places);
	if (e)
		target__set_reason(
		    r, OUTCOME_FAILURE, ERR_SURGERY, "surgery", err__text(e),
		    wrong ? "restart the process: it may run old and new code side by side"
			  : "it runs the new code, as was checked afterwards; restart it when that is convenient");
	else
		r->outcome = OUTCOME_SUCCESS;
}

static void trace_outcome(const struct target *t, const struct result *r)
{
	FREE_CLEANUP char *from = elf_file__build_id(r->library->live), *to = elf_file__build_id(r->plan->next);
	struct trace_event x = {
	    .pid = t->pid,
	    .name = r->outcome == OUTCOME_SUCCESS ? "updated" : "not updated",
	    .start = trace__now(),
	    .args = {library_of(r), {.key = "from", .text = from}, {.key = "to", .text = to}, {.key = NULL}}};
	trace__add(process__trace(t->process), &x);
}

static void commit(struct target *t, const struct group *g, const struct update_options *opt)
{
	uint64_t start = clock_ns();
	bool committed = false;
	ERR_CLEANUP struct err *e = exchange(t, g, opt, &committed);
	if (committed) {
		if (e)
			clear_shadows(t, g, opt);
		else
			err__free(write_journal(t, g, JOURNAL_SETTLE));
		for (size_t i = 0; i < g->n; i++)
			settle_member(target__member(t, g, i), e);
	} else if (e) {
		target__group_failed(t, g, e, TARGET_ALL_ALIKE);
		if (err__kind(e) != ERR_GONE)
			undo(t, g, opt);
	}
	target__release_surgeries(t, g);
	process__did(t->process, "commit", start, e, try_of(t, g));
	for (size_t i = 0; i < g->n; i++)
		trace_outcome(t, target__member(t, g, i));
	add_time(t, g, start);
}

/* ---- retiring ---- */

static void say_what_stays(struct target *t, const retired_list *old)
{
	for (size_t i = 0; i < old->n; i++)
		for (size_t k = 0; k < t->libraries.n; k++) {
			struct result *r = &t->results[k];
			if (r->outcome != OUTCOME_SUCCESS || t->libraries.items[k].bias.v != old->items[i].bias.v)
				continue;
			r->old_code = old->items[i].held_by ? OLD_CODE_HELD : OLD_CODE_GONE;
			r->held_by = old->items[i].held_by ? xstrdup(old->items[i].held_by) : NULL;
			r->retire_frozen_ns = old->items[i].frozen_ns;
		}
}

/* The old code of all libraries at once. The update has succeeded whatever comes of this. */
static void retire_old_code(struct target *t, const struct update_options *opt)
{
	retired_list old = {0};
	uint64_t since = trace__now();
	const struct retire_options options = {.timeout_s = opt->timeout_s, .strict = opt->strict, .turns = opt->turns};
	ERR_CLEANUP struct err *e = retire__process(t->process, &options, &old);
	process__did(t->process, "retire", since, e, (struct trace_arg){0});
	say_what_stays(t, &old);
	for (size_t i = 0; e && i < t->libraries.n; i++) {
		struct result *r = &t->results[i];
		if (r->outcome == OUTCOME_SUCCESS && err__kind(e) != ERR_GONE) {
			free(r->held_by);
			r->old_code = OLD_CODE_HELD;
			r->held_by = xstrdup(err__text(e));
		}
	}
	retired_list__free(&old);
}

void target__commit(struct target *t, const struct update_options *opt)
{
	bool any = false;
	for (size_t i = 0; i < t->groups.n; i++) {
		const struct group *g = &t->groups.items[i];
		if (!target__group_pending(t, g) || !target__member(t, g, 0)->surgery)
			continue;
		commit(t, g, opt);
		any = any || target__member(t, g, 0)->outcome == OUTCOME_SUCCESS;
	}
	if (any)
		retire_old_code(t, opt);
	settle_journal(t);
}
