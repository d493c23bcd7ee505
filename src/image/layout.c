/* Does the state of the new build have the layout of the old? Sizes, alignment, initial contents
 * modulo relocations, and the relocation pattern must be the same, section by section. */
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

/* ---- sizes ---- */

static size_t count_named(const struct elf_file *e, const char *name)
{
	size_t n = 0;
	for (size_t i = 1; i < e->n_sections; i++)
		n += is_state(e, &e->sections[i]) && strcmp(e->sections[i].name, name) == 0;
	return n;
}

static void compare_shape(struct planner *x, const struct elf_section *a, const struct elf_section *b)
{
	if (a->h.sh_size != b->h.sh_size)
		planner__refuse(x, "state-size", "%s is %lu bytes in the old build and %lu in the new", a->name,
				a->h.sh_size, b->h.sh_size);
	else if (a->h.sh_type != b->h.sh_type || a->h.sh_flags != b->h.sh_flags ||
		 a->h.sh_addralign != b->h.sh_addralign)
		planner__refuse(x, "state-shape", "%s has another type or alignment in the new build", a->name);
}

static void compare_sections(struct planner *x)
{
	const struct elf_file *vapi = x->p->vapi, *next = x->p->next;
	for (size_t i = 1; i < vapi->n_sections; i++) {
		const struct elf_section *a = &vapi->sections[i];
		if (!is_state(vapi, a) || is_linker_made(a->name))
			continue;
		const struct elf_section *b = elf_file__section(next, a->name);
		if (count_named(vapi, a->name) > 1)
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
		const struct elf_section *a = elf_file__section(vapi, b->name);
		if ((!a || !is_state(vapi, a)) && !is_got(b->name))
			planner__refuse(x, "state-size", "%s (%lu bytes) is new in the new build", b->name,
					b->h.sh_size);
	}
}

static void list_state(const struct elf_file *e, const struct elf_file *vapi, state_list *out)
{
	for (size_t i = 1; i < e->n_sections; i++) {
		const struct elf_section *b = &e->sections[i];
		if (!is_state(e, b) ||
		    (b->h.sh_flags & SHF_TLS)) /* TLS: offsets into the thread's block, not addresses */
			continue;
		const struct elf_section *a = elf_file__section(vapi, b->name);
		struct state_section s = {b->h.sh_addr, b->h.sh_addr + b->h.sh_size,
					  a && is_state(vapi, a) ? a->h.sh_addr : 0, b->name, is_got(b->name)};
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

/* ---- contents ---- */

static bool same_symbol(const struct elf_file *a, uint32_t i, const struct elf_file *b, uint32_t k)
{
	const struct elf_symbol *s = &a->symbols[i], *t = &b->symbols[k];
	return strcmp(s->name, t->name) == 0 && strcmp(s->version, t->version) == 0;
}

static void compare_pointer(struct planner *x, const struct elf_section *s, const struct elf_reloc *a,
			    const struct elf_reloc *b)
{
	const struct elf_file *live = x->p->live, *next = x->p->next;
	uint64_t offset = a->where - s->h.sh_addr;
	if (a->type != b->type) {
		planner__refuse(x, "state-pointers", "%s+0x%lx is another kind of pointer in the new build", s->name,
				offset);
		return;
	}
	if (a->symbol || b->symbol) {
		if (!same_symbol(live, a->symbol, next, b->symbol) || a->addend != b->addend)
			planner__refuse(x, "state-pointers",
					"%s+0x%lx points to %s in the old build and to %s in the new", s->name, offset,
					live->symbols[a->symbol].name, next->symbols[b->symbol].name);
		return;
	}
	if (a->type == R_X86_64_TPOFF64 || a->type == R_X86_64_DTPOFF64) {
		if (a->addend != b->addend)
			planner__refuse(x, "state-pointers", "%s+0x%lx is another thread-local offset in the new build",
					s->name, offset);
		return;
	}
	vaddr_t old = elf_file__behind_stub(live, (vaddr_t)a->addend),
		new = elf_file__behind_stub(next, (vaddr_t)b->addend);
	bool old_code = elf_file__is_code(live, old), new_code = elf_file__is_code(next, new);
	if (old_code != new_code || elf_file__is_data(live, old) != elf_file__is_data(next, new)) {
		planner__refuse(x, "state-pointers", "%s+0x%lx points to something else in the new build", s->name,
				offset);
	} else if (old_code) {
		if (!code__function_starting(x->p->live_code, old) || !code__function_starting(x->p->next_code, new)) {
			planner__refuse(x, "code-labels", "%s+0x%lx points into the middle of a function", s->name,
					offset);
		} else if (match__successor(x->p->match, old) != new) {
			FREE_CLEANUP char *from = code__describe(x->p->live_code, old);
			FREE_CLEANUP char *to = code__describe(x->p->next_code, new);
			planner__refuse(x, "state-pointers",
					"%s+0x%lx points to %s in the old build and to %s in the new", s->name, offset,
					from, to);
		}
	} else if (elf_file__is_data(live, old) && layout__home_of_live(x, old) != layout__home(x, new)) {
		planner__refuse(x, "state-pointers", "%s+0x%lx points to other data in the new build", s->name, offset);
	}
}

/* The first relocation at or behind `a`. */
static size_t first_reloc(const struct elf_file *e, vaddr_t a)
{
	size_t lo = 0, hi = e->relocs.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (e->relocs.items[mid].where < a)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void compare_bytes(struct planner *x, const struct elf_section *a, const struct elf_section *b, uint64_t from,
			  uint64_t to)
{
	if (!a->data || !b->data || from >= to || memcmp(a->data + from, b->data + from, to - from) == 0)
		return;
	while (a->data[from] == b->data[from])
		from++;
	planner__refuse(x, "state-contents", "the initial contents of %s differ at 0x%lx", a->name, from);
}

static void compare_contents(struct planner *x, const struct elf_section *a, const struct elf_section *b)
{
	const struct elf_file *live = x->p->live, *next = x->p->next;
	size_t i = first_reloc(live, a->h.sh_addr), k = first_reloc(next, b->h.sh_addr);
	uint64_t done = 0;
	for (;;) {
		uint64_t oa = i < live->relocs.n ? live->relocs.items[i].where - a->h.sh_addr : UINT64_MAX;
		uint64_t ob = k < next->relocs.n ? next->relocs.items[k].where - b->h.sh_addr : UINT64_MAX;
		bool in_a = oa < a->h.sh_size, in_b = ob < b->h.sh_size;
		if (!in_a && !in_b)
			break;
		if (oa != ob) {
			planner__refuse(x, "state-pointers", "%s+0x%lx is a pointer in one build only", a->name,
					oa < ob ? oa : ob);
			return;
		}
		compare_bytes(x, a, b, done, oa);
		compare_pointer(x, a, &live->relocs.items[i++], &next->relocs.items[k++]);
		done = oa + 8;
	}
	compare_bytes(x, a, b, done, a->h.sh_size);
}

static void compare_all_contents(struct planner *x)
{
	const struct elf_file *live = x->p->live, *next = x->p->next;
	for (size_t i = 1; i < live->n_sections; i++) {
		const struct elf_section *a = &live->sections[i];
		if (!is_state(live, a) || is_linker_made(a->name))
			continue;
		const struct elf_section *b = elf_file__section(next, a->name);
		if (b && is_state(next, b) && a->h.sh_size == b->h.sh_size)
			compare_contents(x, a, b);
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
	list_state(x->p->next, x->p->vapi, &x->state);
	list_state(x->p->live, x->p->vapi, &x->live_state);
	compare_tls(x);
	compare_all_contents(x);
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

static vaddr_t home_in(const state_list *l, vaddr_t a)
{
	const struct state_section *s = section_in(l, a);
	return s && s->home ? s->home + (a - s->start) : 0;
}

const struct state_section *layout__section(const struct planner *x, vaddr_t a)
{
	return section_in(&x->state, a);
}

vaddr_t layout__home(const struct planner *x, vaddr_t a)
{
	return home_in(&x->state, a);
}

vaddr_t layout__home_of_live(const struct planner *x, vaddr_t a)
{
	return home_in(&x->live_state, a);
}
