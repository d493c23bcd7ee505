/* The constants of older images (see retire_parts.h).
 *
 * A program may have kept an address of a constant in any place and in any form, and no page table tells who will use
 * it. So constants stay, without the code, as long as there is room for the images that come. When there is not, an
 * image goes whole if it can be shown that no word in the process leads to it: all threads stand still, and all
 * registers, all stacks and all memory are looked through. That is done up to a size, since the process stands
 * still for it; in a larger process constants stay, and an update for which there is no room is refused.
 */
#include <string.h>
#include <sys/mman.h>

#include "freeze/freeze.h"
#include "freeze/holders.h"
#include "inject/clock.h"
#include "remap/retire_parts.h"
#include "remap/surgery_parts.h"

enum {
	ENTRIES_MIN = 4,      /* of the header, to be free */
	GROWTH = 4,           /* the next image may be larger than any before by one in so many parts */
	FROZEN_MAX = 64 << 20 /* bytes that are looked through while the process stands still */
};

/* How much of the window is free behind `at`? */
static uint64_t gap_at(const struct loaded *l, vaddr_t at)
{
	vaddr_t end = l->vapi->vapi.window + l->vapi->vapi.window_len;
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++) {
		const struct vapi_image *m = &l->header.image[i];
		if (!vapi_image__is_there(m) || m->base + m->len <= at)
			continue;
		if (m->base <= at)
			return 0;
		end = m->base < end ? m->base : end;
	}
	return end > at ? end - at : 0;
}

/* Would the next image find room, with the pages that are prepared for an exchange? */
static bool has_room(const struct loaded *l)
{
	const struct vapi_note *v = &l->vapi->vapi;
	struct vrange relro = surgery__relro_pages(l->vapi);
	uint64_t largest = 0, gap = gap_at(l, v->window);
	size_t free_entries = 0;
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++) {
		const struct vapi_image *m = &l->header.image[i];
		free_entries += m->state == VAPI_IMAGE_FREE;
		if (!vapi_image__is_there(m))
			continue;
		uint64_t behind = gap_at(l, m->base + m->len);
		largest = m->len > largest ? m->len : largest;
		gap = behind > gap ? behind : gap;
	}
	uint64_t pages = v->eh_frame_hdr_cap + (relro.end - relro.start) + v->table_len + LLU_PAGE;
	return free_entries >= ENTRIES_MIN && gap >= largest + largest / GROWTH + pages;
}

/* Has another image of the library, of which nothing else is known, code that runs and may use these constants? */
static bool has_neighbour(const struct retire *r, const struct old_code *o)
{
	for (size_t i = 0; i < r->old.n; i++)
		if (&r->old.items[i] != o && r->old.items[i].l == o->l && r->old.items[i].held)
			return true;
	return false;
}

/* The kernel may still read from there by itself. */
static bool is_used_by_kernel(const struct mappings *maps)
{
	for (size_t i = 0; i < maps->n; i++)
		if (strstr(maps->items[i].path, "[io_uring]") || strstr(maps->items[i].path, "[aio]"))
			return true;
	return false;
}

/* Where constants are, and of which of r->old; both lists are of the same length. */
struct constants {
	range_list at;
	VEC(size_t) whose;
};

/* Not the code, into which stale return addresses may lead; that nobody will use them is known. */
static void list_constants(const struct retire *r, const struct mappings *maps, size_t which, struct constants *out)
{
	const struct old_code *o = &r->old.items[which];
	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *m = &maps->items[i];
		if (m->range.start.v < o->all.start.v || m->range.end.v > o->all.end.v || (m->prot & PROT_EXEC) ||
		    !(m->prot & PROT_READ))
			continue;
		vec__push(&out->at, m->range);
		vec__push(&out->whose, which);
	}
}

static struct err *look_at_threads(struct retire *r, struct freeze *frozen, const struct constants *c)
{
	for (size_t i = 0; i < c->at.n; i++) {
		struct old_code *o = &r->old.items[c->whose.items[i]];
		if (!o->constants)
			TRY(freeze__mentions(frozen, &c->at.items[i], 1, &o->constants));
	}
	return NULL;
}

static struct err *look_at_memory(struct retire *r, const struct constants *c)
{
	range_list skip = {0};
	holder_list holders = {0};
	retire__list_skipped(r, &skip);
	struct holders_query q = {.ranges = c->at.items,
				  .n_ranges = c->at.n,
				  .skip = skip.items,
				  .n_skip = skip.n,
				  .deadline = clock_deadline((int)r->opt->timeout_s * 1000),
				  .still = true,
				  .bytes_max = FROZEN_MAX};
	struct err *e = holders__find(r->p, &q, &holders);
	for (size_t i = 0; i < holders.n; i++)
		r->old.items[c->whose.items[holders.items[i].range]].constants = true;
	vec__free(&holders);
	vec__free(&skip);
	return e;
}

static struct err *look(struct retire *r, const struct constants *c)
{
	struct freeze *frozen = NULL;
	struct freeze_options f = {.what = "retire constants",
				   .except = hand__tid(r->hand),
				   .strict = true,
				   .stop_ms = RETIRE_STOP_MS,
				   .turns = r->opt->turns};
	TRY(freeze__begin(r->p, &f, &frozen));
	struct err *e = look_at_threads(r, frozen, c);
	if (!e)
		e = look_at_memory(r, c);
	r->frozen_ns += freeze__thaw(frozen);
	return e;
}

struct err *retire__ask_for_constants(struct retire *r)
{
	struct mappings maps;
	struct constants c = {0};
	TRY(process__maps(r->p, &maps));
	bool kernel = is_used_by_kernel(&maps);
	for (size_t i = 0; i < r->old.n; i++) {
		struct old_code *o = &r->old.items[i];
		if (o->image != OLD_OWN && !o->held && !o->constants && !kernel && !has_room(o->l) &&
		    !has_neighbour(r, o))
			list_constants(r, &maps, i, &c);
		else
			o->constants = true;
	}
	mappings__free(&maps);
	struct err *e = c.at.n ? look(r, &c) : NULL;
	for (size_t i = 0; i < c.at.n && e; i++)
		r->old.items[c.whose.items[i]].constants = true;
	vec__free(&c.at);
	vec__free(&c.whose);
	if (e && err__kind(e) == ERR_GONE)
		return e;
	err__free(e); /* what keeps it from being found out keeps the constants, no more */
	return NULL;
}
