/* See discover.h. What the process's memory says is used to find candidates only; everything that
 * matters is then read from the mapped files, and held against the mappings. */
#include "remap/discover.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/file_memo.h"
#include "remap/annex.h"
#include "remap/linkmap.h"
#include "remap/tree.h"
#include "remap/trust.h"
#include "remap/vapi_memo.h"

/* What one process can make us hold: libraries, and bytes of their files. */
enum { LIBRARIES_MAX = 256 };
#define BYTES_MAX (2ULL << 30)

/* ---- finding candidates ---- */

/* Does this first page of a mapped ELF file say that there is a VAPI note? */
static bool mentions_vapi(const struct process *p, taddr_t base, const uint8_t *page)
{
	Elf64_Ehdr h;
	memcpy(&h, page, sizeof(h));
	if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_type != ET_DYN ||
	    h.e_phentsize != sizeof(Elf64_Phdr) || h.e_phoff > LLU_PAGE ||
	    h.e_phnum * sizeof(Elf64_Phdr) > LLU_PAGE - h.e_phoff)
		return false;
	for (unsigned i = 0; i < h.e_phnum; i++) {
		struct {
			Elf64_Nhdr n;
			char name[4];
		} note;
		Elf64_Phdr ph;
		memcpy(&ph, page + h.e_phoff + i * sizeof(ph), sizeof(ph));
		if (ph.p_type != PT_NOTE || ph.p_filesz != sizeof(note) + sizeof(struct vapi_note))
			continue;
		ERR_CLEANUP struct err *e = process__read(p, taddr_add(base, ph.p_vaddr), &note, sizeof(note));
		if (!e && note.n.n_type == VAPI_NOTE_TYPE && memcmp(note.name, VAPI_NOTE_NAME, 4) == 0)
			return true;
	}
	return false;
}

static bool same_file(const struct mapping *a, const struct mapping *b)
{
	return a->inode == b->inode && a->dev_major == b->dev_major && a->dev_minor == b->dev_minor;
}

/* Where the loader's list cannot be read: what a loader maps has code, and is not mapped as it lies in the file, up to
 * the section headers at its end, which no segment holds. (Code of its own that has been retired is not found then.) */
static bool looks_loaded(const struct mappings *maps, const struct mapping *m, const uint8_t *page)
{
	Elf64_Ehdr h;
	memcpy(&h, page, sizeof(h));
	if (m->range.end.v - m->range.start.v > h.e_shoff)
		return false;
	for (size_t i = (size_t)(m - maps->items); i < maps->n; i++)
		if ((maps->items[i].prot & PROT_EXEC) && same_file(&maps->items[i], m))
			return true;
	return false;
}

/* A process may also just read a file: its own library, as for backtraces, or one that somebody gives it, whose notes
 * may lead anywhere, even into the VAPI of a library that is there. Only what the loader has loaded is a library. */
static bool is_loaded(const struct process *p, const struct mappings *maps, const struct mapping *m,
		      const uint8_t *page)
{
	bool listed = false;
	ERR_CLEANUP struct err *unknown = linkmap__lists(p, m->range.start, &listed);
	return unknown ? looks_loaded(maps, m, page) : listed;
}

/* What cannot be read is no candidate, unless nothing may be read: that is not the same as nothing to do. */
static struct err *is_candidate(const struct process *p, const struct mappings *maps, const struct mapping *m,
				bool *out)
{
	uint8_t page[LLU_PAGE];
	*out = false;
	if (m->offset != 0 || m->inode == 0 || !(m->prot & PROT_READ) || m->shared)
		return NULL;
	struct err *e = process__read(p, m->range.start, page, sizeof(page));
	if (e && err__kind(e) == ERR_PERMISSION)
		return e;
	*out = !e && mentions_vapi(p, m->range.start, page) && is_loaded(p, maps, m, page);
	err__free(e);
	return NULL;
}

/* ---- the VAPI must be where its file says ---- */

/* The stubs may have been mapped from another file since (image/vapi_file.h), so it is the bytes that count. */
static struct err *same_text(const struct process *p, const struct loaded *l, bool *same)
{
	const struct vapi_note *v = &l->vapi->vapi;
	size_t len = v->text_end - v->text;
	const uint8_t *want = elf_file__at(l->vapi, v->text, len);
	FREE_CLEANUP uint8_t *have = xmalloc(len);
	TRY(process__read(p, loaded__at(l, v->text), have, len));
	*same = want && memcmp(want, have, len) == 0;
	return NULL;
}

static struct err *check_vapi(const struct process *p, const struct loaded *l, const struct mappings *maps)
{
	const struct vapi_note *v = &l->vapi->vapi;
	const struct mapping *text = mappings__at(maps, loaded__at(l, v->text));
	const struct mapping *header = mappings__at(maps, loaded__at(l, v->header));
	const struct mapping *scratch = mappings__at(maps, loaded__at(l, v->scratch));
	const struct mapping *table = mappings__at(maps, loaded__at(l, v->table));
	bool ok = text && (text->prot & PROT_EXEC) && text->range.end.v >= loaded__at(l, v->text_end).v && header &&
		  table && scratch && (scratch->prot & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE) &&
		  scratch->range.end.v >= loaded__at(l, v->scratch).v + v->scratch_len;
	if (ok)
		TRY(same_text(p, l, &ok));
	if (!ok)
		return err__new(ERR_REFUSED, 0, l->path, NULL,
				"the VAPI of the loaded library is not where its file says");
	return NULL;
}

static bool image_is_sane(const struct vapi_note *v, const struct vapi_image *i)
{
	return i->state <= VAPI_IMAGE_CONSTANTS && i->build_id_len <= VAPI_BUILD_ID_MAX && i->base >= v->window &&
	       i->base % LLU_PAGE == 0 && i->len % LLU_PAGE == 0 && i->base <= v->window + v->window_len &&
	       i->len <= v->window + v->window_len - i->base;
}

static struct err *read_header(const struct process *p, struct loaded *l)
{
	struct vapi_header *h = &l->header;
	TRY(process__read(p, loaded__at(l, l->vapi->vapi.header), h, sizeof(*h)));
	if (h->magic == 0) {
		*h = (struct vapi_header){.library = h->library};
		return NULL;
	}
	bool ok = h->magic == VAPI_HEADER_MAGIC && h->live <= VAPI_IMAGES_MAX;
	for (size_t i = 0; ok && i < VAPI_IMAGES_MAX; i++)
		ok = h->image[i].state == VAPI_IMAGE_FREE || image_is_sane(&l->vapi->vapi, &h->image[i]);
	if (ok && h->live)
		ok = h->image[h->live - 1].state == VAPI_IMAGE_MAPPED;
	ok = ok && (h->own_code == VAPI_OWN_MAPPED || (h->own_code == VAPI_OWN_RETIRED && h->live));
	return ok ? NULL : err__new(ERR_REFUSED, 0, l->path, NULL, "the header of the VAPI is damaged");
}

const struct vapi_image *loaded__live_image(const struct loaded *l)
{
	return l->header.live ? &l->header.image[l->header.live - 1] : NULL;
}

/* ---- the live build ---- */

static struct err *read_image(const struct process *p, const struct mappings *maps, struct loaded *l)
{
	const struct vapi_image *image = loaded__live_image(l);
	if (!image) {
		l->live = l->vapi;
		return NULL;
	}
	const struct mapping *m = mappings__at(maps, loaded__at(l, image->base));
	if (!m || m->inode == 0)
		return err__new(ERR_REFUSED, 0, l->path, NULL, "the image that the header names is not mapped");
	CLOSE_CLEANUP int fd = -1;
	TRY(process__open_mapped(p, m, &fd));
	TRY(file_memo__image(process__files(p), fd, m->path, &l->live, &l->map));
	for (size_t i = 0; i < l->map.n_leads_to; i++)
		l->map.leads_to[i] = loaded__from(l, taddr(l->bias.v + l->map.leads_to[i]));
	for (size_t i = 0; i < l->map.n_jumps; i++)
		if (!elf_file__is_code(l->vapi, l->map.jumps[i].entry) ||
		    !elf_file__is_code(l->live, l->map.jumps[i].to))
			return err__new(ERR_REFUSED, 0, l->path, NULL, "the running image has entries that are none");
	if (l->map.base != image->base || l->map.shift != l->shift || l->map.n_slots != l->vapi->vapi.n_slots ||
	    !build_id__equal(l->live->build_id, l->live->build_id_len, image->build_id, image->build_id_len))
		return err__new(ERR_REFUSED, 0, l->path, NULL,
				"the running image is not the one that the header names");
	return NULL;
}

/* Objects that older images have behind them: whoever got their address from old code still has it. */
static struct err *read_past(const struct process *p, const struct mappings *maps, struct loaded *l)
{
	l->map.past = xcalloc(VAPI_IMAGES_MAX, sizeof(*l->map.past));
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++) {
		const struct vapi_image *image = &l->header.image[i];
		struct past_image past = {.build_id_len = image->build_id_len};
		if (!vapi_image__is_there(image) || image == loaded__live_image(l))
			continue;
		const struct mapping *m = mappings__at(maps, loaded__at(l, image->base));
		if (!m || m->inode == 0)
			return err__new(ERR_REFUSED, 0, l->path, NULL, "an image that the header names is not mapped");
		CLOSE_CLEANUP int fd = -1;
		FREE_CLEANUP struct piece *all = NULL;
		size_t n;
		TRY(process__open_mapped(p, m, &fd));
		TRY(image_file__read_pieces(fd, m->path, &all, &n));
		memcpy(past.build_id, image->build_id, sizeof(past.build_id));
		past.pieces = xcalloc(n, sizeof(*all));
		for (size_t k = 0; k < n; k++)
			if (all[k].home >= l->vapi->vapi.window)
				past.pieces[past.n_pieces++] = all[k];
		l->map.past[l->map.n_past++] = past;
	}
	return NULL;
}

/* What each slot holds says better than any record which function it stands for now: one of the live
 * build, one that only an older image has, or none yet. IFUNC slots hold a variant; for them the
 * record names the resolver. */
static struct err *read_slots(const struct process *p, struct loaded *l)
{
	const struct vapi_note *v = &l->vapi->vapi;
	FREE_CLEANUP uint64_t *table = xmalloc(v->table_len);
	TRY(process__read(p, loaded__at(l, v->table), table, v->table_len));
	if (!l->map.slots) {
		l->map.n_slots = v->n_slots;
		l->map.slots = xcalloc(v->n_slots, sizeof(vaddr_t));
	}
	l->map.held = xcalloc(v->n_slots, sizeof(*l->map.held));
	for (uint32_t i = 0; i < v->n_slots; i++) {
		uint64_t word = table[i], in_live = loaded__from(l, taddr(word)) - l->map.base;
		if (i < v->n_used && (l->vapi->slots[i].flags & VAPI_SLOT_IFUNC)) {
			if (l->live == l->vapi)
				l->map.slots[i] = l->vapi->slots[i].function;
			continue;
		}
		/* the table of an annex is empty up to the first update */
		bool own = word == 0 && l->vapi->plain && l->live == l->vapi && i < v->n_used;
		l->map.slots[i] = own ? l->vapi->slots[i].function : 0;
		if (word == 0)
			continue;
		if (elf_file__is_code(l->live, in_live)) {
			l->map.slots[i] = in_live;
			continue;
		}
		struct held_slot h = {.slot = i};
		for (size_t k = 0; k < VAPI_IMAGES_MAX && !h.build_id_len; k++) {
			const struct vapi_image *m = &l->header.image[k];
			if (m->state != VAPI_IMAGE_MAPPED || loaded__from(l, taddr(word)) - m->base >= m->len)
				continue;
			h.function = loaded__from(l, taddr(word)) - m->base;
			h.build_id_len = m->build_id_len;
			memcpy(h.build_id, m->build_id, sizeof(h.build_id));
		}
		if (!h.build_id_len)
			return err__new(ERR_REFUSED, 0, l->path, NULL, "the table of the VAPI leads to unknown code");
		l->map.slots[i] = SLOT_HELD;
		l->map.held[l->map.n_held++] = h;
	}
	return NULL;
}

/* ---- the file that stands there now ---- */

/* Opens `path`, which begins at `from`, if there is such a file. */
static struct err *open_next(const struct process *p, struct loaded *l, const char *from, const char *path, int *fd)
{
	struct err *e = trust__open(p, from, path, fd, &l->untrusted);
	if (e && (err__errno(e) == ENOENT || err__errno(e) == ENOTDIR)) {
		err__free(e);
		return NULL;
	}
	l->now = tree__seen(p, from, path);
	return e;
}

/* The name by which the dynamic loader found it tells where a new one would be found: a symlink or a
 * directory may have been switched since. Failing that, the library's SONAME beside the mapped
 * file, and last the mapped path itself. */
static struct err *find_next(const struct process *p, const struct tree *t, struct loaded *l, int *fd)
{
	const char *from = NULL, *slash = strrchr(l->path, '/');
	FREE_CLEANUP char *loader_name = linkmap__name(p, l->bias), *beside = NULL;
	if (loader_name && loader_name[0] == '/')
		from = tree__of_name(p, t, loader_name, l->path);
	if (from)
		TRY(open_next(p, l, from, loader_name, fd));
	from = tree__of_mapped(t);
	if (!l->now && slash && *l->vapi->soname && !strchr(l->vapi->soname, '/')) {
		beside = xasprintf("%.*s/%s", (int)(slash - l->path), l->path, l->vapi->soname);
		TRY(open_next(p, l, from, beside, fd));
	}
	return l->now ? NULL : open_next(p, l, from, l->path, fd);
}

static void look_at_next(const struct process *p, const struct tree *t, struct loaded *l)
{
	CLOSE_CLEANUP int fd = -1;
	ERR_CLEANUP struct err *e = find_next(p, t, l, &fd);
	if (!e && fd >= 0)
		e = file_memo__elf(process__files(p), fd, l->now, &l->next);
	if (e)
		l->unreadable = xstrdup(err__text(e));
	if (e || (l->now && fd < 0))
		l->outdated = true; /* it is not what runs, whatever it is */
	if (l->next)
		l->outdated = !build_id__equal(l->next->build_id, l->next->build_id_len, l->live->build_id,
					       l->live->build_id_len);
}

/* ---- split libraries ---- */

static struct err *starts_at_0(const struct elf_file *e, const char *path)
{
	for (size_t i = 0; i < e->n_phdrs; i++)
		if (e->phdrs[i].p_type == PT_LOAD)
			return e->phdrs[i].p_vaddr == 0
				   ? NULL
				   : err__new(ERR_REFUSED, 0, path, NULL, "the library does not start at address 0");
	return NULL;
}

static struct err *read_vapi(const struct process *p, const struct mappings *maps, const struct mapping *m,
			     struct loaded *l)
{
	l->bias = m->range.start; /* a library's first segment is at 0 (checked below) */
	l->path = xstrdup(m->path);
	CLOSE_CLEANUP int fd = -1;
	TRY(process__open_mapped(p, m, &fd));
	TRY(file_memo__elf(process__files(p), fd, m->path, &l->vapi));
	if (!l->vapi->split)
		return err__new(ERR_REFUSED, 0, l->path, NULL, "the mapped file changed under the process");
	TRY(starts_at_0(l->vapi, l->path));
	l->live = l->vapi;
	TRY(check_vapi(p, l, maps));
	return read_header(p, l);
}

static struct err *read_state(const struct process *p, const struct mappings *maps, struct loaded *l)
{
	TRY(read_image(p, maps, l));
	TRY(read_past(p, maps, l));
	return read_slots(p, l);
}

static struct err *read_library(const struct process *p, const struct tree *t, const struct mappings *maps,
				const struct mapping *m, struct loaded *l)
{
	TRY(read_vapi(p, maps, m, l));
	TRY(read_state(p, maps, l));
	look_at_next(p, t, l);
	return NULL;
}

/* ---- plain libraries ---- */

/* Does another file than the mapped one have the name now? To be asked often, so nothing is read; what cannot be told
 * counts as another. */
static bool is_replaced(const struct process *p, const struct tree *t, const struct linkmap_object *o)
{
	const char *from, *name = tree__best(p, t, o->name, o->mapping->path, &from);
	FREE_CLEANUP char *path = tree__seen(p, from, name);
	struct stat st;
	return o->mapping->deleted || stat(path, &st) < 0 || st.st_ino != o->mapping->inode;
}

/* Programs, and the dynamic loader, which nobody can replace under a process. */
static bool is_no_library(const struct elf_file *e)
{
	return !*e->soname || e->program || strncmp(e->soname, "ld-linux", 8) == 0;
}

/* *library: l->vapi is its file, so far. */
static struct err *open_plain(const struct process *p, const struct mapping *m, struct loaded *l, bool *library)
{
	CLOSE_CLEANUP int fd = -1;
	l->bias = m->range.start;
	l->path = xstrdup(m->path);
	TRY(process__open_mapped(p, m, &fd));
	TRY(file_memo__elf(process__files(p), fd, m->path, &l->vapi));
	l->live = l->vapi;
	*library = !is_no_library(l->vapi) && !l->vapi->split;
	return NULL;
}

/* Makes the VAPI of the library's file; a library of which none can be made is one that is refused. */
static void make_vapi(struct loaded *l)
{
	struct elf_file *plain = l->vapi, *vapi = NULL;
	ERR_CLEANUP struct err *e = starts_at_0(plain, l->path);
	if (!e && !plain->build_id_len)
		e = err__new(ERR_REFUSED, 0, l->path, NULL, "the library has no build-id");
	if (!e)
		e = vapi_memo__vapi(plain, &vapi);
	if (e)
		l->no_vapi = xstrdup(err__text(e));
	else
		l->vapi = l->live = vapi;
}

/* What is known of the one annex that is current. One that is left of a library that was unloaded stays for good. */
static struct err *read_annex(const struct process *p, const struct mappings *maps, struct loaded *l)
{
	for (size_t at = 0;;) {
		TRY(annex__find(p, maps, &at, l));
		if (!l->shift)
			return NULL;
		bool current;
		TRY(check_vapi(p, l, maps));
		TRY(read_header(p, l));
		TRY(read_state(p, maps, l));
		TRY(annex__is_current(p, maps, l, &current));
		if (current)
			return NULL;
		if (l->live != l->vapi)
			elf_file__free(l->live);
		l->live = l->vapi;
		live_map__free(&l->map);
		l->header = (struct vapi_header){0};
	}
}

/* *keep: is it one to be listed? */
static struct err *read_plain(const struct process *p, const struct tree *t, const struct mappings *maps,
			      const struct mapping *m, enum discover_what what, bool annexed, struct loaded *l,
			      bool *keep)
{
	bool library;
	*keep = false;
	TRY(open_plain(p, m, l, &library));
	if (!library)
		return NULL;
	if (!annexed) {
		if (what == DISCOVER_ALL)
			look_at_next(p, t, l);
		if (!l->outdated)
			return NULL;
	}
	make_vapi(l);
	if (!l->no_vapi)
		TRY(read_annex(p, maps, l));
	if (what == DISCOVER_ALL && !l->now)
		look_at_next(p, t, l);
	*keep = l->shift || l->outdated;
	return NULL;
}

/* The next annex of a library, whether it is the current one or not, as far as discover__vapis() wants to know. *keep:
 * there is one. */
static struct err *read_annexed(const struct process *p, const struct mappings *maps, const struct mapping *m,
				size_t *at, struct loaded *l, bool *keep)
{
	bool library;
	*keep = false;
	TRY(open_plain(p, m, l, &library));
	if (!library)
		return NULL;
	make_vapi(l);
	if (l->no_vapi)
		return NULL;
	TRY(annex__find(p, maps, at, l));
	if (!l->shift)
		return NULL;
	TRY(check_vapi(p, l, maps));
	TRY(read_header(p, l));
	*keep = true;
	return NULL;
}

/* Is it the first with its bias in the list? Others of them are the same library, as far as that goes. */
static bool is_first(const struct linkmap *list, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (linkmap__object(list, k).bias.v == linkmap__object(list, i).bias.v)
			return false;
	return true;
}

static bool has(const taddr_t *items, size_t n, taddr_t a)
{
	for (size_t i = 0; i < n; i++)
		if (items[i].v == a.v)
			return true;
	return false;
}

static bool is_listed(const loaded_list *l, taddr_t bias)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].bias.v == bias.v)
			return true;
	return false;
}

static void loaded__free(struct loaded *l)
{
	free(l->path);
	if (l->live != l->vapi)
		elf_file__free(l->live);
	elf_file__free(l->vapi);
	live_map__free(&l->map);
	free(l->now);
	elf_file__free(l->next);
	free(l->unreadable);
	free(l->no_vapi);
	err__free(l->untrusted);
}

static uint64_t bytes_of(const struct loaded *l)
{
	return l->vapi->size + (l->live == l->vapi ? 0 : l->live->size) + (l->next ? l->next->size : 0);
}

/* What one process can make us hold is bounded. */
static struct err *add(loaded_list *out, const struct loaded *l, uint64_t *bytes)
{
	vec__push(out, *l);
	*bytes += bytes_of(l);
	return out->n <= LIBRARIES_MAX && *bytes <= BYTES_MAX
		   ? NULL
		   : err__new(ERR_REFUSED, 0, l->path, NULL,
			      "the process has too many libraries to be updated, or too large ones");
}

static struct err *add_split(const struct process *p, const struct tree *t, const struct mappings *maps,
			     loaded_list *out, uint64_t *bytes)
{
	for (size_t i = 0; i < maps->n; i++) {
		struct loaded l = {0};
		bool candidate;
		TRY(is_candidate(p, maps, &maps->items[i], &candidate));
		if (!candidate)
			continue;
		struct err *err = read_library(p, t, maps, &maps->items[i], &l);
		if (err) {
			loaded__free(&l);
			return err;
		}
		TRY(add(out, &l, bytes));
	}
	return NULL;
}

/* A process without a list that can be read (a static program, another C library) has none that we could update. */
static struct err *add_plain(const struct process *p, const struct tree *t, const struct mappings *maps,
			     enum discover_what what, loaded_list *out, uint64_t *bytes)
{
	LINKMAP_CLEANUP struct linkmap *list = NULL;
	FREE_CLEANUP taddr_t *annexes = NULL;
	size_t n_annexes = 0;
	if (what == DISCOVER_SPLIT)
		return NULL;
	ERR_CLEANUP struct err *unknown = linkmap__read(p, &list);
	if (!unknown)
		TRY(annex__libraries(p, maps, &annexes, &n_annexes));
	for (size_t i = 0; !unknown && i < linkmap__count(list); i++) {
		struct linkmap_object o = linkmap__object(list, i);
		struct loaded l = {0};
		bool keep, annexed = has(annexes, n_annexes, o.bias);
		const struct mapping *m = o.mapping ? mappings__at(maps, o.mapping->range.start) : NULL;
		if (!m || !m->inode || m->shared || m->offset || is_listed(out, o.bias) || !is_first(list, i) ||
		    !(annexed || (what == DISCOVER_ALL && is_replaced(p, t, &o))))
			continue;
		struct err *err = read_plain(p, t, maps, m, what, annexed, &l, &keep);
		if (!err && keep) {
			TRY(add(out, &l, bytes));
			continue;
		}
		loaded__free(&l);
		TRY(err);
	}
	return NULL;
}

struct err *discover__libraries(const struct process *p, enum discover_what what, loaded_list *out)
{
	struct mappings maps;
	TREE_CLEANUP struct tree t;
	TRY(tree__read(p, &t));
	TRY(process__maps(p, &maps));
	uint64_t bytes = 0;
	struct err *err = add_split(p, &t, &maps, out, &bytes);
	if (!err)
		err = add_plain(p, &t, &maps, what, out, &bytes);
	if (!err && out->n)
		err = tree__still(p, &t);
	mappings__free(&maps);
	if (err)
		loaded_list__free(out);
	return err;
}

/* Takes a library that was read into the list, or the error to *problem, if it is the first. */
static void take(struct loaded *l, bool keep, struct err *e, loaded_list *out, struct err **problem)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < out->n; i++)
		bytes += bytes_of(&out->items[i]);
	if (!e && keep && (out->n >= LIBRARIES_MAX || bytes > BYTES_MAX))
		e = err__new(ERR_REFUSED, 0, l->path, NULL,
			     "the process has too many libraries to be looked after, or too large ones");
	if (!e && keep) {
		vec__push(out, *l);
		return;
	}
	loaded__free(l);
	if (*problem)
		err__free(e);
	else
		*problem = e;
}

static void add_annexed(const struct process *p, const struct mappings *maps, loaded_list *out, struct err **problem)
{
	LINKMAP_CLEANUP struct linkmap *list = NULL;
	FREE_CLEANUP taddr_t *annexes = NULL;
	size_t n_annexes = 0;
	ERR_CLEANUP struct err *unknown = linkmap__read(p, &list);
	if (!unknown)
		unknown = annex__libraries(p, maps, &annexes, &n_annexes);
	for (size_t i = 0; !unknown && i < linkmap__count(list); i++) {
		struct linkmap_object o = linkmap__object(list, i);
		const struct mapping *m = o.mapping ? mappings__at(maps, o.mapping->range.start) : NULL;
		if (!m || !m->inode || m->shared || m->offset || is_listed(out, o.bias) ||
		    !has(annexes, n_annexes, o.bias))
			continue;
		bool keep = true;
		for (size_t at = 0; keep;) {
			struct loaded l = {0};
			struct err *e = read_annexed(p, maps, m, &at, &l, &keep);
			keep = keep && !e;
			if (e || keep)
				take(&l, keep, e, out, problem);
			else
				loaded__free(&l);
		}
	}
}

struct err *discover__vapis(const struct process *p, loaded_list *out, struct err **problem)
{
	struct mappings maps;
	*problem = NULL;
	TRY(process__maps(p, &maps));
	for (size_t i = 0; i < maps.n; i++) {
		struct loaded l = {0};
		bool candidate;
		struct err *err = is_candidate(p, &maps, &maps.items[i], &candidate);
		if (!err && !candidate)
			continue;
		if (!err)
			err = read_vapi(p, &maps, &maps.items[i], &l);
		take(&l, true, err, out, problem);
	}
	add_annexed(p, &maps, out, problem);
	mappings__free(&maps);
	return NULL;
}

void loaded_list__free(loaded_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		loaded__free(&l->items[i]);
	vec__free(l);
}
