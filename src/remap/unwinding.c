/* See unwinding.h. */
#include "remap/unwinding.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/vec.h"
#include "image/code.h"
#include "remap/annex.h"
#include "remap/bring.h"
#include "remap/linkmap.h"

/* struct dl_find_object_internal of x86-64 (glibc, elf/dl-find_object.h). */
struct entry {
	uint64_t start, end; /* of the object's mappings */
	uint64_t map;        /* struct link_map */
	uint64_t eh_frame;   /* PT_GNU_EH_FRAME */
};

enum { OBJECTS_MAX = 4096, RELRO_MAX = 16 << 20 };

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
	struct linkmap *map;
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

/* As much of an array of OBJECTS_MAX entries as there is at `a`. */
static size_t read_entries(const struct search *s, uint64_t a, struct entry *out)
{
	const struct mapping *m = mappings__at(s->maps, taddr(a));
	uint64_t room = m ? m->range.end.v - a : 0;
	size_t n = room / sizeof(*out) < OBJECTS_MAX ? room / sizeof(*out) : OBJECTS_MAX;
	ERR_CLEANUP struct err *e = n ? process__read(s->p, taddr(a), out, n * sizeof(*out)) : NULL;
	return e ? 0 : n;
}

/* How many entries of an array there are at `a`, and how many of them are objects; behind those there may be some that
 * earlier tries have left, for no address. */
static size_t read_array(const struct search *s, uint64_t a, struct entry *out, size_t *objects)
{
	size_t max, n = 0;
	*objects = 0;
	ERR_CLEANUP struct err *e = process__read(s->p, taddr(a), out, sizeof(*out));
	if (e || !is_known(s, &out[0]))
		return 0;
	for (max = read_entries(s, a, out); n < max; n++) {
		const struct entry *x = &out[n];
		if (*objects && is_filler(x))
			continue;
		if (n > *objects || x->start >= x->end || x->start % LLU_PAGE || !is_known(s, x) ||
		    (n > 0 && x->start < out[n - 1].end))
			break;
		++*objects;
	}
	return n;
}

/* ---- what a loader's file says ---- */

/* Words of the loader's memory that are read-only after relocation, and that one function uses. */
struct used_words {
	vaddr_t *items;
	size_t n;
};

enum { WORDS_MIN = 3, LOADERS_MAX = 4 };

/* Of one build: whoever starts programs has few. Files are known by their contents. */
static struct known_loader {
	uint8_t key[ELF_DIGEST_LEN];
	Elf64_Phdr relro;
	VEC(struct used_words) functions; /* those that use enough of them */
} known[LOADERS_MAX];
static size_t n_known;

static void list_words(const struct code *c, const struct function *f, const Elf64_Phdr *relro, struct used_words *out)
{
	VEC(vaddr_t) words = {0};
	for (uint32_t i = f->first_ref; i < f->first_ref + f->n_refs; i++) {
		const struct ref *r = &c->refs.items[i];
		vaddr_t at = r->target;
		bool seen = false;
		for (size_t k = 0; k < words.n && !seen; k++)
			seen = words.items[k] == at;
		if (r->kind == REF_MEMORY && !seen && at % 8 == 0 && at - relro->p_vaddr < relro->p_memsz)
			vec__push(&words, at);
	}
	*out = (struct used_words){words.items, words.n};
}

static void forget(struct known_loader *k)
{
	for (size_t i = 0; i < k->functions.n; i++)
		free(k->functions.items[i].items);
	vec__free(&k->functions);
}

static struct err *learn(const struct elf_file *loader, struct known_loader *k)
{
	struct code *c = NULL;
	*k = (struct known_loader){0};
	memcpy(k->key, elf_file__digest(loader), sizeof(k->key));
	for (size_t i = 0; i < loader->n_phdrs; i++)
		if (loader->phdrs[i].p_type == PT_GNU_RELRO)
			k->relro = loader->phdrs[i];
	if (!k->relro.p_memsz || k->relro.p_memsz > RELRO_MAX)
		return NULL;
	TRY(code__analyse(loader, &c));
	for (size_t i = 0; i < c->functions.n; i++) {
		struct used_words w;
		list_words(c, &c->functions.items[i], &k->relro, &w);
		if (w.n >= WORDS_MIN)
			vec__push(&k->functions, w);
		else
			free(w.items);
	}
	code__free(c);
	return NULL;
}

static struct err *know(const struct elf_file *loader, const struct known_loader **out)
{
	struct known_loader new;
	for (size_t i = 0; i < n_known && i < LOADERS_MAX; i++)
		if (memcmp(known[i].key, elf_file__digest(loader), sizeof(known[i].key)) == 0) {
			*out = &known[i];
			return NULL;
		}
	TRY(learn(loader, &new));
	struct known_loader *to = &known[n_known++ % LOADERS_MAX];
	forget(to);
	*to = new;
	*out = to;
	return NULL;
}

/* ---- the loader's words ---- */

struct word {
	uint64_t value;
	bool asked;
	size_t objects, len; /* of the array that it leads to, if it does */
	uint64_t last;       /* where its last object ends */
};

struct word_list {
	taddr_t at;
	struct word *items;
	size_t n;
};

/* All of the loader's words that are read-only after relocation. */
static struct err *read_words(const struct search *s, taddr_t bias, const Elf64_Phdr *relro, struct word_list *out)
{
	vaddr_t start = align_up(relro->p_vaddr, 8), end = align_up(relro->p_vaddr + relro->p_memsz, 8);
	size_t n = (end - start) / 8;
	FREE_CLEANUP uint64_t *values = xcalloc(n, sizeof(*values));
	*out = (struct word_list){.at = taddr_add(bias, start)};
	TRY(process__read(s->p, out->at, values, n * sizeof(*values)));
	out->items = xcalloc(n, sizeof(*out->items));
	out->n = n;
	for (size_t i = 0; i < n; i++)
		out->items[i].value = values[i];
	return NULL;
}

static struct word *word_at(const struct word_list *l, taddr_t a)
{
	return &l->items[(a.v - l->at.v) / 8];
}

/* Many functions use the same words: each is followed once. */
static void follow(const struct search *s, struct word *w, struct entry *array)
{
	if (w->asked)
		return;
	w->asked = true;
	if (w->value && w->value % 8 == 0 && mappings__at(s->maps, taddr(w->value)))
		w->len = read_array(s, w->value, array, &w->objects);
	if (w->objects)
		w->last = array[w->objects - 1].end;
}

/* Of those that a function uses, the one with a value from `low` to `high`; {0} for none, or more than one. */
static taddr_t one_word(const struct word_list *l, taddr_t bias, const struct used_words *used, uint64_t low,
			uint64_t high)
{
	taddr_t found = taddr(0);
	size_t n = 0;
	for (size_t i = 0; i < used->n; i++) {
		taddr_t at = taddr_add(bias, used->items[i]);
		uint64_t value = word_at(l, at)->value;
		if (value >= low && value <= high) {
			found = at;
			n++;
		}
	}
	return n == 1 ? found : taddr(0);
}

/* Does the function use a word that leads to the array of objects, one that says how many there are, and one where the
 * last one ends? *clear becomes false when another one's are other words. */
static void choose_words(struct search *s, taddr_t bias, const struct word_list *l, const struct used_words *used,
			 struct entry *array, struct unwinding *u, bool *clear)
{
	for (size_t i = 0; i < used->n; i++) {
		taddr_t at = taddr_add(bias, used->items[i]);
		struct word *w = word_at(l, at);
		follow(s, w, array);
		if (!w->objects)
			continue;
		/* entries for no address may not count yet */
		taddr_t size = one_word(l, bias, used, w->objects, w->len);
		taddr_t end = one_word(l, bias, used, w->last, w->last);
		size_t objects = 0;
		if (!size.v || !end.v || read_array(s, w->value, array, &objects) != w->len || objects != w->objects)
			continue;
		*clear = *clear && (!u->pointer_at.v ||
				    (u->pointer_at.v == at.v && u->size_at.v == size.v && u->end_at.v == end.v));
		u->pointer_at = at;
		u->size_at = size;
		u->end_at = end;
		u->pointer = w->value;
		u->size = word_at(l, size)->value;
		u->end = w->last;
		free(s->entries);
		s->entries = xmemdup(array, objects * sizeof(*array));
		s->n = objects;
	}
}

static struct err *look_into(struct search *s, taddr_t bias, const struct elf_file *loader, struct unwinding *u)
{
	const struct known_loader *k;
	struct word_list words;
	bool clear = true;
	TRY(know(loader, &k));
	if (!k->functions.n)
		return NULL;
	TRY(read_words(s, bias, &k->relro, &words));
	FREE_CLEANUP struct entry *array = xcalloc(OBJECTS_MAX, sizeof(*array));
	for (size_t i = 0; i < k->functions.n; i++)
		choose_words(s, bias, &words, &k->functions.items[i], array, u, &clear);
	if (!clear)
		u->pointer_at = taddr(0);
	free(words.items);
	return NULL;
}

/* Where its code is. */
static struct trange code_of(const struct mappings *maps, const struct mapping *first)
{
	struct trange r = {taddr(0), taddr(0)};
	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *m = &maps->items[i];
		if (!(m->prot & PROT_EXEC) || m->inode != first->inode || m->dev_major != first->dev_major ||
		    m->dev_minor != first->dev_minor)
			continue;
		if (!r.start.v)
			r.start = m->range.start;
		r.end = m->range.end;
	}
	return r;
}

/* ---- who unwinds ---- */

static bool imports(const struct elf_file *e, const char *prefix, bool whole)
{
	for (size_t i = 1; i < e->n_symbols; i++)
		if (e->symbols[i].s.st_shndx == SHN_UNDEF &&
		    (whole ? strcmp(e->symbols[i].name, prefix) == 0
			   : strncmp(e->symbols[i].name, prefix, strlen(prefix)) == 0))
			return true;
	return false;
}

/* Unwinders ask the loader with dl_iterate_phdr(3) where they know no better; then they do not come upon an annex.
 * Some libraries and programs bring their own, and may hide it: they have exception tables, and import none. */
static bool unwinds_in_another_way(const struct elf_file *e)
{
	if (imports(e, "_dl_find_object", true))
		return false;
	return linkmap__definition(e, "_Unwind_RaiseException", "") ||
	       (elf_file__section(e, ".gcc_except_table") && imports(e, "dl_iterate_phdr", true) &&
		!imports(e, "_Unwind_", false));
}

/* By its name, and that everything else is started by it (gABI, PT_INTERP). */
static bool is_loader(const struct elf_file *e)
{
	return strncmp(e->soname, "ld-linux", 8) == 0;
}

static struct err *find_words(struct search *s, struct unwinding *u)
{
	for (size_t i = 0; i < linkmap__count(s->map); i++) {
		struct linkmap_object o = linkmap__object(s->map, i);
		const struct elf_file *e = NULL;
		TRY(linkmap__file(s->map, i, &e));
		if (!e)
			continue;
		if (unwinds_in_another_way(e))
			return err__new(ERR_REFUSED, 0, o.name, "restart the process to run the new build",
					"it has an unwinder of its own, which would not find its way through new code");
		if (!is_loader(e) || u->loader.end.v || !o.mapping) /* every namespace lists it */
			continue;
		TRY(look_into(s, o.bias, e, u));
		u->loader = code_of(s->maps, o.mapping);
	}
	return u->pointer_at.v && u->loader.end.v
		   ? NULL
		   : err__new(ERR_REFUSED, 0, NULL, "restart the process to run the new build",
			      "where its dynamic loader looks up code is not known (glibc before 2.35?), so exceptions "
			      "could not pass through new code");
}

/* ---- our arrays ---- */

/* Pages of an image may not be mapped: old code that went. */
static bool is_in_image(const struct vapi_header *h, vaddr_t at, size_t len)
{
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++) {
		const struct vapi_image *m = &h->image[i];
		if (m->state != VAPI_IMAGE_FREE && at < m->base + m->len && m->base < at + len)
			return true;
	}
	return false;
}

/* The highest free pages of the window, for `len` bytes: images come to it from below. */
static struct err *find_room(const struct search *s, const struct loaded *l, size_t len, vaddr_t *out)
{
	const struct vapi_note *v = &l->vapi->vapi;
	struct vapi_header now; /* an image of ours is announced there */
	TRY(process__read(s->p, loaded__at(l, v->header), &now, sizeof(now)));
	for (vaddr_t at = v->window + v->window_len - len; at >= v->window; at -= LLU_PAGE) {
		taddr_t a = loaded__at(l, at);
		const struct mapping *m = mappings__at(s->maps, a);
		*out = at;
		if (m && m->prot == PROT_NONE && !m->inode && m->range.end.v >= a.v + len &&
		    !is_in_image(&now, at, len))
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

static struct err *write_arrays(const struct search *s, const struct loaded *l, struct hand *h,
				const struct entry *annex, size_t n, struct unwinding *u)
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
	TRY(find_room(s, l, len, &room));
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

/* The annex of a library that was unloaded, and loaded anew at the same place, is not used again (annex.h). */
static struct err *is_told(const struct search *s, const struct entry *annex, bool *out)
{
	*out = false;
	for (size_t i = 0; i < s->n; i++) {
		if (s->entries[i].start != annex->start)
			continue;
		*out = memcmp(&s->entries[i], annex, sizeof(*annex)) == 0;
		return *out ? NULL
			    : err__new(ERR_REFUSED, 0, NULL, "restart the process to run the new build",
				       "its dynamic loader knows the room for new code as another library's");
	}
	return NULL;
}

/* *any: something is to be told. */
static struct err *prepare(struct search *s, const struct loaded *const *l, size_t n, struct hand *h,
			   struct unwinding *u, bool *any)
{
	FREE_CLEANUP struct entry *annex = xcalloc(n, sizeof(*annex));
	size_t new = 0;
	TRY(find_words(s, u));
	for (size_t i = 0; i < n; i++) {
		bool told;
		TRY(entry_of(s, l[i], &annex[new]));
		TRY(is_told(s, &annex[new], &told));
		new += !told;
	}
	*any = new > 0;
	return new ? write_arrays(s, l[0], h, annex, new, u) : NULL;
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
	struct err *e = prepare(&s, l, n, h, u, &any);
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

void unwinding__foresee(struct linkmap *map)
{
	for (size_t i = 0; i < linkmap__count(map); i++) {
		const struct elf_file *e = NULL;
		const struct known_loader *ignored;
		ERR_CLEANUP struct err *why = linkmap__file(map, i, &e);
		if (!why && e && is_loader(e))
			err__free(know(e, &ignored));
	}
}

void unwinding__free(struct unwinding *u)
{
	free(u);
}

struct trange unwinding__loader(const struct unwinding *u)
{
	return u->loader;
}
