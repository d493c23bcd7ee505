/* What the pages of a library are to hold after an update: own GOT, table, read-only data, unwind table, header. See
 * surgery_parts.h. */
#include <string.h>
#include <sys/mman.h>

#include "remap/surgery_parts.h"

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
		TRY(process__read(s->p, surgery__at(s, r->where), &value, sizeof(value)));
		*out = value - (uint64_t)r->addend - (r->symbol ? v->symbols[r->symbol].s.st_value : 0);
		return NULL;
	}
	return surgery__refuse(s, "a new thread-local variable is used, and its place cannot be told");
}

/* `import` is where a NEW_GOT_SYMBOL leads. */
static struct err *fill_word(const struct surgery *s, const struct new_got *g, taddr_t import, uint64_t *out)
{
	switch (g->kind) {
	case NEW_GOT_SYMBOL:
		*out = import.v ? import.v + g->value : 0;
		return NULL;
	case NEW_GOT_VALUE:
		*out = g->relative
			   ? surgery__at(s, plan__place(s->plan, s->base, g->value) + (g->in_image ? s->base : 0)).v
			   : g->value;
		return NULL;
	case NEW_GOT_TPOFF:
		TRY(tls_offset(s, out));
		*out += g->value;
		return NULL;
	}
	return NULL;
}

struct err *surgery__fill_got(struct surgery *s)
{
	const struct plan *p = s->plan;
	free(s->got);
	s->got = xcalloc(p->new_got.n, sizeof(uint64_t));
	free(s->own);
	s->own = xcalloc(p->own_words.n, sizeof(uint64_t));
	for (size_t i = 0; i < p->new_got.n; i++)
		TRY(fill_word(s, &p->new_got.items[i], s->imports[i], &s->got[i]));
	for (size_t i = 0; i < p->own_words.n; i++)
		TRY(fill_word(s, &p->own_words.items[i], s->imports[p->new_got.n + i], &s->own[i]));
	return NULL;
}

/* An IFUNC's slot holds what its resolver chose among live's functions; its successor takes over. */
static struct err *ifunc_successor(const struct surgery *s, uint32_t slot, uint64_t now, uint64_t *out)
{
	uint64_t in_live = loaded__from(s->l, taddr(now)) - s->l->map.base;
	vaddr_t next = elf_file__is_code(s->plan->live, in_live) ? plan__successor(s->plan, in_live) : 0;
	*out = now;
	if (!elf_file__is_code(s->plan->live, in_live))
		return NULL; /* chosen from another library */
	if (!next)
		return err__new(ERR_REFUSED, 0, s->l->path, NULL,
				"the function that IFUNC slot %u chose has no counterpart in the new build", slot);
	*out = surgery__at(s, s->base + next).v;
	return NULL;
}

static struct err *fill_table(struct surgery *s)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	s->table = xcalloc(1, v->table_len);
	TRY(process__read(s->p, surgery__at(s, v->table), s->table, v->table_len));
	for (uint32_t i = 0; i < v->n_slots; i++) {
		vaddr_t f = s->plan->slots[i];
		bool ifunc = i < v->n_used && (s->l->vapi->slots[i].flags & VAPI_SLOT_IFUNC);
		if (ifunc && s->l->vapi->plain)
			continue; /* nobody comes by */
		if (ifunc)
			TRY(ifunc_successor(s, i, s->table[i], &s->table[i]));
		else if (f && f != SLOT_HELD)
			s->table[i] = surgery__at(s, s->base + f).v;
	}
	return NULL;
}

/* ---- shadow pages ---- */

/* The shadow that covers [to, to + len), with the contents that the process has there now. */
static struct err *add_shadow(struct surgery *s, vaddr_t to, uint64_t len, bool writable, struct shadow **out)
{
	struct shadow x = {.to = to, .len = len, .writable = writable};
	x.before = xmalloc(len);
	struct err *e = process__read(s->p, surgery__at(s, to), x.before, len);
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
	TRY(process__read(s->p, surgery__at(s, v->eh_frame_hdr), p, v->eh_frame_hdr_cap));
	if (!unwind_table__read(p, v->eh_frame_hdr_cap, v->eh_frame_hdr, out))
		return surgery__refuse(s, "the unwind table of the VAPI is damaged");
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
	if (!v->eh_frame_hdr || (s->mapped && !s->code_only))
		return NULL;
	struct err *err = read_rows(s, &old);
	for (size_t i = 0; !err && i < old.n; i++) {
		vaddr_t start = old.items[i].start;
		bool own = start < v->end;
		/* a plain library has a table of its own for its own code */
		bool keep = own ? s->l->header.own_code == VAPI_OWN_MAPPED && !s->l->vapi->plain : start < v->window;
		for (size_t k = 0; k < VAPI_IMAGES_MAX && !keep; k++) {
			const struct vapi_image *m = &s->l->header.image[k];
			keep = m->state == VAPI_IMAGE_MAPPED && start - m->base < m->len;
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
		err = surgery__refuse(s, "no room is left in the VAPI's unwind table");
	struct shadow *x = NULL;
	if (!err)
		err = add_shadow(s, v->eh_frame_hdr, align_up(size, LLU_PAGE), false, &x);
	/* who looks up rows does not ask for the section (LSB 5.0, 10.6.2); it must be within reach */
	const char *section = s->l->vapi->plain ? ".llu.eh_frame" : ".eh_frame";
	if (!err)
		unwind_table__write(x->content, v->eh_frame_hdr, elf_file__section(s->l->vapi, section)->h.sh_addr,
				    &rows);
	vec__free(&old);
	vec__free(&rows);
	return err;
}

struct vrange surgery__relro_pages(const struct elf_file *v)
{
	for (size_t i = 0; i < v->n_phdrs; i++)
		if (v->phdrs[i].p_type == PT_GNU_RELRO)
			return (struct vrange){align_down(v->phdrs[i].p_vaddr, LLU_PAGE),
					       align_down(v->phdrs[i].p_vaddr + v->phdrs[i].p_memsz, LLU_PAGE)};
	return (struct vrange){0, 0};
}

/* What a word of read-only data is to hold; returns its length in bytes. */
static size_t word_value(const struct surgery *s, const struct relro_word *w, uint64_t *value)
{
	*value = w->plain ? w->value
			  : surgery__at(s, plan__place(s->plan, s->base, w->value) + (w->in_image ? s->base : 0)).v;
	return w->plain ? w->plain : 8;
}

/* Shadows for the pages of a range that words change. Words outside of it are left alone. */
static struct err *shadow_range(struct surgery *s, struct vrange pages)
{
	size_t len = pages.end - pages.start;
	if (!len)
		return NULL;
	FREE_CLEANUP uint8_t *now = xmalloc(len);
	TRY(process__read(s->p, surgery__at(s, pages.start), now, len));
	FREE_CLEANUP uint8_t *want = xmemdup(now, len);
	for (size_t i = 0; i < s->plan->words.n; i++) {
		const struct relro_word *w = &s->plan->words.items[i];
		uint64_t value;
		size_t n = word_value(s, w, &value);
		if (w->where >= pages.start && w->where + n <= pages.end)
			memcpy(want + (w->where - pages.start), &value, n);
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

/* The pages behind an older image that hold its own data: all that words in the window may lie in. */
static struct vrange own_pages(const struct surgery *s, size_t image)
{
	const struct vapi_image *m = &s->l->header.image[image];
	struct vrange r = {0, 0};
	for (size_t i = 0; vapi_image__is_there(m) && i < s->plan->words.n; i++) {
		vaddr_t a = s->plan->words.items[i].where;
		if (a - m->base >= m->len)
			continue;
		vaddr_t start = align_down(a, LLU_PAGE), end = align_up(a + 8, LLU_PAGE);
		r.start = !r.end || start < r.start ? start : r.start;
		r.end = end > r.end ? end : r.end;
	}
	return r;
}

static bool in_image(const struct surgery *s, vaddr_t a)
{
	bool found = false;
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++) {
		const struct vapi_image *m = &s->l->header.image[i];
		found = found || (vapi_image__is_there(m) && a - m->base < m->len);
	}
	return found;
}

/* What is on no such pages must hold what it is to hold already. */
static struct err *check_fixed_words(struct surgery *s, struct vrange relro)
{
	for (size_t i = 0; i < s->plan->words.n; i++) {
		const struct relro_word *w = &s->plan->words.items[i];
		uint64_t value, have = 0;
		size_t n = word_value(s, w, &value);
		if ((w->where >= relro.start && w->where + n <= relro.end) || in_image(s, w->where))
			continue;
		TRY(process__read(s->p, surgery__at(s, w->where), &have, n));
		if (memcmp(&have, &value, n) != 0)
			return surgery__refuse(s, "read-only data changes that is not on read-only pages of its own");
	}
	return NULL;
}

static struct err *shadow_words(struct surgery *s)
{
	struct vrange relro = surgery__relro_pages(s->l->vapi);
	if (s->plan->words.n == 0)
		return NULL;
	TRY(check_fixed_words(s, relro));
	TRY(shadow_range(s, relro));
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++)
		TRY(shadow_range(s, own_pages(s, i)));
	return NULL;
}

/* ---- unprepared: pages of code ---- */

/* A page of the loaded library's code must be what its file and the jumps of the live image say. Where somebody else
 * has changed it (a debugger, a probe, another tool), nothing is done. */
static struct err *check_page(const struct surgery *s, vaddr_t page, const uint8_t *now)
{
	const struct live_map *m = &s->l->map;
	uint8_t want[LLU_PAGE];
	image_file__entries(s->l->vapi, m->jumps, m->n_jumps, m->base, s->l->shift, page, want);
	return memcmp(now, want, LLU_PAGE) == 0
		   ? NULL
		   : surgery__refuse(s, "its code was changed in memory (by a debugger or a probe?)");
}

static struct err *shadow_entries(struct surgery *s)
{
	const struct plan *p = s->plan;
	for (size_t i = 0, n; i < p->pages.n; i += n) {
		struct shadow *x;
		n = 1;
		while (i + n < p->pages.n && p->pages.items[i + n] == p->pages.items[i] + n * LLU_PAGE)
			n++;
		TRY(add_shadow(s, p->pages.items[i], n * LLU_PAGE, false, &x));
		x->exec = true;
		x->offset = image_file__page(p, i);
		for (size_t k = 0; k < n; k++)
			TRY(check_page(s, p->pages.items[i + k], x->before + k * LLU_PAGE));
	}
	return NULL;
}

void surgery__fill_entries(struct surgery *s)
{
	for (size_t i = 0; i < s->shadows.n; i++) {
		struct shadow *x = &s->shadows.items[i];
		if (x->exec)
			memcpy(x->content, s->bytes + x->offset, x->len);
	}
}

/* A program may have made read-only pages writable, to write there again (hooks do). They would come back as the
 * library wants them. The VAPI's pages are nobody's but ours. */
static struct err *check_rights(struct surgery *s)
{
	mappings__free(&s->maps);
	s->replaced.n = 0;
	TRY(process__maps(s->p, &s->maps));
	for (size_t i = 0; i < s->shadows.n; i++) {
		const struct shadow *x = &s->shadows.items[i];
		const int want = PROT_READ | (x->exec ? PROT_EXEC : 0);
		for (vaddr_t a = x->to; a < x->to + x->len && x->to < s->l->vapi->vapi.end;) {
			const struct mapping *m = mappings__at(&s->maps, surgery__at(s, a));
			if (!m || m->shared || (m->prot & (PROT_READ | PROT_WRITE | PROT_EXEC)) != want)
				return surgery__refuse(
				    s, "pages of it that are to be replaced have other permissions than it wants "
				       "(changed by a hook?)");
			vec__push(&s->replaced, m); // NOLINT(bugprone-sizeof-expression): a list of pointers
			a += m->range.end.v - surgery__at(s, a).v;
		}
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
	} else if (s->code_only) {
		h->image[s->entry].state = VAPI_IMAGE_MAPPED;
	}
	TRY(add_shadow(s, s->l->vapi->vapi.header, LLU_PAGE, true, &x));
	memcpy(x->content, h, sizeof(*h));
	return NULL;
}

uint64_t surgery__pages_bound(const struct surgery *s)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	struct vrange relro = surgery__relro_pages(s->l->vapi);
	uint64_t own = 0;
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++)
		own += own_pages(s, i).end - own_pages(s, i).start;
	return v->eh_frame_hdr_cap + (relro.end - relro.start) + own + v->table_len + s->plan->pages.n * LLU_PAGE +
	       LLU_PAGE;
}

struct err *surgery__fill_pages(struct surgery *s)
{
	TRY(surgery__fill_got(s));
	TRY(fill_table(s));
	TRY(shadow_unwind_table(s));
	if (s->l->vapi->plain) { /* its entries lead to new code, which leads to slots of the table */
		TRY(shadow_table(s));
		TRY(shadow_words(s));
		TRY(shadow_entries(s));
	} else {
		TRY(shadow_words(s));
		TRY(shadow_table(s));
	}
	TRY(shadow_header(s));
	return check_rights(s);
}
