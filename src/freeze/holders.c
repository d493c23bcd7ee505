/* See holders.h. */
#include "freeze/holders.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "freeze/sleepers.h"
#include "inject/clock.h"
#include "inject/pages.h"
#include "inject/proc.h"
#include "inject/thread_stack.h"

enum {
	CHUNK_PAGES = 256,   /* looked at and read at once */
	FOUND_MAX = 1 << 16, /* more than that is not a matter of single holders */
};

struct search {
	const struct process *p;
	const struct holders_query *q;
	struct mappings maps;
	struct areas areas;
	uint64_t low, high; /* all ranges lie in between */
	uint64_t *words;    /* a chunk of memory */
	uint64_t bytes;     /* looked at in this pass */
	bool shared_only;   /* this pass is about memory that others may change */
	holder_list found;
	VEC(struct trange) stacks; /* of threads, live or ended */
};

/* ---- words ---- */

static void note(struct search *s, uint64_t at, uint64_t to, bool mangled)
{
	for (size_t i = 0; i < s->q->n_ranges; i++)
		if (to >= s->q->ranges[i].start.v && to <= s->q->ranges[i].end.v && s->found.n <= FOUND_MAX)
			vec__push(&s->found, (struct holder){taddr(at), taddr(to), i, mangled});
}

/* A thread control block of glibc: its first and third words are its own address (nptl/descr.h, tcbhead_t). */
static void note_stack(struct search *s, uint64_t tcb)
{
	struct trange stack;
	uint64_t guard;
	if (thread_stack__of(s->p, taddr(tcb), &stack, &guard))
		vec__push(&s->stacks, stack);
}

static void look_at_words(struct search *s, const uint64_t *w, size_t n, uint64_t at)
{
	uint64_t low = s->low, span = s->high - s->low, guard = s->q->pointer_guard;
	for (size_t i = 0; i < n; i++) {
		uint64_t here = at + 8 * i;
		if (w[i] - low <= span)
			note(s, here, w[i], false);
		if (guard && pointer__unmangle(w[i], guard) - low <= span)
			note(s, here, pointer__unmangle(w[i], guard), true);
		if (w[i] == here && i + 2 < n && w[i + 2] == here)
			note_stack(s, here);
	}
}

/* ---- pages ---- */

static bool has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Shared memory, as opposed to a file. */
static bool is_shared_memory(const struct mapping *m)
{
	static const char *const kinds[] = {"/memfd:", "/dev/shm/", "/dev/zero", "/SYSV", "/anon_hugepage"};
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (has_prefix(m->path, kinds[i]))
			return true;
	return false;
}

/* ERR_UNREADABLE is for memory that went away between two looks: its contents went with it. */
static struct err *look_at_run(struct search *s, taddr_t from, size_t pages)
{
	struct err *e = process__read(s->p, from, s->words, pages * LLU_PAGE);
	if (!e) {
		look_at_words(s, s->words, pages * (LLU_PAGE / 8), from.v);
		return NULL;
	}
	if (err__kind(e) != ERR_UNREADABLE)
		return e;
	err__free(e);
	for (size_t i = 0; pages > 1 && i < pages; i++)
		TRY(look_at_run(s, taddr_add(from, i * LLU_PAGE), 1));
	return NULL;
}

static struct err *look_at_chunk(struct search *s, const struct mapping *m, taddr_t from, size_t pages)
{
	uint8_t there[CHUNK_PAGES];
	if (clock_ns() > s->q->deadline)
		return process__err(s->p, 0, ERR_RETRY, 0, NULL,
				    "it has more memory than could be looked through in time");
	if (s->q->bytes_max && s->bytes > s->q->bytes_max)
		return process__err(s->p, 0, ERR_REFUSED, 0, NULL,
				    "it has more memory than is looked through while it stands still");
	TRY(process__pages(s->p, from, pages, there));
	for (size_t i = 0; i < pages;) {
		size_t n = 0;
		while (i + n < pages && (there[i + n] & (PAGE_THERE | PAGE_SWAPPED)) &&
		       (m->shared || !(there[i + n] & PAGE_OF_FILE)))
			n++;
		s->bytes += n * LLU_PAGE;
		if (n)
			TRY(look_at_run(s, taddr_add(from, i * LLU_PAGE), n));
		i += n ? n : 1;
	}
	return NULL;
}

static bool is_skipped(const struct search *s, const struct mapping *m)
{
	for (size_t i = 0; i < s->q->n_skip; i++)
		if (m->range.start.v >= s->q->skip[i].start.v && m->range.end.v <= s->q->skip[i].end.v)
			return true;
	return false;
}

static struct err *look_at_mapping(struct search *s, const struct mapping *m, bool upwards)
{
	const struct area *a = areas__at(&s->areas, m->range.start);
	size_t pages = (m->range.end.v - m->range.start.v) / LLU_PAGE;
	size_t chunks = (pages + CHUNK_PAGES - 1) / CHUNK_PAGES;
	if (!(m->prot & PROT_READ) || is_skipped(s, m) || (m->shared ? !is_shared_memory(m) : s->shared_only))
		return NULL;
	/* what was told of it may have another end by now */
	if (a && a->range.end.v == m->range.end.v && (a->device || a->resident == 0))
		return NULL;
	if (a && a->served)
		return process__err(s->p, 0, ERR_REFUSED, 0, NULL,
				    "memory whose page faults somebody serves (userfaultfd) cannot be looked through");
	for (size_t i = 0; i < chunks; i++) {
		size_t k = upwards ? i : chunks - 1 - i;
		size_t first = k * CHUNK_PAGES;
		size_t n = pages - first < CHUNK_PAGES ? pages - first : CHUNK_PAGES;
		TRY(look_at_chunk(s, m, taddr_add(m->range.start, first * LLU_PAGE), n));
	}
	return NULL;
}

static struct err *pass(struct search *s, bool upwards)
{
	mappings__free(&s->maps);
	areas__free(&s->areas);
	s->bytes = 0;
	TRY(process__areas(s->p, &s->areas));
	TRY(process__maps(s->p, &s->maps));
	for (size_t i = 0; i < s->maps.n; i++) {
		const struct mapping *m = &s->maps.items[upwards ? i : s->maps.n - 1 - i];
		TRY(look_at_mapping(s, m, upwards));
		if (strcmp(m->path, "[stack]") == 0)
			vec__push(&s->stacks, m->range);
	}
	return NULL;
}

static bool is_on(const struct trange *r, size_t n, taddr_t at)
{
	for (size_t i = 0; i < n; i++)
		if (trange__has(r[i], at))
			return true;
	return false;
}

static bool any_shared(const struct mappings *maps)
{
	for (size_t i = 0; i < maps->n; i++)
		if (maps->items[i].shared && is_shared_memory(&maps->items[i]))
			return true;
	return false;
}

/* Of a process that runs. */
static struct err *look_twice(struct search *s)
{
	struct sleepers sleepers;
	sleepers__note(s->p, &sleepers);
	struct err *e = pass(s, true);
	s->shared_only = !e && sleepers__slept_on(s->p, &sleepers);
	if (!e && (!s->shared_only || any_shared(&s->maps)))
		e = pass(s, false);
	sleepers__free(&sleepers);
	return e;
}

struct err *holders__find(const struct process *p, const struct holders_query *q, holder_list *out)
{
	struct search s = {.p = p, .q = q, .low = UINT64_MAX, .words = xmalloc((size_t)CHUNK_PAGES * LLU_PAGE)};
	for (size_t i = 0; i < q->n_ranges; i++) {
		s.low = q->ranges[i].start.v < s.low ? q->ranges[i].start.v : s.low;
		s.high = q->ranges[i].end.v > s.high ? q->ranges[i].end.v : s.high;
	}
	struct err *e = !q->n_ranges ? NULL : q->still ? pass(&s, true) : look_twice(&s);
	if (!e && s.found.n > FOUND_MAX)
		e = process__err(p, 0, ERR_REFUSED, 0, NULL, "more words lead there than can be looked at");
	for (size_t i = 0; !e && i < s.found.n; i++) {
		const struct holder *h = &s.found.items[i];
		if (!is_on(s.stacks.items, s.stacks.n, h->at) && !is_on(q->skip, q->n_skip, h->at))
			vec__push(out, *h);
	}
	mappings__free(&s.maps);
	areas__free(&s.areas);
	free(s.words);
	vec__free(&s.found);
	vec__free(&s.stacks);
	return e;
}

uint64_t holders__pointer_guard(const struct process *p, taddr_t thread_pointer)
{
	uint64_t guard = 0;
	ERR_CLEANUP struct err *e =
	    thread_pointer.v ? process__read(p, taddr_add(thread_pointer, 0x30), &guard, sizeof(guard)) : NULL;
	return e ? 0 : guard;
}
