/* An exchange that stopped half-way, with nobody left to mend it. See recover_parts.h.
 *
 * Shadow pages move one by one: unwind table, read-only data, table, header; library after library. What has moved
 * leaves a hole where it was, into which the process may map something of its own.
 */
#include <string.h>
#include <sys/syscall.h>

#include "base/hash.h"
#include "freeze/freeze.h"
#include "inject/clock.h"
#include "remap/recover_parts.h"
#include "remap/surgery_parts.h"

enum {
	STOP_MS = 20,
	PAUSE_MS = 20,
	EMPTY_MS = 1000, /* for all threads to be outside */
	RANGES_MAX = 64,
};

void part_list__free(part_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		vec__free(&l->items[i].strays);
	vec__free(l);
}

/* ---- which parts, by the journal ---- */

static bool holds(const struct process *p, taddr_t at, uint64_t len, uint64_t hash)
{
	FREE_CLEANUP uint8_t *bytes = xmalloc(len);
	ERR_CLEANUP struct err *e = process__read(p, at, bytes, len);
	return !e && hash__bytes(HASH_START, bytes, len) == hash;
}

static struct loaded *library_of(loaded_list *libraries, const struct journal_library *j)
{
	for (size_t i = 0; i < libraries->n; i++) {
		struct loaded *l = &libraries->items[i];
		uint64_t generation = l->header.generation;
		if (l->bias.v == j->bias.v && loaded__at(l, l->vapi->vapi.header).v == j->header.v &&
		    (generation == j->generation || generation == j->generation + 1))
			return l;
	}
	return NULL;
}

static bool inside_library(const struct loaded *l, vaddr_t a, uint64_t len)
{
	vaddr_t end = l->vapi->vapi.window + l->vapi->vapi.window_len;
	return a <= end && len <= end - a && a % LLU_PAGE == 0 && len % LLU_PAGE == 0 && len;
}

/* The header is written to after it has moved, and says itself which it is. */
static bool has_moved(const struct process *p, const struct loaded *l, const struct journal_library *j,
		      const struct journal_move *m)
{
	if (m->to == l->vapi->vapi.header)
		return l->header.generation == j->generation + 1;
	return holds(p, loaded__at(l, m->to), m->len, m->hash);
}

static bool part_by_journal(const struct process *p, struct loaded *l, const struct journal_library *j,
			    struct part *part)
{
	*part = (struct part){
	    .l = l, .image = j->image, .image_len = j->image_len, .shadows = {j->shadows, j->shadows + j->shadows_len}};
	if (!inside_library(l, j->shadows, j->shadows_len) ||
	    (j->image_len && !inside_library(l, j->image, j->image_len)))
		return false;
	for (size_t i = 0; i < j->moves.n; i++) {
		const struct journal_move *m = &j->moves.items[i];
		struct stray s = {.at = m->at, .to = m->to, .len = m->len, .before = m->before};
		if (!inside_library(l, m->to, m->len))
			return false;
		s.there = holds(p, loaded__at(l, m->at), m->len, m->hash);
		s.moved = has_moved(p, l, j, m);
		vec__push(&part->strays, s);
	}
	return true;
}

static void parts_by_journal(const struct process *p, loaded_list *libraries, const struct journal *j, part_list *out)
{
	for (size_t i = 0; i < j->libraries.n; i++) {
		const struct journal_library *jl = &j->libraries.items[i];
		struct loaded *l = jl->moves.n ? library_of(libraries, jl) : NULL;
		struct part part;
		if (!l)
			continue;
		if (part_by_journal(p, l, jl, &part))
			vec__push(out, part);
		else
			vec__free(&part.strays);
	}
}

/* ---- which parts, by the batch that is still in the process ---- */

static struct part *part_at(part_list *parts, loaded_list *libraries, uint64_t address)
{
	struct loaded *l = NULL;
	for (size_t i = 0; i < libraries->n && !l; i++) {
		const struct vapi_note *v = &libraries->items[i].vapi->vapi;
		if (loaded__from(&libraries->items[i], taddr(address)) - v->window < v->window_len)
			l = &libraries->items[i];
	}
	for (size_t i = 0; i < parts->n; i++)
		if (parts->items[i].l == l)
			return &parts->items[i];
	if (!l)
		return NULL;
	vec__push(parts, (struct part){.l = l});
	return &parts->items[parts->n - 1];
}

static bool is_being_prepared(const struct loaded *l, struct vrange r)
{
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++) {
		const struct vapi_image *m = &l->header.image[i];
		if (m->state == VAPI_IMAGE_PREPARING && r.start >= m->base && r.end <= m->base + m->len)
			return true;
	}
	return false;
}

/* Is it a call that an exchange makes? */
static bool add_call(part_list *parts, loaded_list *libraries, const struct arch_batch_entry *c, bool made)
{
	struct part *part = part_at(parts, libraries, c->arg[0]);
	if (!part)
		return false;
	vaddr_t at = loaded__from(part->l, taddr(c->arg[0])), to = loaded__from(part->l, taddr(c->arg[4]));
	if (!inside_library(part->l, at, c->arg[1]))
		return false;
	if (c->nr == SYS_mmap) {
		part->shadows = (struct vrange){at, at + c->arg[1]};
		return true;
	}
	struct vrange r = {at, at + c->arg[1]};
	if (c->nr != SYS_mremap || !inside_library(part->l, to, c->arg[1]) || (!made && !is_being_prepared(part->l, r)))
		return false;
	vec__push(&part->strays, (struct stray){.at = at, .to = to, .len = c->arg[1], .moved = made, .there = !made});
	return true;
}

static struct err *parts_by_batch(const struct process *p, loaded_list *libraries, part_list *out)
{
	for (size_t i = 0; i < libraries->n && !out->n; i++) {
		struct hand_place place = loaded__hand_place(&libraries->items[i]);
		FREE_CLEANUP struct arch_batch_entry *calls = NULL;
		size_t n, done;
		TRY(hand__read_batch(p, &place, &calls, &n, &done));
		bool ok = done < n;
		for (size_t k = 0; k < n && ok; k++)
			ok = add_call(out, libraries, &calls[k], k < done);
		if (!ok)
			part_list__free(out);
	}
	return NULL;
}

struct err *recover__find_parts(const struct process *p, loaded_list *libraries, const struct journal *j,
				part_list *out, bool *stopped)
{
	*stopped = false;
	if (j)
		parts_by_journal(p, libraries, j, out);
	else
		TRY(parts_by_batch(p, libraries, out));
	for (size_t i = 0; i < out->n && (!j || j->step == JOURNAL_EXCHANGE); i++)
		for (size_t k = 0; k < out->items[i].strays.n; k++)
			*stopped = *stopped || !out->items[i].strays.items[k].there;
	return NULL;
}

/* ---- forward, or back? ---- */

/* Is anything new reachable, or is it not known how to go back? */
static struct err *must_finish(const struct process *p, const part_list *parts, bool *out)
{
	*out = false;
	for (size_t i = 0; i < parts->n; i++)
		for (size_t k = 0; k < parts->items[i].strays.n; k++) {
			const struct loaded *l = parts->items[i].l;
			const struct stray *s = &parts->items[i].strays.items[k];
			if (!s->before)
				*out = true;
			if (s->to != l->vapi->vapi.table || !s->before)
				continue;
			FREE_CLEANUP uint8_t *now = xmalloc(s->len);
			TRY(process__read(p, loaded__at(l, s->to), now, s->len));
			*out = *out || memcmp(now, s->before, s->len) != 0;
		}
	return NULL;
}

static struct err *lost(const struct part *part)
{
	return err__new(ERR_SURGERY, 0, part->l->path, "restart the process when that is convenient",
			"its pages were exchanged in part, and what is missing is not there any more");
}

struct err *recover__write_header(const struct process *p, struct loaded *l, size_t offset, const void *data,
				  size_t len)
{
	memcpy((uint8_t *)&l->header + offset, data, len);
	return process__write(p, loaded__at(l, l->vapi->vapi.header + offset), data, len);
}

/* The state, which is what counts, is written last where it begins something, and first where it ends it. */
struct err *recover__write_entry(const struct process *p, struct loaded *l, size_t i, const struct vapi_image *image)
{
	size_t at = offsetof(struct vapi_header, image) + i * sizeof(*image), rest = sizeof(image->state);
	if (image->state == VAPI_IMAGE_FREE)
		return recover__write_header(p, l, at, image, sizeof(*image));
	TRY(recover__write_header(p, l, at + rest, (const uint8_t *)image + rest, sizeof(*image) - rest));
	return recover__write_header(p, l, at, &image->state, rest);
}

/* Marks the place of the shadows, of which the header says nothing any more, as something to be cleared. Where no
 * entry is free, that room in the window is lost. */
static struct err *mark_shadows(const struct process *p, struct part *part)
{
	struct vapi_image mark = {
	    .state = VAPI_IMAGE_PREPARING, .base = part->shadows.start, .len = part->shadows.end - part->shadows.start};
	if (!mark.len || is_being_prepared(part->l, part->shadows))
		return NULL;
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (part->l->header.image[i].state == VAPI_IMAGE_FREE)
			return recover__write_entry(p, part->l, i, &mark);
	return NULL;
}

/* ---- forward ---- */

/* The new header comes whole but for its owner, and names the place of the shadows. */
static struct err *finish_header(const struct process *p, struct part *part, const uint8_t *page)
{
	struct vapi_header now = part->l->header, next;
	memcpy(&next, page, sizeof(next));
	if (next.magic != VAPI_HEADER_MAGIC || next.live > VAPI_IMAGES_MAX || next.generation != now.generation + 1)
		return lost(part);
	next.owner = now.owner;
	next.owner_start = now.owner_start;
	next.owner_pidns = now.owner_pidns;
	for (size_t i = 0; i < VAPI_IMAGES_MAX && part->shadows.end; i++) {
		if (next.image[i].state != VAPI_IMAGE_FREE)
			continue;
		next.image[i] = (struct vapi_image){.state = VAPI_IMAGE_PREPARING,
						    .base = part->shadows.start,
						    .len = part->shadows.end - part->shadows.start};
		break;
	}
	return recover__write_header(p, part->l, 0, &next, sizeof(next));
}

static struct err *finish_part(const struct process *p, struct part *part)
{
	for (size_t i = 0; i < part->strays.n; i++) {
		struct stray *s = &part->strays.items[i];
		if (s->moved)
			continue;
		if (!s->there)
			return lost(part);
		FREE_CLEANUP uint8_t *content = xmalloc(s->len);
		TRY(process__read(p, loaded__at(part->l, s->at), content, s->len));
		if (s->to == part->l->vapi->vapi.header)
			TRY(finish_header(p, part, content));
		else
			TRY(process__write(p, loaded__at(part->l, s->to), content, s->len));
	}
	return mark_shadows(p, part);
}

/* ---- back ---- */

/* Threads have run since the pages were exchanged, and may have kept addresses of the new image's constants. So the
 * image stays where it is, as an older one does. */
static struct err *keep_image(const struct process *p, struct part *part)
{
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++) {
		struct vapi_image *m = &part->l->header.image[i];
		if (m->state != VAPI_IMAGE_PREPARING || m->base != part->image || !part->image_len)
			continue;
		struct vapi_image kept = *m;
		kept.state = VAPI_IMAGE_MAPPED;
		kept.len = part->image_len;
		TRY(recover__write_entry(p, part->l, i, &kept));
	}
	return NULL;
}

static struct err *take_back_part(const struct process *p, struct part *part)
{
	for (size_t i = 0; i < part->strays.n; i++) {
		const struct stray *s = &part->strays.items[i];
		if (!s->there && s->to != part->l->vapi->vapi.header) /* that has not moved; recovery writes to it */
			TRY(process__write(p, loaded__at(part->l, s->to), s->before, s->len));
	}
	TRY(keep_image(p, part));
	return mark_shadows(p, part);
}

/* ---- in a freeze ---- */

static void add_range(struct trange r, struct trange *out, size_t *n)
{
	if (*n < RANGES_MAX)
		out[(*n)++] = r;
	else /* better too much than too little */
		out[0] = (struct trange){taddr(0), taddr(UINT64_MAX)};
}

/* Code that is live by the headers. */
static struct err *live_ranges(const struct process *p, const part_list *parts, struct trange *out, size_t *n)
{
	struct mappings maps;
	TRY(process__maps(p, &maps));
	for (size_t i = 0; i < parts->n; i++) {
		const struct loaded *l = parts->items[i].l;
		const struct vapi_image *image = loaded__live_image(l);
		struct trange r = loaded__own(l);
		if (image)
			r = (struct trange){loaded__at(l, image->base), loaded__at(l, image->base + image->len)};
		for (size_t k = 0; k < maps.n; k++) {
			const struct mapping *m = &maps.items[k];
			if ((m->prot & PROT_EXEC) && m->range.start.v >= r.start.v && m->range.end.v <= r.end.v)
				add_range(m->range, out, n);
		}
	}
	mappings__free(&maps);
	return NULL;
}

/* Pages of code into which jumps are to be written: nobody may ever go on in the middle of one. */
static void written_ranges(const part_list *parts, struct trange *out, size_t *n)
{
	for (size_t i = 0; i < parts->n; i++) {
		const struct part *part = &parts->items[i];
		for (size_t k = 0; k < part->strays.n && part->l->vapi->plain; k++) {
			const struct stray *s = &part->strays.items[k];
			taddr_t at = loaded__at(part->l, s->to);
			if (!s->moved && elf_file__segment(part->l->vapi, s->to) &&
			    (elf_file__segment(part->l->vapi, s->to)->p_flags & PF_X) &&
			    s->to < part->l->vapi->vapi.end)
				add_range((struct trange){at, taddr_add(at, s->len)}, out, n);
		}
	}
}

static struct err *settle(const struct process *p, part_list *parts, bool finish)
{
	for (size_t i = 0; i < parts->n; i++)
		TRY(finish ? finish_part(p, &parts->items[i]) : take_back_part(p, &parts->items[i]));
	return NULL;
}

/* `empty`: nobody may be inside the code that is live. */
static struct err *freeze_and_settle(const struct process *p, part_list *parts, bool finish, bool empty)
{
	struct trange inside[RANGES_MAX];
	struct freeze_options opt = {.inside = inside, .stop_ms = STOP_MS};
	struct freeze *frozen;
	for (size_t i = 0; i < parts->n; i++) /* code is written to: nobody may run it */
		opt.strict = opt.strict || parts->items[i].l->vapi->plain;
	if (empty)
		TRY(live_ranges(p, parts, inside, &opt.n_inside));
	if (finish)
		written_ranges(parts, inside, &opt.n_inside);
	TRY(freeze__begin(p, &opt, &frozen));
	struct err *e = settle(p, parts, finish);
	(void)freeze__thaw(frozen);
	return e;
}

/* Who is inside when the exchange is taken back goes on as if it had never begun. When it is finished, nobody should
 * be; but a thread that waits inside may do so for ever, and some calls lead to the new code already: then it is
 * better finished than not. The old code stays mapped. */
struct err *recover__settle_parts(const struct process *p, part_list *parts, bool *finished)
{
	uint64_t deadline = clock_deadline(RECOVER_TIMEOUT_S * 1000), empty_until = clock_deadline(EMPTY_MS);
	TRY(must_finish(p, parts, finished));
	for (;;) {
		bool empty = *finished && clock_ns() < empty_until;
		struct err *e = freeze_and_settle(p, parts, *finished, empty);
		if (!e || err__kind(e) != ERR_RETRY || clock_ns() >= deadline)
			return e;
		err__free(e);
		clock_pause(PAUSE_MS);
	}
}
