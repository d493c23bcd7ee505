/* See unwinding.h. */
#include "remap/unwinding.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/vec.h"
#include "remap/annex.h"
#include "remap/bring.h"
#include "remap/linkmap.h"

/* struct dl_find_object_internal of x86-64 (glibc, elf/dl-find_object.h). */
struct entry {
	uint64_t start, end; /* of the object's mappings */
	uint64_t map;        /* struct link_map */
	uint64_t eh_frame;   /* PT_GNU_EH_FRAME */
};

enum { OBJECTS_MAX = 4096, NEAR = 64, WORDS_MAX = 1 << 20 };

struct unwinding {
	const struct process *p;
	struct trange loader;
	taddr_t pointer_at, size_at, end_at; /* the words */
	uint64_t pointer, size, end;         /* what they hold */
	taddr_t a, b;                        /* our arrays */
	uint64_t new_size, new_end;
};

/* ---- the loader's array ---- */

struct search {
	const struct process *p;
	const struct linkmap *map;
	const struct mappings *maps;
	struct entry *entries; /* the array that was found */
	size_t n;
};

static bool is_object(const struct search *s, uint64_t link_map)
{
	for (size_t i = 0; i < linkmap__count(s->map); i++)
		if (linkmap__object(s->map, i).at.v == link_map)
			return true;
	return false;
}

/* Of a library that was unloaded the annex stays. */
static bool is_known(const struct search *s, const struct entry *x)
{
	return is_object(s, x->map) || annex__at(s->maps, taddr(x->start));
}

static bool is_filler(const struct entry *x)
{
	return x->start == UINT64_MAX && x->end == UINT64_MAX;
}

/* How many entries of an array there are at `a`, up to `max`, and how many of them are objects; behind those there may
 * be some that earlier tries have left, for no address. */
static size_t read_array(const struct search *s, uint64_t a, struct entry *out, size_t max, size_t *objects)
{
	size_t n = 0;
	for (*objects = 0; n < max; n++) {
		ERR_CLEANUP struct err *e =
		    process__read(s->p, taddr(a + n * sizeof(struct entry)), &out[n], sizeof(struct entry));
		const struct entry *x = &out[n];
		if (!e && *objects && is_filler(x))
			continue;
		if (e || n > *objects || x->start >= x->end || x->start % LLU_PAGE || !is_known(s, x) ||
		    (n > 0 && x->start < out[n - 1].end))
			break;
		++*objects;
	}
	return n;
}

/* A word near the pointer with a value from `low` to `high`. */
static bool near_word(const uint64_t *words, size_t n, size_t at, uint64_t low, uint64_t high, size_t *out)
{
	size_t from = at > NEAR / 8 ? at - NEAR / 8 : 0;
	for (size_t i = from; i < n && i <= at + NEAR / 8; i++)
		if (words[i] >= low && words[i] <= high && i != at) {
			*out = i;
			return true;
		}
	return false;
}

/* Looks for the three words in a mapping of the loader's data. More than one such place: none is believed. */
static struct err *look_into(struct search *s, const struct mapping *m, struct unwinding *u, size_t *found)
{
	size_t n = (m->range.end.v - m->range.start.v) / 8, size_at, end_at;
	if (n > WORDS_MAX)
		return NULL;
	FREE_CLEANUP uint64_t *words = xcalloc(n, 8);
	FREE_CLEANUP struct entry *array = xcalloc(OBJECTS_MAX, sizeof(*array));
	TRY(process__read(s->p, m->range.start, words, n * 8));
	for (size_t i = 0; i < n; i++) {
		size_t objects = 0;
		size_t len = words[i] && words[i] % 8 == 0 ? read_array(s, words[i], array, OBJECTS_MAX, &objects) : 0;
		uint64_t end = objects ? array[objects - 1].end : 0;
		/* entries for no address may not count yet */
		if (!objects || !near_word(words, n, i, objects, len, &size_at) ||
		    !near_word(words, n, i, end, end, &end_at))
			continue;
		++*found;
		u->pointer_at = taddr_add(m->range.start, i * 8);
		u->size_at = taddr_add(m->range.start, size_at * 8);
		u->end_at = taddr_add(m->range.start, end_at * 8);
		u->pointer = words[i];
		u->size = words[size_at];
		u->end = end;
		free(s->entries);
		s->entries = xmemdup(array, objects * sizeof(*array));
		s->n = objects;
	}
	return NULL;
}

static bool is_loader(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	return strncmp(name, "ld-linux", 8) == 0 || strncmp(name, "ld-2.", 5) == 0;
}

static struct err *find_words(struct search *s, const struct mappings *maps, struct unwinding *u)
{
	size_t found = 0;
	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *m = &maps->items[i];
		if (!m->inode || m->shared || !is_loader(m->path))
			continue;
		if (m->prot & PROT_EXEC)
			u->loader = m->range;
		else if (m->offset && (m->prot & PROT_READ))
			TRY(look_into(s, m, u, &found));
	}
	return found == 1 && u->loader.end.v
		   ? NULL
		   : err__new(ERR_REFUSED, 0, NULL, "restart the process to run the new build",
			      "where its dynamic loader looks up code is not known (glibc before 2.35?), so exceptions "
			      "could not pass through new code");
}

/* ---- our arrays ---- */

/* The highest free pages of the window, for `len` bytes: images come to it from below. */
static struct err *find_room(const struct mappings *maps, const struct loaded *l, size_t len, vaddr_t *out)
{
	const struct vapi_note *v = &l->vapi->vapi;
	for (vaddr_t at = v->window + v->window_len - len; at >= v->window; at -= LLU_PAGE) {
		taddr_t a = loaded__at(l, at);
		const struct mapping *m = mappings__at(maps, a);
		*out = at;
		if (m && m->prot == PROT_NONE && !m->inode && m->range.end.v >= a.v + len)
			return NULL;
	}
	return err__new(ERR_REFUSED, 0, l->path, "restart the process to get a new window",
			"no room is left beside the library");
}

static int by_start(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	return (x->start > y->start) - (x->start < y->start);
}

/* A: as it is. B: with the annexes. Both are filled up with entries for no address. */
static void fill(const struct search *s, const struct entry *annex, size_t n, size_t size, struct entry *a,
		 struct entry *b)
{
	for (size_t i = 0; i < size; i++) {
		const struct entry filler = {.start = UINT64_MAX, .end = UINT64_MAX, .map = annex[0].map};
		a[i] = i < s->n ? s->entries[i] : filler;
		b[i] = i < s->n + n && i >= s->n ? annex[i - s->n] : a[i];
	}
	qsort(b, size, sizeof(*b), by_start);
}

/* Does the annex hold these bytes at `a`? */
static bool is_there(const struct search *s, const struct loaded *l, taddr_t a, const void *bytes, size_t len)
{
	const struct vapi_note *v = &l->vapi->vapi;
	FREE_CLEANUP uint8_t *have = xmalloc(len);
	if (loaded__from(l, a) < v->window || loaded__from(l, a) - v->window >= v->window_len)
		return false;
	ERR_CLEANUP struct err *e = process__read(s->p, a, have, len);
	return !e && memcmp(have, bytes, len) == 0;
}

static struct err *write_arrays(const struct search *s, const struct mappings *maps, const struct loaded *l,
				struct hand *h, const struct entry *annex, size_t n, struct unwinding *u)
{
	u->new_size = s->n + n > u->size ? s->n + n : u->size;
	size_t one = u->new_size * sizeof(struct entry), len = align_up(2 * one, LLU_PAGE);
	vaddr_t room = 0;
	FREE_CLEANUP struct entry *both = xcalloc(2 * u->new_size, sizeof(*both));
	fill(s, annex, n, u->new_size, both, both + u->new_size);
	u->new_end = u->end;
	for (size_t i = 0; i < n; i++)
		u->new_end = annex[i].end > u->new_end ? annex[i].end : u->new_end;
	u->a = taddr(u->pointer);
	u->b = taddr_add(u->a, one);
	if (is_there(s, l, u->a, both, 2 * one)) /* of an earlier try */
		return NULL;
	TRY(find_room(maps, l, len, &room));
	u->a = loaded__at(l, room);
	u->b = taddr_add(u->a, one);
	TRY(bring__map(h, "map a table", u->a, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	TRY(process__write(s->p, u->a, both, 2 * one));
	return bring__protect(h, u->a, len, PROT_READ);
}

/* ---- telling it ---- */

static struct err *holds(const struct unwinding *u, taddr_t at, uint64_t value)
{
	uint64_t now;
	TRY(process__read(u->p, at, &now, sizeof(now)));
	return now == value ? NULL : err__new(ERR_RETRY, 0, NULL, NULL, "its dynamic loader's tables have changed");
}

static struct err *write_word(const struct unwinding *u, taddr_t at, uint64_t value)
{
	return process__write(u->p, at, &value, sizeof(value));
}

static struct err *begin(const struct unwinding *u)
{
	TRY(holds(u, u->pointer_at, u->pointer));
	TRY(holds(u, u->size_at, u->size));
	TRY(holds(u, u->end_at, u->end));
	return write_word(u, u->pointer_at, u->a.v);
}

struct err *unwinding__make_room(const struct unwinding *u)
{
	TRY(holds(u, u->pointer_at, u->a.v));
	TRY(holds(u, u->size_at, u->size));
	return write_word(u, u->size_at, u->new_size);
}

bool unwinding__is_ready(const struct unwinding *u)
{
	ERR_CLEANUP struct err *pointer = holds(u, u->pointer_at, u->a.v);
	ERR_CLEANUP struct err *size = holds(u, u->size_at, u->new_size);
	return !pointer && !size;
}

struct err *unwinding__tell(const struct unwinding *u)
{
	TRY(holds(u, u->pointer_at, u->a.v));
	TRY(holds(u, u->size_at, u->new_size));
	TRY(write_word(u, u->pointer_at, u->b.v));
	return u->new_end == u->end ? NULL : write_word(u, u->end_at, u->new_end);
}

/* ---- all of it ---- */

static taddr_t link_map_of(const struct linkmap *map, taddr_t bias)
{
	for (size_t i = 0; i < linkmap__count(map); i++)
		if (linkmap__object(map, i).bias.v == bias.v)
			return linkmap__object(map, i).at;
	return taddr(0);
}

static struct err *entry_of(const struct search *s, const struct loaded *l, struct entry *out)
{
	const struct vapi_note *v = &l->vapi->vapi;
	*out = (struct entry){loaded__at(l, v->end).v, loaded__at(l, v->window).v + v->window_len,
			      link_map_of(s->map, l->bias).v, loaded__at(l, v->eh_frame_hdr).v};
	return out->map && v->eh_frame_hdr
		   ? NULL
		   : err__new(ERR_REFUSED, 0, l->path, NULL, "it has no unwind table, or is not in the loader's list");
}

static bool is_told(const struct search *s, const struct entry *annex)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->entries[i].start == annex->start)
			return true;
	return false;
}

/* *any: something is to be told. */
static struct err *prepare(struct search *s, const struct mappings *maps, const struct loaded *const *l, size_t n,
			   struct hand *h, struct unwinding *u, bool *any)
{
	FREE_CLEANUP struct entry *annex = xcalloc(n, sizeof(*annex));
	size_t new = 0;
	TRY(find_words(s, maps, u));
	for (size_t i = 0; i < n; i++) {
		TRY(entry_of(s, l[i], &annex[new]));
		new += !is_told(s, &annex[new]);
	}
	*any = new > 0;
	return new ? write_arrays(s, maps, l[0], h, annex, new, u) : NULL;
}

struct err *unwinding__prepare(const struct process *p, const struct loaded *const *l, size_t n, struct hand *h,
			       struct unwinding **out)
{
	LINKMAP_CLEANUP struct linkmap *map = NULL;
	struct mappings maps;
	bool any = false;
	*out = NULL;
	TRY(linkmap__read(p, &map));
	TRY(process__maps(p, &maps));
	struct unwinding *u = xcalloc(1, sizeof(*u));
	struct search s = {.p = p, .map = map, .maps = &maps};
	u->p = p;
	struct err *e = prepare(&s, &maps, l, n, h, u, &any);
	if (!e && any)
		e = begin(u);
	mappings__free(&maps);
	free(s.entries);
	if (e || !any)
		unwinding__free(u);
	else
		*out = u;
	return e;
}

void unwinding__free(struct unwinding *u)
{
	free(u);
}

struct trange unwinding__loader(const struct unwinding *u)
{
	return u->loader;
}
