/* See surgery.h; the layout of the window is in surgery_parts.h. */
#include "remap/surgery.h"

#include <string.h>
#include <sys/syscall.h>

#include "base/hash.h"
#include "remap/bring.h"
#include "remap/lock.h"
#include "remap/surgery_parts.h"

enum { SEGMENTS_MAX = 16 };

struct err *surgery__refuse(const struct surgery *s, const char *why)
{
	return err__new(ERR_REFUSED, 0, s->l->path, "restart the process to run the new build", "%s", why);
}

/* ---- before anything is touched ---- */

struct err *surgery__new(const struct process *p, const struct loaded *l, const struct plan *plan,
			 const taddr_t *imports, struct surgery **out)
{
	struct surgery *s = xcalloc(1, sizeof(*s));
	s->p = p;
	s->l = l;
	s->plan = plan;
	s->imports = imports;
	struct mappings maps;
	struct err *err = process__maps(p, &maps);
	if (!err) {
		err = surgery__lay_out(s, &maps);
		mappings__free(&maps);
	}
	if (!err && (!s->mapped || s->code_only || plan->pages.n)) {
		FREE_CLEANUP char *id = elf_file__build_id(plan->next);
		const char *soname = strchr(plan->next->soname, '/') ? "" : plan->next->soname;
		FREE_CLEANUP char *name = xasprintf("%s-%.16s", *soname ? soname : "image", id);
		s->bytes = image_file__make(plan, s->base, l->shift, &s->bytes_len);
		err = store__put(name, s->bytes, s->bytes_len, &s->stored);
		surgery__fill_entries(s);
	}
	if (err) {
		surgery__free(s);
		return err;
	}
	*out = s;
	return NULL;
}

void surgery__free(struct surgery *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->shadows.n; i++) {
		free(s->shadows.items[i].content);
		free(s->shadows.items[i].before);
	}
	vec__free(&s->shadows);
	vec__free(&s->leftovers);
	vec__free(&s->replaced);
	mappings__free(&s->maps);
	free(s->bytes);
	free(s->stored.path);
	free(s->got);
	free(s->own);
	free(s->table);
	free(s);
}

void surgery__entries(const struct surgery *s, trange_list *out)
{
	for (size_t i = 0; i < s->plan->jumps.n; i++) {
		taddr_t a = surgery__at(s, s->plan->jumps.items[i].entry);
		vec__push(out, (struct trange){a, taddr_add(a, ARCH_JUMP_SIZE)});
	}
}

static void list_segments(const struct surgery *s, bool exec, trange_list *out)
{
	struct image_segment segments[SEGMENTS_MAX];
	bool plain = s->l->vapi->plain, own = s->plan->live == s->plan->vapi;
	size_t n = plain && own ? 0 : image_file__segments(s->plan->live, segments, SEGMENTS_MAX);
	for (size_t i = 0; i < n; i++)
		if (segments[i].exec == exec) {
			taddr_t start = surgery__at(s, s->l->map.base + segments[i].at);
			vec__push(out, (struct trange){start, taddr_add(start, segments[i].len)});
		}
}

void surgery__live_tables(const struct surgery *s, trange_list *out)
{
	list_segments(s, false, out);
}

void surgery__live_ranges(const struct surgery *s, trange_list *out)
{
	list_segments(s, true, out);
	for (size_t i = 0; i < s->plan->leaves.n; i++) {
		struct vrange r = s->plan->leaves.items[i];
		vec__push(out, (struct trange){surgery__at(s, r.start), surgery__at(s, r.end)});
	}
}

/* ---- calls of the hand ---- */

static struct err *reserve(struct surgery *s, struct hand *h, vaddr_t a, uint64_t len)
{
	return len ? bring__reserve(h, surgery__at(s, a), len) : NULL;
}

/* Where a shadow was there is a hole, unless the process has mapped something of its own into it. */
static struct err *fill_hole(struct surgery *s, struct hand *h, vaddr_t a, uint64_t len)
{
	int64_t ignored;
	const uint64_t arg[6] = {surgery__at(s, a).v, len, PROT_NONE, BRING_RESERVED_FLAGS | MAP_FIXED_NOREPLACE,
				 (uint64_t)-1,        0};
	return hand__call(h, SYS_mmap, arg, &ignored);
}

/* From `start` to the end of the shadows. */
static struct err *reserve_from(struct surgery *s, struct hand *h, vaddr_t start)
{
	for (size_t i = 0; i < s->shadows.n; i++) {
		const struct shadow *x = &s->shadows.items[i];
		if (!x->moved)
			continue;
		TRY(reserve(s, h, start, x->at - start));
		TRY(fill_hole(s, h, x->at, x->len));
		start = x->at + x->len;
	}
	return reserve(s, h, start, s->shadow_at + s->shadow_len - start);
}

/* ---- prepare ---- */

static taddr_t header_at(const struct surgery *s, size_t offset)
{
	return surgery__at(s, s->l->vapi->vapi.header + offset);
}

/* Writes what s->announced has there. */
static struct err *write_header(const struct surgery *s, size_t offset, size_t len)
{
	return process__write(s->p, header_at(s, offset), (const uint8_t *)&s->announced + offset, len);
}

struct err *surgery__claim(struct surgery *s)
{
	const size_t owner = offsetof(struct vapi_header, owner), start = offsetof(struct vapi_header, owner_start);
	bool first = s->l->header.magic == 0;
	s->announced = s->l->header;
	owner__set(&s->announced);
	s->claimed = true;
	if (!first) { /* the PID is what counts: last */
		TRY(write_header(s, start, sizeof(s->announced) - start));
		return write_header(s, owner, sizeof(s->announced.owner));
	}
	/* without the magic nothing counts, so what an earlier try left behind is overwritten before */
	TRY(write_header(s, 0, sizeof(s->announced)));
	s->announced.magic = VAPI_HEADER_MAGIC;
	return write_header(s, 0, sizeof(s->announced.magic));
}

/* An annex stays when its library is unloaded; another one may be there by now. */
static struct err *still_loaded(const struct surgery *s)
{
	for (size_t i = 0; i < s->shadows.n && s->l->vapi->plain; i++) {
		const struct shadow *x = &s->shadows.items[i];
		if (x->writable || x->to >= s->l->vapi->vapi.end)
			continue;
		FREE_CLEANUP uint8_t *now = xmalloc(x->len);
		ERR_CLEANUP struct err *e = process__read(s->p, surgery__at(s, x->to), now, x->len);
		if (e || memcmp(now, x->before, x->len) != 0)
			return err__new(ERR_RETRY, 0, s->l->path, "run llvupdate again",
					"the library was unloaded, or changed by somebody else, meanwhile");
	}
	return NULL;
}

struct err *surgery__still_ours(const struct surgery *s)
{
	struct vapi_header h;
	bool mapped = true;
	TRY(still_loaded(s));
	if (s->replaced.n)
		TRY(process__still_mapped(s->p, s->replaced.items, s->replaced.n, &mapped));
	if (!mapped)
		return err__new(ERR_RETRY, 0, s->l->path, "run llvupdate again",
				"the library's mappings were changed by somebody else meanwhile");
	TRY(process__read(s->p, header_at(s, 0), &h, sizeof(h)));
	return memcmp(&h, &s->announced, sizeof(h)) == 0
		   ? NULL
		   : err__new(ERR_RETRY, 0, s->l->path, "run llvupdate again",
			      "the process was updated by somebody else meanwhile");
}

static size_t entry_offset(uint32_t i)
{
	return offsetof(struct vapi_header, image) + i * sizeof(struct vapi_image);
}

/* `state` is its first word, so an entry that becomes free is free at once. */
_Static_assert(offsetof(struct vapi_image, state) == 0, "free entries are written from the front");

static struct err *clear_entry(struct surgery *s, uint32_t i)
{
	s->announced.image[i] = (struct vapi_image){0};
	return write_header(s, entry_offset(i), sizeof(struct vapi_image));
}

/* What a dead tool has mapped becomes reservation, before its entry is used for something else. */
static struct err *clear_leftovers(struct surgery *s, struct hand *h)
{
	for (size_t i = 0; i < s->leftovers.n; i++)
		TRY(reserve(s, h, s->leftovers.items[i].start,
			    s->leftovers.items[i].end - s->leftovers.items[i].start));
	for (uint32_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (s->announced.image[i].state == VAPI_IMAGE_PREPARING)
			TRY(clear_entry(s, i));
	return NULL;
}

/* Law 2: what is begun is written down first. The entry is complete before it is marked. */
static struct err *announce(struct surgery *s)
{
	vaddr_t start = s->mapped ? s->shadow_at : s->base;
	struct vapi_image i = {.state = VAPI_IMAGE_FREE,
			       .build_id_len = s->plan->next->build_id_len,
			       .base = start,
			       .len = s->shadow_at + s->shadow_len - start};
	memcpy(i.build_id, s->plan->next->build_id, sizeof(i.build_id));
	uint32_t at = s->mapped ? 0 : s->entry;
	while (at < VAPI_IMAGES_MAX && s->announced.image[at].state != VAPI_IMAGE_FREE)
		at++;
	if (at == VAPI_IMAGES_MAX)
		return surgery__refuse(s, "too many earlier images are still mapped in the process");
	s->announced_at = at;
	s->announced.image[at] = i;
	TRY(write_header(s, entry_offset(at), sizeof(i)));
	s->announced.image[at].state = VAPI_IMAGE_PREPARING;
	return write_header(s, entry_offset(at), sizeof(i.state));
}

/* All of it, or what is missing; and the pages with entries that jump there, over the shadow pages. */
static struct err *map_image(struct surgery *s, struct hand *h)
{
	struct image_segment segments[SEGMENTS_MAX];
	size_t n = image_file__segments(s->plan->next, segments, SEGMENTS_MAX);
	int64_t fd, ignored;
	TRY(bring__open(s->p, h, &s->stored, s->bytes, s->bytes_len, "llu-image", &fd, &s->shared));
	struct err *err = NULL;
	for (size_t i = 0; i < n && !err; i++)
		if (!s->mapped || (segments[i].exec && s->code_only))
			err = bring__map(h, "map the new image", surgery__at(s, s->base + segments[i].at),
					 segments[i].len, PROT_READ | (segments[i].exec ? PROT_EXEC : 0), MAP_PRIVATE,
					 (int)fd, segments[i].offset);
	for (size_t i = 0; i < s->shadows.n && !err; i++) {
		const struct shadow *x = &s->shadows.items[i];
		if (x->exec)
			err = bring__map(h, "map pages", surgery__at(s, x->at), x->len, PROT_READ | PROT_EXEC,
					 MAP_PRIVATE, (int)fd, x->offset);
	}
	const uint64_t arg[6] = {(uint64_t)fd};
	struct err *closed = hand__call(h, SYS_close, arg, &ignored);
	if (err) {
		err__free(closed);
		return err;
	}
	return closed;
}

/* Words behind the image, read-only once they are written. */
static struct err *map_words(struct surgery *s, struct hand *h, uint64_t offset, const uint64_t *words, size_t n)
{
	taddr_t place = surgery__at(s, s->base + offset);
	uint64_t len = align_up(n * 8, LLU_PAGE);
	if (!n)
		return NULL;
	TRY(bring__map(h, "map the new image", place, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	TRY(process__write(s->p, place, words, n * 8));
	return bring__protect(h, place, len, PROT_READ);
}

static struct err *map_shadows(struct surgery *s, struct hand *h)
{
	TRY(bring__map(h, "map pages", surgery__at(s, s->shadow_at), s->shadow_len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (size_t i = 0; i < s->shadows.n; i++) {
		const struct shadow *x = &s->shadows.items[i];
		if (x->exec)
			continue;
		TRY(process__write(s->p, surgery__at(s, x->at), x->content, x->len));
		if (!x->writable)
			TRY(bring__protect(h, surgery__at(s, x->at), x->len, PROT_READ));
	}
	return NULL;
}

struct err *surgery__prepare(struct surgery *s, struct hand *h)
{
	TRY(clear_leftovers(s, h));
	TRY(announce(s));
	s->begun = true;
	TRY(map_shadows(s, h));
	if (s->bytes)
		TRY(map_image(s, h));
	if (!s->mapped) {
		TRY(map_words(s, h, s->plan->got_at, s->got, s->plan->new_got.n));
		TRY(map_words(s, h, s->plan->own_at, s->own, s->plan->own_words.n));
	}
	return NULL;
}

/* ---- undo, verify ---- */

/* The code that map_image() has added to constants. */
static struct err *reserve_code(struct surgery *s, struct hand *h)
{
	struct image_segment segments[SEGMENTS_MAX];
	size_t n = image_file__segments(s->plan->next, segments, SEGMENTS_MAX);
	for (size_t i = 0; i < n; i++)
		if (segments[i].exec)
			TRY(reserve(s, h, s->base + segments[i].at, align_up(segments[i].len, LLU_PAGE)));
	return NULL;
}

bool surgery__has_mapped(const struct surgery *s)
{
	return s->begun;
}

struct err *surgery__undo(struct surgery *s, struct hand *h)
{
	vaddr_t start = s->mapped ? s->shadow_at : s->base;
	if (!s->claimed)
		return NULL;
	TRY(surgery__still_ours(s)); /* or what lies there may be another tool's */
	if (s->begun) {
		TRY(reserve_from(s, h, start));
		if (s->code_only)
			TRY(reserve_code(s, h));
		s->begun = false;
		TRY(clear_entry(s, s->announced_at));
	}
	if (s->l->header.magic == 0)
		s->announced = (struct vapi_header){.library = s->l->header.library};
	owner__clear(&s->announced);
	TRY(write_header(s, 0, sizeof(s->announced)));
	s->claimed = false;
	return NULL;
}

struct err *surgery__clear_shadows(struct surgery *s, struct hand *h)
{
	return reserve_from(s, h, s->shadow_at);
}

struct err *surgery__verify(const struct surgery *s)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	FREE_CLEANUP uint64_t *table = xmalloc(v->table_len);
	struct vapi_header h;
	TRY(process__read(s->p, surgery__at(s, v->table), table, v->table_len));
	TRY(process__read(s->p, surgery__at(s, v->header), &h, sizeof(h)));
	if (memcmp(table, s->table, v->table_len) != 0 || memcmp(&h, &s->header, sizeof(h)) != 0)
		return err__new(ERR_SURGERY, 0, s->l->path, NULL, "the process does not hold what was committed");
	return NULL;
}

void surgery__places(const struct surgery *s, struct surgery_places *out)
{
	*out = (struct surgery_places){.image = s->base, .image_len = s->plan->image_len, .shared = s->shared};
	for (size_t i = 0; i < s->shadows.n; i++)
		out->pages_replaced += s->shadows.items[i].len / LLU_PAGE;
}

void surgery__record(const struct surgery *s, bool moves, struct journal *j)
{
	struct journal_library l = {.path = xstrdup(s->l->path),
				    .bias = s->l->bias,
				    .header = header_at(s, 0),
				    .generation = s->l->header.generation,
				    .image = s->base,
				    .image_len = s->mapped ? 0 : s->plan->image_len,
				    .shadows = s->shadow_at,
				    .shadows_len = s->shadow_len};
	bool pages = j->step == JOURNAL_EXCHANGE;
	for (size_t i = 0; i < s->shadows.n && moves; i++) {
		const struct shadow *x = &s->shadows.items[i];
		struct journal_move m = {.at = x->at,
					 .to = x->to,
					 .len = x->len,
					 .hash = hash__bytes(HASH_START, x->content, x->len),
					 .before = pages ? xmemdup(x->before, x->len) : NULL};
		vec__push(&l.moves, m);
	}
	vec__push(&j->libraries, l);
}
