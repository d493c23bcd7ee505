/* Does the state of the new build have the layout of the old, and where does each piece of it live? A section is
 * either laid out alike in both builds, or its objects are mapped one by one (statics.c). */
#include <string.h>

#include "image/planner.h"

static bool is_state(const struct elf_file *e, const struct elf_section *s)
{
	return (s->h.sh_flags & SHF_ALLOC) && (s->h.sh_flags & SHF_WRITE) && s->h.sh_size &&
	       s->h.sh_addr < elf_file__end(e);
}

static bool is_got(const char *name)
{
	return strcmp(name, ".got") == 0 || strcmp(name, ".got.plt") == 0;
}

static bool is_linker_made(const char *name)
{
	return is_got(name) || strcmp(name, ".dynamic") == 0;
}

/* Read-only after relocation, so that it may be refreshed? */
static bool is_refreshed(const char *name)
{
	return strncmp(name, ".data.rel.ro", 12) == 0 || strcmp(name, ".init_array") == 0 ||
	       strcmp(name, ".fini_array") == 0 || strcmp(name, ".preinit_array") == 0;
}

/* ---- shape ---- */

static size_t count_named(const struct elf_file *e, const char *name)
{
	size_t n = 0;
	for (size_t i = 1; i < e->n_sections; i++)
		n += is_state(e, &e->sections[i]) && strcmp(e->sections[i].name, name) == 0;
	return n;
}

/* Objects keep the places that the first build gave them, so less alignment than there does no harm. */
static void compare_shape(struct planner *x, const struct elf_section *a, const struct elf_section *b)
{
	const struct elf_section *v = elf_file__section(x->p->vapi, a->name);
	if (a->h.sh_type != b->h.sh_type || a->h.sh_flags != b->h.sh_flags || !v ||
	    v->h.sh_addralign < b->h.sh_addralign)
		planner__refuse(x, "state-shape", "%s has another type or alignment in the new build", a->name);
	else if ((a->h.sh_flags & SHF_TLS) && a->h.sh_size != b->h.sh_size)
		planner__refuse(x, "state-size", "%s is %lu bytes in the old build and %lu in the new", a->name,
				a->h.sh_size, b->h.sh_size);
}

static void compare_sections(struct planner *x)
{
	const struct elf_file *live = x->p->live, *next = x->p->next;
	for (size_t i = 1; i < live->n_sections; i++) {
		const struct elf_section *a = &live->sections[i];
		if (!is_state(live, a) || is_linker_made(a->name))
			continue;
		const struct elf_section *b = elf_file__section(next, a->name);
		if (count_named(live, a->name) > 1 || count_named(next, a->name) > 1)
			planner__refuse(x, "state-shape", "several sections are called %s", a->name);
		else if (!b || !is_state(next, b))
			planner__refuse(x, "state-size", "%s (%lu bytes) is not in the new build", a->name,
					a->h.sh_size);
		else
			compare_shape(x, a, b);
	}
	for (size_t i = 1; i < next->n_sections; i++) {
		const struct elf_section *b = &next->sections[i];
		if (!is_state(next, b))
			continue;
		const struct elf_section *a = elf_file__section(live, b->name);
		if ((!a || !is_state(live, a)) && !is_got(b->name))
			planner__refuse(x, "state-size", "%s (%lu bytes) is new in the new build", b->name,
					b->h.sh_size);
	}
}

static void list_state(const struct elf_file *e, const struct elf_file *vapi, const struct elf_file *live,
		       state_list *out)
{
	for (size_t i = 1; i < e->n_sections; i++) {
		const struct elf_section *b = &e->sections[i];
		if (!is_state(e, b) ||
		    (b->h.sh_flags & SHF_TLS)) /* TLS: offsets into the thread's block, not addresses */
			continue;
		const struct elf_section *a = elf_file__section(vapi, b->name);
		const struct elf_section *l = elf_file__section(live, b->name);
		struct state_section s = {.start = b->h.sh_addr,
					  .end = b->h.sh_addr + b->h.sh_size,
					  .home = a && is_state(vapi, a) ? a->h.sh_addr : 0,
					  .name = b->name,
					  .got = is_got(b->name),
					  .refreshed = is_refreshed(b->name),
					  .live = l && is_state(live, l) ? l->h.sh_addr : 0};
		size_t k = out->n;
		vec__push(out, s);
		for (; k > 0 && out->items[k - 1].start > s.start; k--) {
			out->items[k] = out->items[k - 1];
			out->items[k - 1] = s;
		}
	}
}

static const Elf64_Phdr *tls(const struct elf_file *e)
{
	for (size_t i = 0; i < e->n_phdrs; i++)
		if (e->phdrs[i].p_type == PT_TLS)
			return &e->phdrs[i];
	return NULL;
}

static void compare_tls(struct planner *x)
{
	const Elf64_Phdr *a = tls(x->p->vapi), *b = tls(x->p->next);
	if (!a != !b || (a && (a->p_memsz != b->p_memsz || a->p_filesz != b->p_filesz || a->p_align != b->p_align)))
		planner__refuse(x, "tls",
				"thread-local storage is %lu bytes (aligned to %lu) in the old build and %lu (%lu) in "
				"the new",
				a ? a->p_memsz : 0, a ? a->p_align : 0, b ? b->p_memsz : 0, b ? b->p_align : 0);
}

/* ---- objects ---- */

static struct state_section *named(state_list *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->items[i].name, name) == 0)
			return &l->items[i];
	return NULL;
}

static const struct piece *piece_at(const struct live_map *m, vaddr_t a)
{
	const struct piece *before = NULL;
	size_t lo = 0, hi = m ? m->n_pieces : 0;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (m->pieces[mid].at <= a) {
			before = &m->pieces[mid];
			lo = mid + 1;
		} else {
			hi = mid;
		}
	}
	return before && a - before->at <= before->len ? before : NULL;
}

/* Sections of live whose objects are not where section and offset say. */
static void mark_live_pieces(struct planner *x)
{
	for (size_t i = 0; x->map && i < x->map->n_pieces; i++)
		for (size_t k = 0; k < x->live_state.n; k++) {
			struct state_section *s = &x->live_state.items[k];
			s->by_object = s->by_object || x->map->pieces[i].at - s->start < s->end - s->start;
		}
}

/* The start of what holds `a`, for all that addresses in the code and in pointers say. */
static vaddr_t start_around(const struct code *c, vaddr_t from, vaddr_t a)
{
	vaddr_t start = from;
	for (size_t i = 0; i < c->refs.n; i++)
		if (c->refs.items[i].target <= a && c->refs.items[i].target > start)
			start = c->refs.items[i].target;
	for (size_t i = 0; i < c->elf->relocs.n; i++) {
		vaddr_t to = (vaddr_t)c->elf->relocs.items[i].addend;
		if (c->elf->relocs.items[i].type == R_X86_64_RELATIVE && to <= a && to > start)
			start = to;
	}
	return start;
}

/* The first word that is a pointer in one build only, or other bytes in each; 0: none, or no contents. */
static vaddr_t where_they_part(const struct planner *x, const struct state_section *s, const struct state_section *old)
{
	const struct elf_file *live = x->p->live, *next = x->p->next;
	for (uint64_t i = 0; i + 8 <= s->end - s->start && i + 8 <= old->end - old->start; i += 8) {
		const uint8_t *a = elf_file__at(live, old->start + i, 8), *b = elf_file__at(next, s->start + i, 8);
		bool p = elf_file__reloc_at(live, old->start + i), q = elf_file__reloc_at(next, s->start + i);
		if (!a || !b)
			return 0;
		if (p != q || (!p && memcmp(a, b, 8) != 0))
			return s->start + i;
	}
	return 0;
}

static void refuse_size(struct planner *x, const struct state_section *s, const struct state_section *old)
{
	vaddr_t at = where_they_part(x, s, old);
	FREE_CLEANUP char *hint = at ? xasprintf("; they part at +0x%lx, in what starts at +0x%lx", at - s->start,
						 start_around(x->p->next_code, s->start, at) - s->start)
				     : xstrdup("");
	planner__refuse(x, "state-size",
			"%s is %lu bytes in the old build and %lu in the new, and no symbols tell its objects apart%s",
			s->name, old->end - old->start, s->end - s->start, hint);
}

static void map_objects(struct planner *x)
{
	for (size_t i = 0; i < x->state.n; i++) {
		struct state_section *s = &x->state.items[i], *old = named(&x->live_state, s->name);
		if (!old || is_linker_made(s->name))
			continue;
		if (!statics__map(x, s, old) && old->end - old->start != s->end - s->start)
			refuse_size(x, s, old);
	}
}

/* Pages of read-only data are exchanged whole, so they must hold nothing else. */
static void check_relro(struct planner *x)
{
	const struct elf_file *vapi = x->p->vapi;
	const Elf64_Phdr *relro = NULL;
	for (size_t i = 0; i < vapi->n_phdrs; i++)
		if (vapi->phdrs[i].p_type == PT_GNU_RELRO)
			relro = &vapi->phdrs[i];
	for (size_t i = 1; i < vapi->n_sections; i++) {
		const struct elf_section *s = &vapi->sections[i];
		if (!is_state(vapi, s) || !is_refreshed(s->name))
			continue;
		if (!relro || s->h.sh_addr < relro->p_vaddr ||
		    s->h.sh_addr + s->h.sh_size > align_down(relro->p_vaddr + relro->p_memsz, LLU_PAGE))
			planner__remark(x, "%s is not on read-only pages of its own and cannot be refreshed", s->name);
	}
}

void layout__check(struct planner *x)
{
	compare_sections(x);
	list_state(x->p->next, x->p->vapi, x->p->live, &x->state);
	list_state(x->p->live, x->p->vapi, x->p->live, &x->live_state);
	mark_live_pieces(x);
	map_objects(x);
	statics__record(x);
	compare_tls(x);
	contents__compare(x);
	check_relro(x);
}

/* ---- where state lives ---- */

static const struct state_section *section_in(const state_list *l, vaddr_t a)
{
	const struct state_section *before = NULL;
	for (size_t i = 0; i < l->n; i++) {
		const struct state_section *s = &l->items[i];
		if (a >= s->start && a < s->end)
			return s;
		if (a >= s->end)
			before = s;
	}
	/* between two sections: empty sections and symbols for the end of something lie there */
	return before && a - before->end < LLU_PAGE ? before : NULL;
}

const struct state_section *layout__section(const struct planner *x, vaddr_t a)
{
	return section_in(&x->state, a);
}

vaddr_t layout__home(const struct planner *x, vaddr_t a)
{
	const struct state_section *s = section_in(&x->state, a);
	if (s && s->by_object) {
		const struct static_object *o = statics__object_at(x, a);
		if (!o)
			o = statics__object_before(x, a);
		if (!o)
			return 0;
		vaddr_t home = o->live ? layout__home_of_live(x, o->live) : o->home;
		return home ? home + (a - o->at) : 0;
	}
	return s && s->live ? layout__home_of_live(x, s->live + (a - s->start)) : 0;
}

vaddr_t layout__home_of_live(const struct planner *x, vaddr_t a)
{
	const struct state_section *s = section_in(&x->live_state, a);
	if (s && s->by_object) {
		const struct piece *p = piece_at(x->map, a);
		return p ? p->home + (a - p->at) : 0;
	}
	return s && s->home ? s->home + (a - s->start) : 0;
}

vaddr_t layout__meant_by_live(const struct planner *x, vaddr_t a)
{
	vaddr_t home = layout__home_of_live(x, a);
	const struct piece *before = a ? piece_at(x->map, a - 1) : NULL; /* of the section in front, too */
	bool ends = before && a - before->at == before->len;
	return ends && before->home + before->len != home ? 0 : home;
}

vaddr_t layout__meant_by(const struct planner *x, const struct ref *r)
{
	return r->kind == REF_ADDRESS ? layout__meant_by_live(x, r->target) : layout__home_of_live(x, r->target);
}

/* Does an object of live, as symbols have it, start or end at `a`? */
static bool live_starts(const struct planner *x, vaddr_t a)
{
	vaddr_t start;
	uint64_t size;
	return statics__symbol(x->p->live, a, &start, &size) && start == a;
}

static bool live_ends(const struct planner *x, vaddr_t a)
{
	vaddr_t start;
	uint64_t size;
	return statics__symbol(x->p->live, a - 1, &start, &size) && start + size == a;
}

/* Objects that lie side by side in next may lie apart in VAPI space. */
vaddr_t layout__decide(const struct planner *x, vaddr_t a, vaddr_t old)
{
	const struct static_object *o = statics__object_at(x, a), *before = statics__object_before(x, a);
	vaddr_t home = layout__home(x, a), end = before ? layout__home(x, before->at) + before->size : 0;
	if (!before || home == end)
		return home;
	if (old && o && o->live == old && !live_ends(x, old))
		return home;
	return old && before->live && old == before->live + before->size && !live_starts(x, old) ? end : 0;
}
