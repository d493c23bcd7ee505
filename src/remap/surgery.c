/* See surgery.h. Where things lie in the window while an update is under way (VAPI space):
 *
 *     base                         image: next's code and constants, mapped from the store
 *     base + plan->got_at          its own GOT, if it has one: private, read-only once filled
 *     shadow_at                    shadow pages, one after the other; gone after the commit
 *     shadow_at + shadow_len       end of what this update takes
 */
#include "remap/surgery.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "inject/seccomp.h"
#include "remap/linkmap.h"
#include "remap/store.h"

enum { SHADOWS_MAX = 100, SEGMENTS_MAX = 16 };

/* Pages with new contents, to be moved to `to`. */
struct shadow {
	vaddr_t to, at; /* VAPI space */
	uint64_t len;
	bool writable;
	uint8_t *content, *before; /* len bytes each */
};

struct surgery {
	const struct process *p;
	const struct loaded *l;
	const struct plan *plan;
	vaddr_t base;
	bool mapped;    /* the image is there already: an older one that is still mapped, or vapi's own */
	uint32_t entry; /* of the header: images[entry]; or UINT32_MAX for vapi's own code */
	uint8_t *bytes; /* the image file */
	size_t bytes_len;
	struct stored stored;
	bool shared;
	uint64_t *got;
	uint64_t *table; /* what each slot will hold */
	vaddr_t shadow_at;
	uint64_t shadow_len;
	VEC(struct shadow) shadows;   /* in the order of commit */
	struct vapi_header header;    /* what it will be */
	VEC(struct vrange) leftovers; /* of an earlier update that did not come to its end */
	struct arch_batch_entry batch[SHADOWS_MAX + 2];
	size_t n_batch;
};

static taddr_t at(const struct surgery *s, vaddr_t a)
{
	return loaded__at(s->l, a);
}

static struct err *refuse(const struct surgery *s, const char *why)
{
	return err__new(ERR_REFUSED, 0, s->l->path, NULL, "%s", why);
}

/* ---- where the image goes ---- */

static bool is_vapis_own(const struct surgery *s)
{
	const struct elf_file *n = s->plan->next, *v = s->plan->vapi;
	if (!build_id__equal(n->build_id, n->build_id_len, v->build_id, v->build_id_len) || s->plan->new_got.n)
		return false;
	for (size_t i = 0; i < s->plan->patches.n; i++) {
		const struct patch *x = &s->plan->patches.items[i];
		const uint8_t *p = elf_file__at(v, x->site, 4);
		int32_t value = (int32_t)(x->to - x->from);
		if (!p || memcmp(p, &value, 4) != 0)
			return false;
	}
	return true;
}

/* Is the image that is mapped at `i` the very one that this plan makes for that place? */
static bool is_same_image(const struct surgery *s, const struct mappings *maps, const struct vapi_image *i)
{
	const struct elf_file *n = s->plan->next;
	if (i->state != VAPI_IMAGE_MAPPED || s->plan->new_got.n ||
	    !build_id__equal(n->build_id, n->build_id_len, i->build_id, i->build_id_len))
		return false;
	const struct mapping *m = mappings__at(maps, at(s, i->base));
	CLOSE_CLEANUP int fd = -1;
	ERR_CLEANUP struct err *e = m && m->inode ? process__open_mapped(s->p, m, &fd) : NULL;
	struct stat st;
	if (e || fd < 0 || fstat(fd, &st) < 0)
		return false;
	size_t size;
	FREE_CLEANUP uint8_t *want = image_file__make(s->plan, i->base, &size);
	FREE_CLEANUP uint8_t *have = xmalloc(size);
	return (uint64_t)st.st_size == size && pread(fd, have, size, 0) == (ssize_t)size &&
	       memcmp(want, have, size) == 0;
}

/* Is all of it reservation, in the mappings too, or a leftover of ours? Never map over anything else. */
static bool is_free(const struct surgery *s, const struct mappings *maps, vaddr_t start, uint64_t len)
{
	const struct vapi_header *h = &s->l->header;
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (h->image[i].state == VAPI_IMAGE_MAPPED && start < h->image[i].base + h->image[i].len &&
		    h->image[i].base < start + len)
			return false;
	for (vaddr_t a = start; a < start + len;) {
		const struct mapping *m = mappings__at(maps, at(s, a));
		bool leftover = false;
		for (size_t i = 0; i < s->leftovers.n; i++)
			leftover = leftover || vrange__has(s->leftovers.items[i], a);
		if (leftover) {
			a += LLU_PAGE;
			continue;
		}
		if (!m || m->prot != PROT_NONE || m->inode != 0)
			return false;
		a = m->range.end.v - s->l->bias.v;
	}
	return true;
}

static bool find_room(struct surgery *s, const struct mappings *maps, uint64_t len)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	vaddr_t candidates[VAPI_IMAGES_MAX + 1] = {v->window};
	size_t n = 1;
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (s->l->header.image[i].state == VAPI_IMAGE_MAPPED)
			candidates[n++] = s->l->header.image[i].base + s->l->header.image[i].len;
	bool found = false;
	for (size_t i = 0; i < n; i++)
		if (candidates[i] + len <= v->window + v->window_len && is_free(s, maps, candidates[i], len) &&
		    (!found || candidates[i] < s->base)) {
			s->base = candidates[i];
			found = true;
		}
	return found;
}

static struct err *choose_place(struct surgery *s, const struct mappings *maps)
{
	const struct vapi_header *h = &s->l->header;
	s->entry = UINT32_MAX;
	if (is_vapis_own(s)) {
		s->base = 0;
		s->mapped = true;
		return NULL;
	}
	for (uint32_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (is_same_image(s, maps, &h->image[i])) {
			s->base = h->image[i].base;
			s->entry = i;
			s->mapped = true;
			return NULL;
		}
	for (uint32_t i = 0; i < VAPI_IMAGES_MAX && s->entry == UINT32_MAX; i++)
		if (h->image[i].state != VAPI_IMAGE_MAPPED)
			s->entry = i;
	return s->entry == UINT32_MAX ? refuse(s, "too many earlier images are still mapped in the process") : NULL;
}

/* ---- what slots, GOT and words will hold ---- */

/* The load-independent part of thread-pointer offsets: from a slot of vapi's GOT that the loader filled. */
static struct err *tls_offset(const struct surgery *s, uint64_t *out)
{
	const struct elf_file *v = s->plan->vapi;
	for (size_t i = 0; i < v->relocs.n; i++) {
		const struct elf_reloc *r = &v->relocs.items[i];
		if (r->type != R_X86_64_TPOFF64 || (r->symbol && v->symbols[r->symbol].s.st_shndx == SHN_UNDEF))
			continue;
		uint64_t value;
		TRY(process__read(s->p, at(s, r->where), &value, sizeof(value)));
		*out = value - (uint64_t)r->addend - (r->symbol ? v->symbols[r->symbol].s.st_value : 0);
		return NULL;
	}
	return refuse(s, "a new thread-local variable is used, and its place cannot be told");
}

static struct err *fill_got(struct surgery *s)
{
	s->got = xcalloc(s->plan->new_got.n, sizeof(uint64_t));
	for (size_t i = 0; i < s->plan->new_got.n; i++) {
		const struct new_got *g = &s->plan->new_got.items[i];
		bool found;
		taddr_t address = {0};
		switch (g->kind) {
		case NEW_GOT_SYMBOL:
			TRY(linkmap__lookup(s->p, s->l->bias, g->name, g->version, &found, &address));
			if (!found && !g->weak)
				return err__new(ERR_REFUSED, 0, s->l->path, NULL,
						"the new build imports %s%s%s, which nothing in the process provides",
						g->name, *g->version ? "@" : "", g->version);
			s->got[i] = address.v;
			break;
		case NEW_GOT_VALUE:
			s->got[i] = g->relative ? at(s, g->value + (g->in_image ? s->base : 0)).v : g->value;
			break;
		case NEW_GOT_TPOFF:
			TRY(tls_offset(s, &s->got[i]));
			s->got[i] += g->value;
			break;
		}
	}
	return NULL;
}

/* An IFUNC's slot holds what its resolver chose among live's functions; its successor takes over. */
static struct err *ifunc_successor(const struct surgery *s, uint32_t slot, uint64_t now, uint64_t *out)
{
	uint64_t in_live = now - s->l->bias.v - s->l->map.base;
	vaddr_t next = elf_file__is_code(s->plan->live, in_live) ? plan__successor(s->plan, in_live) : 0;
	*out = now;
	if (!elf_file__is_code(s->plan->live, in_live))
		return NULL; /* chosen from another library */
	if (!next)
		return err__new(ERR_REFUSED, 0, s->l->path, NULL,
				"the function that IFUNC slot %u chose has no counterpart in the new build", slot);
	*out = at(s, s->base + next).v;
	return NULL;
}

static struct err *fill_table(struct surgery *s)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	s->table = xcalloc(1, v->table_len);
	TRY(process__read(s->p, at(s, v->table), s->table, v->table_len));
	for (uint32_t i = 0; i < v->n_slots; i++) {
		vaddr_t f = s->plan->slots[i];
		if (i < v->n_used && (s->l->vapi->slots[i].flags & VAPI_SLOT_IFUNC))
			TRY(ifunc_successor(s, i, s->table[i], &s->table[i]));
		else if (f && f != SLOT_HELD)
			s->table[i] = at(s, s->base + f).v;
	}
	return NULL;
}

/* ---- shadow pages ---- */

/* The shadow that covers [to, to + len), with the contents that the process has there now. */
static struct err *add_shadow(struct surgery *s, vaddr_t to, uint64_t len, bool writable, struct shadow **out)
{
	struct shadow x = {.to = to, .len = len, .writable = writable};
	x.before = xmalloc(len);
	struct err *e = process__read(s->p, at(s, to), x.before, len);
	if (e) {
		free(x.before);
		return e;
	}
	x.content = xmemdup(x.before, len);
	vec__push(&s->shadows, x);
	*out = &s->shadows.items[s->shadows.n - 1];
	return NULL;
}

/* Reads the rows of the table that the process has now: of all images that are mapped. */
static struct err *read_rows(const struct surgery *s, unwind_rows *out)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	FREE_CLEANUP uint8_t *p = xmalloc(v->eh_frame_hdr_cap);
	TRY(process__read(s->p, at(s, v->eh_frame_hdr), p, v->eh_frame_hdr_cap));
	if (!unwind_table__read(p, v->eh_frame_hdr_cap, v->eh_frame_hdr, out))
		return refuse(s, "the unwind table of the VAPI is damaged");
	return NULL;
}

static bool has_row(const unwind_rows *rows, size_t n, vaddr_t start)
{
	size_t lo = 0, hi = n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (rows->items[mid].start < start)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && rows->items[lo].start == start;
}

/* Rows of images that are gone (undone, or left over) are dropped, those of next are added. */
static struct err *shadow_unwind_table(struct surgery *s)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	unwind_rows old = {0}, rows = {0};
	if (!v->eh_frame_hdr || s->mapped)
		return NULL;
	struct err *err = read_rows(s, &old);
	for (size_t i = 0; !err && i < old.n; i++) {
		bool keep = old.items[i].start < v->window;
		for (size_t k = 0; k < VAPI_IMAGES_MAX && !keep; k++) {
			const struct vapi_image *m = &s->l->header.image[k];
			keep = m->state == VAPI_IMAGE_MAPPED && old.items[i].start - m->base < m->len;
		}
		if (keep)
			vec__push(&rows, old.items[i]);
	}
	size_t kept = rows.n;
	for (size_t i = 0; !err && i < s->plan->unwind.n; i++) {
		struct unwind_row r = {s->base + s->plan->unwind.items[i].start,
				       s->base + s->plan->unwind.items[i].fde};
		if (!has_row(&rows, kept, r.start))
			vec__push(&rows, r);
	}
	size_t size = unwind_table__size(rows.n);
	if (!err && size > v->eh_frame_hdr_cap)
		err = refuse(s, "no room is left in the VAPI's unwind table");
	struct shadow *x = NULL;
	if (!err)
		err = add_shadow(s, v->eh_frame_hdr, align_up(size, LLU_PAGE), false, &x);
	if (!err)
		unwind_table__write(x->content, v->eh_frame_hdr, elf_file__section(s->l->vapi, ".eh_frame")->h.sh_addr,
				    &rows);
	vec__free(&old);
	vec__free(&rows);
	return err;
}

/* Pages of vapi that are read-only after relocation, and nothing else. */
static struct vrange relro_pages(const struct elf_file *v)
{
	for (size_t i = 0; i < v->n_phdrs; i++)
		if (v->phdrs[i].p_type == PT_GNU_RELRO)
			return (struct vrange){align_down(v->phdrs[i].p_vaddr, LLU_PAGE),
					       align_down(v->phdrs[i].p_vaddr + v->phdrs[i].p_memsz, LLU_PAGE)};
	return (struct vrange){0, 0};
}

static struct err *shadow_words(struct surgery *s)
{
	struct vrange pages = relro_pages(s->l->vapi);
	if (s->plan->words.n == 0)
		return NULL;
	size_t len = pages.end - pages.start;
	FREE_CLEANUP uint8_t *now = xmalloc(len), *want = xmalloc(len);
	if (len)
		TRY(process__read(s->p, at(s, pages.start), now, len));
	if (len)
		memcpy(want, now, len);
	for (size_t i = 0; i < s->plan->words.n; i++) {
		const struct relro_word *w = &s->plan->words.items[i];
		uint64_t value = at(s, w->value + (w->in_image ? s->base : 0)).v, have;
		if (w->where >= pages.start && w->where + 8 <= pages.end) {
			memcpy(want + (w->where - pages.start), &value, 8);
			continue;
		}
		TRY(process__read(s->p, at(s, w->where), &have, 8));
		if (have != value)
			return refuse(s, "read-only data changes that is not on read-only pages of its own");
	}
	for (size_t i = 0; i < len; i += LLU_PAGE) {
		if (memcmp(now + i, want + i, LLU_PAGE) == 0)
			continue;
		size_t end = i + LLU_PAGE;
		while (end < len && memcmp(now + end, want + end, LLU_PAGE) != 0)
			end += LLU_PAGE;
		struct shadow *x;
		TRY(add_shadow(s, pages.start + i, end - i, false, &x));
		memcpy(x->content, want + i, end - i);
		i = end - LLU_PAGE;
	}
	return NULL;
}

static struct err *shadow_table(struct surgery *s)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	struct shadow *x;
	TRY(add_shadow(s, v->table, v->table_len, false, &x));
	memcpy(x->content, s->table, v->table_len);
	return NULL;
}

/* The header as it will be; the shadow's contents are settled when the image is in place. */
static struct err *shadow_header(struct surgery *s)
{
	struct shadow *x;
	struct vapi_header *h = &s->header;
	*h = s->l->header;
	h->magic = VAPI_HEADER_MAGIC;
	h->live = s->entry == UINT32_MAX ? 0 : s->entry + 1;
	h->generation++;
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (h->image[i].state == VAPI_IMAGE_PREPARING)
			h->image[i] = (struct vapi_image){0};
	if (!s->mapped) {
		struct vapi_image *i = &h->image[s->entry];
		*i = (struct vapi_image){.state = VAPI_IMAGE_MAPPED,
					 .build_id_len = s->plan->next->build_id_len,
					 .base = s->base,
					 .len = s->plan->image_len};
		memcpy(i->build_id, s->plan->next->build_id, sizeof(i->build_id));
	}
	TRY(add_shadow(s, s->l->vapi->vapi.header, LLU_PAGE, true, &x));
	memcpy(x->content, h, sizeof(*h));
	return NULL;
}

static struct err *make_shadows(struct surgery *s)
{
	TRY(shadow_unwind_table(s));
	TRY(shadow_words(s));
	TRY(shadow_table(s));
	TRY(shadow_header(s));
	if (s->shadows.n > SHADOWS_MAX)
		return refuse(s, "too many separate pages of read-only data change");
	return NULL;
}

static void place_shadows(struct surgery *s, vaddr_t start)
{
	s->shadow_at = start;
	for (size_t i = 0; i < s->shadows.n; i++) {
		s->shadows.items[i].at = start;
		start += s->shadows.items[i].len;
	}
	s->shadow_len = start - s->shadow_at;
}

/* ---- before anything is touched ---- */

static void list_leftovers(struct surgery *s)
{
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++) {
		const struct vapi_image *m = &s->l->header.image[i];
		if (m->state != VAPI_IMAGE_PREPARING)
			continue;
		struct vrange r = {m->base, m->base + m->len};
		vec__push(&s->leftovers, r);
	}
}

/* Room for the image depends on the shadows' length, and their contents on the image's place: the
 * lengths do not depend on the place, so lay out once with a provisional place. */
static struct err *lay_out(struct surgery *s, const struct mappings *maps)
{
	uint64_t image = s->mapped ? 0 : s->plan->image_len, shadows = 0;
	const struct vapi_note *v = &s->l->vapi->vapi;
	struct vrange relro = relro_pages(s->l->vapi);
	shadows = v->eh_frame_hdr_cap + (relro.end - relro.start) + v->table_len + LLU_PAGE;
	vaddr_t place = s->base;
	if (!find_room(s, maps, image + shadows))
		return err__new(ERR_REFUSED, 0, s->l->path, "restart the process to get a new window",
				"the new image (%lu KiB) does not fit into what is free of the window (%lu KiB in all)",
				(image + shadows) / 1024, v->window_len / 1024);
	vaddr_t room = s->base;
	if (s->mapped)
		s->base = place;
	TRY(fill_got(s));
	TRY(fill_table(s));
	TRY(make_shadows(s));
	place_shadows(s, room + image);
	if (!s->mapped)
		s->bytes = image_file__make(s->plan, s->base, &s->bytes_len);
	return NULL;
}

struct err *surgery__new(const struct process *p, const struct loaded *l, const struct plan *plan, struct surgery **out)
{
	struct surgery *s = xcalloc(1, sizeof(*s));
	s->p = p;
	s->l = l;
	s->plan = plan;
	struct mappings maps;
	struct err *err = process__maps(p, &maps);
	if (!err) {
		list_leftovers(s);
		err = choose_place(s, &maps);
		if (!err)
			err = lay_out(s, &maps);
		mappings__free(&maps);
	}
	if (!err && !s->mapped) {
		FREE_CLEANUP char *id = elf_file__build_id(plan->next);
		const char *soname = strchr(plan->next->soname, '/') ? "" : plan->next->soname;
		FREE_CLEANUP char *name = xasprintf("%s-%.16s", *soname ? soname : "image", id);
		err = store__put(name, s->bytes, s->bytes_len, &s->stored);
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
	free(s->bytes);
	free(s->stored.path);
	free(s->got);
	free(s->table);
	free(s);
}

struct hand_place surgery__hand_place(const struct surgery *s)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	return (struct hand_place){.pads = at(s, v->text), .scratch = at(s, v->scratch), .scratch_len = v->scratch_len};
}

size_t surgery__live_ranges(const struct surgery *s, struct trange *out, size_t max)
{
	struct image_segment segments[SEGMENTS_MAX];
	size_t n = image_file__segments(s->plan->live, segments, SEGMENTS_MAX), count = 0;
	for (size_t i = 0; i < n && count < max; i++)
		if (segments[i].exec) {
			taddr_t start = at(s, s->l->map.base + segments[i].at);
			out[count++] = (struct trange){start, taddr_add(start, segments[i].len)};
		}
	return count;
}

/* ---- calls of the hand ---- */

static struct err *call(struct hand *h, const char *what, int64_t nr, const uint64_t arg[6], int64_t *result)
{
	TRY(hand__call(h, nr, arg, result));
	if (*result < 0 && *result > -4096)
		return err__new(*result == -ENOMEM || *result == -EPERM || *result == -EACCES ? ERR_REFUSED
											      : ERR_SYSTEM,
				(int)-*result, NULL, NULL, "the process could not %s", what);
	return NULL;
}

static struct err *map(struct hand *h, const char *what, taddr_t a, uint64_t len, int prot, int flags, int fd,
		       uint64_t offset)
{
	int64_t result;
	const uint64_t arg[6] = {a.v, len, (uint64_t)prot, (uint64_t)(flags | MAP_FIXED), (uint64_t)fd, offset};
	TRY(call(h, what, SYS_mmap, arg, &result));
	return (uint64_t)result == a.v ? NULL
				       : err__new(ERR_SURGERY, 0, NULL, NULL, "the process mapped at another place");
}

static struct err *protect(struct hand *h, taddr_t a, uint64_t len, int prot)
{
	int64_t result;
	const uint64_t arg[6] = {a.v, len, (uint64_t)prot};
	return call(h, "protect pages", SYS_mprotect, arg, &result);
}

enum { RESERVED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE };

static struct err *reserve(struct surgery *s, struct hand *h, vaddr_t a, uint64_t len)
{
	return map(h, "reserve address space", at(s, a), len, PROT_NONE, RESERVED, -1, 0);
}

/* ---- prepare ---- */

/* Law 2: what is begun is written down first. The entry is complete before it is marked. */
static struct err *announce(struct surgery *s)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	struct vapi_image i = {.state = VAPI_IMAGE_FREE,
			       .build_id_len = s->plan->next->build_id_len,
			       .base = s->mapped ? s->shadow_at : s->base,
			       .len = s->shadow_at + s->shadow_len - (s->mapped ? s->shadow_at : s->base)};
	memcpy(i.build_id, s->plan->next->build_id, sizeof(i.build_id));
	uint32_t slot = s->mapped ? UINT32_MAX : s->entry;
	for (uint32_t k = 0; k < VAPI_IMAGES_MAX && slot == UINT32_MAX; k++)
		if (s->l->header.image[k].state != VAPI_IMAGE_MAPPED)
			slot = k;
	if (slot == UINT32_MAX)
		return refuse(s, "too many earlier images are still mapped in the process");
	taddr_t entry = at(s, v->header + offsetof(struct vapi_header, image) + slot * sizeof(i));
	uint32_t preparing = VAPI_IMAGE_PREPARING;
	uint64_t magic = VAPI_HEADER_MAGIC;
	TRY(process__write(s->p, entry, &i, sizeof(i)));
	TRY(process__write(s->p, taddr_add(entry, offsetof(struct vapi_image, state)), &preparing, sizeof(preparing)));
	return process__write(s->p, at(s, v->header), &magic, sizeof(magic));
}

/* The image from the store, if the process can reach that very file under its name. */
static struct err *open_stored(struct surgery *s, struct hand *h, int64_t *fd)
{
	struct stat st;
	*fd = -1;
	FREE_CLEANUP char *seen = xasprintf("/proc/%d/root%s", process__pid(s->p), s->stored.path);
	size_t len = strlen(s->stored.path) + 1;
	if (stat(seen, &st) < 0 || st.st_dev != s->stored.dev || st.st_ino != s->stored.ino || len > HAND_DATA_SIZE)
		return NULL;
	TRY(process__write(s->p, hand__data(h), s->stored.path, len));
	const uint64_t arg[6] = {(uint64_t)AT_FDCWD, hand__data(h).v, O_RDONLY | O_CLOEXEC};
	TRY(hand__call(h, SYS_openat, arg, fd));
	if (*fd < 0)
		return NULL; /* not readable for this process: goes the other way */
	FREE_CLEANUP char *opened = xasprintf("/proc/%d/task/%d/fd/%ld", process__pid(s->p), hand__tid(h), (long)*fd);
	if (stat(opened, &st) < 0 || st.st_dev != s->stored.dev || st.st_ino != s->stored.ino)
		return err__new(ERR_SURGERY, 0, s->stored.path, NULL, "the process opened another file");
	s->shared = true;
	return NULL;
}

/* Another mount namespace, a chroot, no permission: the image in memory of the process's own, with the same
 * bytes, so that the next update finds all it needs there too. */
static struct err *open_memory(struct surgery *s, struct hand *h, int64_t *fd)
{
	static const int needed[] = {SYS_memfd_create, -1};
	static const char name[] = "llu-image";
	TRY(seccomp__check(s->p, hand__tid(h), needed));
	TRY(process__write(s->p, hand__data(h), name, sizeof(name)));
	const uint64_t arg[6] = {hand__data(h).v, MFD_CLOEXEC};
	TRY(call(h, "make memory for the new image", SYS_memfd_create, arg, fd));
	FREE_CLEANUP char *path = xasprintf("/proc/%d/task/%d/fd/%ld", process__pid(s->p), hand__tid(h), (long)*fd);
	CLOSE_CLEANUP int file = open(path, O_WRONLY | O_CLOEXEC);
	size_t done = 0;
	while (file >= 0 && done < s->bytes_len) {
		ssize_t n = write(file, s->bytes + done, s->bytes_len - done);
		if (n < 0 && errno != EINTR)
			break;
		done += n > 0 ? (size_t)n : 0;
	}
	return done == s->bytes_len
		   ? NULL
		   : err__new(ERR_SYSTEM, errno, NULL, NULL, "cannot write the new image into the process");
}

static struct err *map_image(struct surgery *s, struct hand *h)
{
	struct image_segment segments[SEGMENTS_MAX];
	size_t n = image_file__segments(s->plan->next, segments, SEGMENTS_MAX);
	int64_t fd, ignored;
	TRY(open_stored(s, h, &fd));
	if (fd < 0)
		TRY(open_memory(s, h, &fd));
	struct err *err = NULL;
	for (size_t i = 0; i < n && !err; i++)
		err = map(h, "map the new image", at(s, s->base + segments[i].at), segments[i].len,
			  PROT_READ | (segments[i].exec ? PROT_EXEC : 0), MAP_PRIVATE, (int)fd, segments[i].offset);
	const uint64_t arg[6] = {(uint64_t)fd};
	struct err *closed = hand__call(h, SYS_close, arg, &ignored);
	if (err) {
		err__free(closed);
		return err;
	}
	return closed;
}

static struct err *map_got(struct surgery *s, struct hand *h)
{
	if (!s->plan->new_got.n)
		return NULL;
	taddr_t got = at(s, s->base + s->plan->got_at);
	uint64_t len = s->plan->image_len - s->plan->got_at;
	TRY(map(h, "map the new image", got, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	TRY(process__write(s->p, got, s->got, s->plan->new_got.n * 8));
	return protect(h, got, len, PROT_READ);
}

static struct err *map_shadows(struct surgery *s, struct hand *h)
{
	TRY(map(h, "map pages", at(s, s->shadow_at), s->shadow_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		-1, 0));
	for (size_t i = 0; i < s->shadows.n; i++) {
		const struct shadow *x = &s->shadows.items[i];
		TRY(process__write(s->p, at(s, x->at), x->content, x->len));
		if (!x->writable)
			TRY(protect(h, at(s, x->at), x->len, PROT_READ));
	}
	return NULL;
}

struct err *surgery__prepare(struct surgery *s, struct hand *h)
{
	TRY(announce(s));
	for (size_t i = 0; i < s->leftovers.n; i++)
		TRY(reserve(s, h, s->leftovers.items[i].start,
			    s->leftovers.items[i].end - s->leftovers.items[i].start));
	if (!s->mapped) {
		TRY(map_image(s, h));
		TRY(map_got(s, h));
	}
	return map_shadows(s, h);
}

/* ---- commit ---- */

struct err *surgery__load(struct surgery *s, struct hand *h)
{
	s->n_batch = 0;
	for (size_t i = 0; i < s->shadows.n; i++) {
		const struct shadow *x = &s->shadows.items[i];
		s->batch[s->n_batch++] = (struct arch_batch_entry){
		    .nr = SYS_mremap,
		    .arg = {at(s, x->at).v, x->len, x->len, MREMAP_MAYMOVE | MREMAP_FIXED, at(s, x->to).v}};
	}
	/* no hole may stay in the window, into which the kernel could put another mapping */
	s->batch[s->n_batch++] = (struct arch_batch_entry){
	    .nr = SYS_mmap,
	    .arg = {at(s, s->shadow_at).v, s->shadow_len, PROT_NONE, RESERVED | MAP_FIXED, (uint64_t)-1, 0}};
	return hand__load_batch(h, s->batch, s->n_batch);
}

/* The batch stopped at entry `done`. What was moved has its new contents; put the rest right by plain
 * writes: behind the table, forwards; before it, back to what was there. */
static struct err *mend(struct surgery *s, size_t done, bool *committed)
{
	size_t table = s->shadows.n - 2, header = s->shadows.n - 1; /* the last two, see make_shadows() */
	*committed = done > table;
	if (*committed) {
		if (done <= header)
			return process__write(s->p, at(s, s->shadows.items[header].to),
					      s->shadows.items[header].content, LLU_PAGE);
		return NULL;
	}
	for (size_t i = 0; i < done; i++) {
		const struct shadow *x = &s->shadows.items[i];
		TRY(process__write(s->p, at(s, x->to), x->before, x->len));
	}
	return NULL;
}

struct err *surgery__commit(struct surgery *s, struct hand *h, bool *committed)
{
	size_t done = 0;
	*committed = false;
	struct err *err = hand__run_batch(h, s->batch, s->n_batch, &done);
	if (!err && done == s->n_batch) {
		*committed = true;
		return NULL;
	}
	struct err *mended = mend(s, done, committed);
	if (mended) {
		err__free(err);
		return err__wrap(mended, "the exchange stopped half-way");
	}
	if (err)
		return err;
	return err__new(ERR_SURGERY, (int)-s->batch[done].result, s->l->path, NULL,
			"the process could not exchange its pages (step %zu of %zu)", done + 1, s->n_batch);
}

struct err *surgery__undo(struct surgery *s, struct hand *h)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	vaddr_t start = s->mapped ? s->shadow_at : s->base;
	TRY(reserve(s, h, start, s->shadow_at + s->shadow_len - start));
	return process__write(s->p, at(s, v->header), &s->l->header, sizeof(s->l->header));
}

struct err *surgery__verify(const struct surgery *s)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	FREE_CLEANUP uint64_t *table = xmalloc(v->table_len);
	struct vapi_header h;
	TRY(process__read(s->p, at(s, v->table), table, v->table_len));
	TRY(process__read(s->p, at(s, v->header), &h, sizeof(h)));
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
