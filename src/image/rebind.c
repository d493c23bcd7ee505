/* Rebinding: which references of the new code lead to what stays, and where exactly that is.
 *
 *     GOT slot            vapi's slot of the same symbol or meaning, else a slot of the image's own
 *     other state         the same offset of the same section of vapi
 *     function, by lea    its canonical stub
 *     constant, by lea    its older home, when it has one (constants.c)
 *     code, constants     stay: they move with the image
 *
 * A reference of matched instructions in functions with the same code must lead to the same place
 * in both builds: that is the proof of layout by use. It also decides what an address at a boundary
 * means; without it, or a link-time relocation, such an address is refused.
 */
#include <dwarf.h>
#include <string.h>

#include "image/planner.h"

enum { BOUNDARY = 256 }; /* this near to the edge of a section an address may mean its neighbour */

/* ---- link-time relocations ---- */

static int by_site(const void *a, const void *b)
{
	const struct exact *x = a, *y = b;
	return (x->site > y->site) - (x->site < y->site);
}

static bool is_pc_relative(uint32_t type)
{
	switch (type) {
	case R_X86_64_PC32:
	case R_X86_64_PLT32:
	case R_X86_64_GOTPCREL:
	case R_X86_64_GOTPCRELX:
	case R_X86_64_REX_GOTPCRELX:
	case R_X86_64_GOTTPOFF:
	case R_X86_64_TLSGD:
	case R_X86_64_TLSLD:
	case R_X86_64_GOTPC32_TLSDESC:
		return true;
	default:
		return false;
	}
}

static void read_exact(struct planner *x)
{
	const struct elf_file *e = x->p->next;
	VEC(struct exact) list = {0};
	for (size_t i = 1; i < e->n_sections; i++) {
		const struct elf_section *s = &e->sections[i];
		if (s->h.sh_type != SHT_RELA || (s->h.sh_flags & SHF_ALLOC) || !s->data ||
		    s->h.sh_entsize != sizeof(Elf64_Rela) || s->h.sh_info >= e->n_sections ||
		    !(e->sections[s->h.sh_info].h.sh_flags & SHF_EXECINSTR) || s->h.sh_link >= e->n_sections)
			continue;
		const struct elf_section *symtab = &e->sections[s->h.sh_link];
		if (symtab->h.sh_type != SHT_SYMTAB || !symtab->data)
			continue;
		for (size_t k = 0; k < s->h.sh_size / sizeof(Elf64_Rela); k++) {
			Elf64_Rela r;
			Elf64_Sym sym;
			memcpy(&r, s->data + k * sizeof(r), sizeof(r));
			if (ELF64_R_TYPE(r.r_info) != R_X86_64_PC32 ||
			    ELF64_R_SYM(r.r_info) >= symtab->h.sh_size / sizeof(sym))
				continue;
			memcpy(&sym, symtab->data + ELF64_R_SYM(r.r_info) * sizeof(sym), sizeof(sym));
			if (sym.st_shndx == SHN_UNDEF || sym.st_shndx >= e->n_sections)
				continue;
			struct exact x1 = {r.r_offset, e->sections[sym.st_shndx].h.sh_addr};
			vec__push(&list, x1);
		}
	}
	if (list.n)
		qsort(list.items, list.n, sizeof(list.items[0]), by_site);
	x->exact = list.items;
	x->n_exact = list.n;
}

/* Every link-time pc-relative relocation of code must be a reference that decoding found too. */
static void check_exact(struct planner *x)
{
	const struct elf_file *e = x->p->next;
	const struct code *c = x->p->next_code;
	for (size_t i = 1; i < e->n_sections; i++) {
		const struct elf_section *s = &e->sections[i];
		if (s->h.sh_type != SHT_RELA || (s->h.sh_flags & SHF_ALLOC) || !s->data ||
		    s->h.sh_entsize != sizeof(Elf64_Rela) || s->h.sh_info >= e->n_sections ||
		    !(e->sections[s->h.sh_info].h.sh_flags & SHF_EXECINSTR))
			continue;
		for (size_t k = 0; k < s->h.sh_size / sizeof(Elf64_Rela); k++) {
			Elf64_Rela r;
			memcpy(&r, s->data + k * sizeof(r), sizeof(r));
			if (!is_pc_relative(ELF64_R_TYPE(r.r_info)))
				continue;
			const struct function *f = code__function_at(c, r.r_offset);
			const uint8_t *p = elf_file__at(e, r.r_offset, 4);
			int32_t disp;
			if (!p)
				continue;
			memcpy(&disp, p, 4);
			vaddr_t near = r.r_offset + 4 + (vaddr_t)(int64_t)disp;
			bool to_state = layout__section(x, near) != NULL, found = false;
			for (uint32_t q = f ? f->first_ref : 0; f && q < f->first_ref + f->n_refs; q++)
				found = found || c->refs.items[q].site == r.r_offset;
			if (to_state && !found) {
				planner__refuse(x, "code-unknown",
						"the linker says that 0x%lx refers to data; decoding does not",
						r.r_offset);
				return;
			}
		}
	}
}

static const struct exact *exact_at(const struct planner *x, vaddr_t site)
{
	struct exact key = {site, 0};
	return x->n_exact ? bsearch(&key, x->exact, x->n_exact, sizeof(key), by_site) : NULL;
}

/* ---- stubs ---- */

vaddr_t rebind__stub(struct planner *x, vaddr_t function)
{
	vaddr_t stub = plan__stub(x->p, function);
	if (!stub)
		planner__refuse(x, "slots", "no spare entry point is left for new functions whose address is taken");
	return stub;
}

/* The stub of the IFUNC that next resolves by `resolver`; 0 when the VAPI has none. */
static vaddr_t ifunc_stub(const struct planner *x, vaddr_t resolver)
{
	const struct elf_file *vapi = x->p->vapi;
	for (uint32_t i = 0; i < vapi->vapi.n_used; i++)
		if ((vapi->slots[i].flags & VAPI_SLOT_IFUNC) && x->p->slots[i] == resolver)
			return vapi->plain ? 0 : vapi__stub(&vapi->vapi, i);
	return 0;
}

/* The loaded library's own slot for the IFUNC that next resolves by `resolver`, where there are no stubs; or 0. */
static vaddr_t ifunc_got(const struct planner *x, vaddr_t resolver)
{
	const struct elf_file *vapi = x->p->vapi;
	for (size_t i = 0; i < x->vapi_got.n && vapi->plain; i++) {
		const struct elf_reloc *o = &vapi->relocs.items[x->vapi_got.items[i]];
		vaddr_t old = o->type == R_X86_64_IRELATIVE ? elf_file__behind_stub(vapi, (vaddr_t)o->addend) : 0;
		for (uint32_t k = 0; old && k < vapi->vapi.n_used; k++)
			if ((vapi->slots[k].flags & VAPI_SLOT_IFUNC) && vapi->slots[k].function == old &&
			    x->p->slots[k] == resolver)
				return o->where;
	}
	return 0;
}

/* ---- the GOT ---- */

static bool same_symbol(const struct elf_file *a, uint32_t i, const struct elf_file *b, uint32_t k)
{
	const struct elf_symbol *s = &a->symbols[i], *t = &b->symbols[k];
	return strcmp(s->name, t->name) == 0 && strcmp(s->version, t->version) == 0;
}

static bool binds_symbol(uint32_t type)
{
	return type == R_X86_64_GLOB_DAT || type == R_X86_64_JUMP_SLOT || type == R_X86_64_64;
}

/* Does vapi's slot mean what next's slot means? */
static bool same_meaning(const struct planner *x, const struct elf_reloc *old, const struct elf_reloc *new)
{
	const struct elf_file *vapi = x->p->vapi, *next = x->p->next;
	if (binds_symbol(new->type))
		return binds_symbol(old->type) && same_symbol(vapi, old->symbol, next, new->symbol) &&
		       (old->type == R_X86_64_64 ? old->addend : 0) == (new->type == R_X86_64_64 ? new->addend : 0);
	if (old->type != new->type || !old->symbol != !new->symbol)
		return false;
	if (new->symbol && !same_symbol(vapi, old->symbol, next, new->symbol))
		return false;
	switch (new->type) {
	case R_X86_64_TPOFF64:
	case R_X86_64_DTPMOD64:
	case R_X86_64_DTPOFF64:
	case R_X86_64_TLSDESC:
		return old->addend == new->addend;
	default:
		return false;
	}
}

/* A pair of words (DTPMOD64 and DTPOFF64 of one variable) that __tls_get_addr is given. */
static bool same_pair(const struct planner *x, const struct elf_reloc *old, const struct elf_reloc *new)
{
	const struct elf_file *vapi = x->p->vapi, *next = x->p->next;
	const struct elf_reloc *o2 = elf_file__reloc_at(vapi, old->where + 8);
	const struct elf_reloc *n2 = elf_file__reloc_at(next, new->where + 8);
	bool o_pair = o2 && o2->type == R_X86_64_DTPOFF64, n_pair = n2 && n2->type == R_X86_64_DTPOFF64;
	if (o_pair || n_pair)
		return o_pair && n_pair && same_meaning(x, o2, n2);
	const uint8_t *a = elf_file__at(vapi, old->where + 8, 8), *b = elf_file__at(next, new->where + 8, 8);
	return a && b && memcmp(a, b, 8) == 0; /* a local variable's offset is known at link time */
}

static size_t own_got(struct planner *x, struct new_got g)
{
	struct plan *p = x->p;
	for (size_t i = 0; i < p->new_got.n; i++) {
		const struct new_got *o = &p->new_got.items[i];
		if (o->kind == g.kind && o->value == g.value && o->relative == g.relative &&
		    o->in_image == g.in_image &&
		    (g.kind != NEW_GOT_SYMBOL || (strcmp(o->name, g.name) == 0 && strcmp(o->version, g.version) == 0)))
			return i + 1;
	}
	vec__push(&p->new_got, g);
	return p->new_got.n;
}

/* A slot of vapi's GOT that the linker filled with this address of VAPI space, or 0. */
static vaddr_t slot_holding(const struct planner *x, vaddr_t to)
{
	const struct elf_file *vapi = x->p->vapi;
	for (size_t i = 0; i < x->vapi_got.n; i++) {
		const struct elf_reloc *o = &vapi->relocs.items[x->vapi_got.items[i]];
		vaddr_t holds = vapi->plain ? elf_file__behind_stub(vapi, (vaddr_t)o->addend) : (vaddr_t)o->addend;
		if (o->type == R_X86_64_RELATIVE && holds == to)
			return o->where;
	}
	return 0;
}

/* What a slot that next's linker fills with an address is to hold. */
static struct got_home relative_home(struct planner *x, vaddr_t to)
{
	struct new_got g = {.kind = NEW_GOT_VALUE, .relative = true};
	if (code__function_starting(x->p->next_code, to)) {
		g.value = rebind__stub(x, to);
	} else if (elf_file__is_code(x->p->next, to)) {
		return (struct got_home){0};
	} else if (layout__section(x, to) && elf_file__is_data(x->p->next, to)) {
		g.value = layout__home(x, to);
	} else if (!(g.value = constants__home(x, to, 0))) {
		g.value = to;
		g.in_image = true;
	}
	if (!g.value)
		return (struct got_home){0};
	vaddr_t home = g.in_image ? 0 : slot_holding(x, g.value);
	return home ? (struct got_home){.home = home} : (struct got_home){.own = own_got(x, g)};
}

static bool exported_by(const struct elf_file *e, const struct elf_symbol *s)
{
	for (size_t i = 1; i < e->n_symbols; i++)
		if (e->symbols[i].s.st_shndx != SHN_UNDEF && strcmp(e->symbols[i].name, s->name) == 0 &&
		    strcmp(e->symbols[i].version, s->version) == 0)
			return true;
	return false;
}

static bool is_ifunc(const struct elf_file *e, const struct elf_symbol *s)
{
	const struct vapi_slot *slot = elf_file__slot_at(e, s->s.st_value);
	return ELF64_ST_TYPE(s->s.st_info) == STT_GNU_IFUNC || (slot && (slot->flags & VAPI_SLOT_IFUNC));
}

static struct got_home find_got_home(struct planner *x, vaddr_t slot)
{
	const struct elf_file *vapi = x->p->vapi, *next = x->p->next;
	const struct elf_reloc *r = elf_file__reloc_at(next, slot);
	const Elf64_Dyn *got_old = elf_file__dyn(vapi, DT_PLTGOT), *got_new = elf_file__dyn(next, DT_PLTGOT);
	if (!r && got_old && got_new && slot - got_new->d_un.d_ptr < 24) /* what PLT0 uses (psABI 5.2) */
		return (struct got_home){.home = got_old->d_un.d_ptr + (slot - got_new->d_un.d_ptr)};
	if (!r) {
		const uint8_t *p = elf_file__at(next, slot, 8);
		struct new_got g = {.kind = NEW_GOT_VALUE};
		if (!p || memcmp(p, &g.value, 8) != 0)
			return (struct got_home){0};
		return (struct got_home){.own = own_got(x, g)}; /* a weak symbol that nobody may define */
	}
	if (r->type == R_X86_64_RELATIVE)
		return relative_home(x, elf_file__behind_stub(next, (vaddr_t)r->addend));
	for (size_t i = 0; i < x->vapi_got.n; i++) {
		const struct elf_reloc *o = &vapi->relocs.items[x->vapi_got.items[i]];
		if (same_meaning(x, o, r) && (r->type != R_X86_64_DTPMOD64 || same_pair(x, o, r)))
			return (struct got_home){.home = o->where};
	}
	if (binds_symbol(r->type) && (r->type != R_X86_64_64 || r->addend == 0)) {
		const struct elf_symbol *s = &next->symbols[r->symbol];
		if (s->s.st_shndx != SHN_UNDEF && !exported_by(vapi, s)) /* a new export that its own build uses */
			return is_ifunc(next, s) ? (struct got_home){0} : relative_home(x, s->function);
		struct new_got g = {.kind = NEW_GOT_SYMBOL,
				    .name = s->name,
				    .version = s->version,
				    .weak = ELF64_ST_BIND(s->s.st_info) == STB_WEAK};
		return (struct got_home){.own = own_got(x, g)};
	}
	if (r->type == R_X86_64_TPOFF64 && (!r->symbol || next->symbols[r->symbol].s.st_shndx != SHN_UNDEF)) {
		uint64_t offset = (uint64_t)r->addend + (r->symbol ? next->symbols[r->symbol].s.st_value : 0);
		return (struct got_home){.own = own_got(x, (struct new_got){.kind = NEW_GOT_TPOFF, .value = offset})};
	}
	if (r->type == R_X86_64_IRELATIVE) {
		vaddr_t resolver = elf_file__behind_stub(next, (vaddr_t)r->addend), home = ifunc_got(x, resolver);
		if (home)
			return (struct got_home){.home = home};
		struct new_got g = {.kind = NEW_GOT_VALUE, .value = ifunc_stub(x, resolver), .relative = true};
		if (g.value)
			return (struct got_home){.own = own_got(x, g)};
	}
	return (struct got_home){0};
}

/* Where a GOT slot of next is to be found: vapi's slot, or a new one of the image's own, or neither. */
static struct got_home got_home(struct planner *x, vaddr_t slot)
{
	const struct elf_reloc *r = elf_file__reloc_at(x->p->next, slot);
	if (!r)
		return find_got_home(x, slot);
	struct got_home *known = &x->got_homes[r - x->p->next->relocs.items];
	if (!known->home && !known->own)
		*known = find_got_home(x, slot);
	return *known;
}

static void list_vapi_got(struct planner *x)
{
	const struct elf_file *vapi = x->p->vapi;
	for (size_t i = 0; i < vapi->relocs.n; i++) {
		const struct elf_section *s = elf_file__section_at(vapi, vapi->relocs.items[i].where);
		if (s && strncmp(s->name, ".got", 4) == 0)
			vec__push(&x->vapi_got, i);
	}
	x->got_homes = xcalloc(x->p->next->relocs.n, sizeof(struct got_home));
}

/* ---- one reference ---- */

static void add_patch(struct planner *x, vaddr_t site, vaddr_t from, vaddr_t to)
{
	struct patch p = {.site = site, .from = from, .to = to};
	vec__push(&x->p->patches, p);
}

static void add_own_got_patch(struct planner *x, vaddr_t site, vaddr_t from, size_t own)
{
	struct patch p = {.site = site, .from = from, .to = (own - 1) * 8, .own_got = true};
	vec__push(&x->p->patches, p);
}

static const struct ref *old_ref(const struct planner *x, const struct ref *r)
{
	int32_t i = x->p->match->ref_b_to_a[r - x->p->next_code->refs.items];
	return i >= 0 ? &x->p->live_code->refs.items[i] : NULL;
}

static bool in_same_code(const struct planner *x, const struct ref *r)
{
	const struct function *f = code__function_at(x->p->next_code, r->insn);
	return f && x->p->match->same_code[f - x->p->next_code->functions.items];
}

/* Which thread-local variable a slot is about: its symbol and its offset. False: about none. */
static bool tls_meaning(const struct elf_file *e, vaddr_t slot, const char **name, uint64_t *offset)
{
	const struct elf_reloc *r = elf_file__reloc_at(e, slot), *second = elf_file__reloc_at(e, slot + 8);
	const uint8_t *word = elf_file__at(e, slot + 8, sizeof(*offset));
	if (!r || (r->type != R_X86_64_TPOFF64 && r->type != R_X86_64_TLSDESC && r->type != R_X86_64_DTPMOD64))
		return false;
	const struct elf_symbol *s = r->symbol ? &e->symbols[r->symbol] : NULL;
	bool here = s && s->s.st_shndx != SHN_UNDEF;
	*name = s && !here ? s->name : "";
	*offset = (uint64_t)r->addend + (here ? s->s.st_value : 0);
	if (r->type == R_X86_64_DTPMOD64 && second && second->type == R_X86_64_DTPOFF64)
		*offset += (uint64_t)second->addend;
	else if (r->type == R_X86_64_DTPMOD64 && !s && word)
		memcpy(offset, word, sizeof(*offset)); /* a local variable's is known at link time */
	return true;
}

/* Unchanged code that uses another thread-local variable: their places were exchanged. */
static void check_tls(struct planner *x, const struct ref *r)
{
	const struct ref *old = old_ref(x, r);
	const char *name_old, *name_new;
	uint64_t at_old, at_new;
	if (!old || !in_same_code(x, r) || !tls_meaning(x->p->next, r->target, &name_new, &at_new) ||
	    !tls_meaning(x->p->live, old->target, &name_old, &at_old) ||
	    (strcmp(name_old, name_new) == 0 && at_old == at_new))
		return;
	FREE_CLEANUP char *where = code__describe(x->p->next_code, r->insn);
	planner__refuse(x, "tls", "unchanged code in %s uses another thread-local variable than in the old build",
			where);
}

static void rebind_got(struct planner *x, const struct ref *r)
{
	const struct elf_reloc *reloc = elf_file__reloc_at(x->p->next, r->target);
	bool pair = reloc && (reloc->type == R_X86_64_DTPMOD64 || reloc->type == R_X86_64_TLSDESC);
	bool understood = r->kind == REF_MEMORY ? !reloc || reloc->type != R_X86_64_DTPMOD64 : pair;
	struct got_home g = {0};
	check_tls(x, r);
	if (understood)
		g = got_home(x, r->target);
	if (g.home)
		add_patch(x, r->site, r->end, g.home);
	else if (g.own && r->kind == REF_MEMORY)
		add_own_got_patch(x, r->site, r->end, g.own);
	else
		planner__refuse(x, "got", "0x%lx uses the global offset table at 0x%lx in a way that is not understood",
				r->insn, r->target);
}

/* The section that a reference to state belongs to, when the address alone does not say: it lies at
 * or next to the edge of a section whose neighbour does not stay at the same distance. */
static bool at_moving_edge(const struct planner *x, const struct state_section *s, vaddr_t a)
{
	size_t i = (size_t)(s - x->state.items);
	if ((a - s->start < BOUNDARY && i > 0 && s[-1].by_object) ||
	    (s->end - a < BOUNDARY && i + 1 < x->state.n && s[1].by_object))
		return true;
	if (a - s->start < BOUNDARY && i > 0 &&
	    x->state.items[i - 1].home - x->state.items[i - 1].start != s->home - s->start)
		return true;
	return s->end - a < BOUNDARY && i + 1 < x->state.n &&
	       x->state.items[i + 1].home - x->state.items[i + 1].start != s->home - s->start;
}

/* Addresses of state that unchanged code uses in both builds, and that mean the same there by their section:
 * something begins at them, so other code that takes them means it too. */
static void list_proven(struct planner *x)
{
	const struct code *c = x->p->next_code;
	for (size_t i = 0; i < c->refs.n; i++) {
		const struct ref *r = &c->refs.items[i], *old = old_ref(x, r);
		if (!old || r->kind == REF_CALL || r->kind == REF_JUMP || !in_same_code(x, r))
			continue;
		vaddr_t home = layout__home(x, r->target);
		if (home && home == layout__meant_by(x, old)) {
			vec__push(&x->proven, r->target);
			vec__push(&x->proven_homes, home);
		}
	}
	vaddr_list__sort(&x->proven);
	vaddr_list__sort(&x->proven_homes);
}

static bool is_proven(const struct planner *x, vaddr_t a)
{
	return vaddr_list__has(&x->proven, a);
}

/* Does a symbol that names an object around `next` name one at the same place in live? */
static bool named_alike(const struct planner *x, vaddr_t next, vaddr_t live)
{
	vaddr_t start_a, start_b;
	uint64_t size_a, size_b;
	const char *a = statics__symbol(x->p->next, next, &start_a, &size_a);
	const char *b = statics__symbol(x->p->live, live, &start_b, &size_b);
	return a && b && strcmp(a, b) == 0 && size_a == size_b && next - start_a == live - start_b;
}

/* Changed code that uses another place than before: another variable, or the same one that was put elsewhere? What
 * unchanged code says of both places tells, or symbols do. */
static bool may_have_moved(const struct planner *x, const struct state_section *s, const struct ref *r,
			   const struct ref *old, vaddr_t old_home)
{
	vaddr_t shift = s->live - s->start; /* laid out alike */
	bool now = is_proven(x, r->target) || named_alike(x, r->target, r->target + shift);
	bool before = vaddr_list__has(&x->proven_homes, old_home) || named_alike(x, old->target - shift, old->target);
	return !now || !before;
}

/* Does a pointer in next's data lead there? Initialisers name no addresses in front of an object. */
static bool has_pointer(const struct planner *x, vaddr_t a)
{
	const struct elf_file *e = x->p->next;
	for (size_t i = 0; i < e->relocs.n; i++)
		if (e->relocs.items[i].type == R_X86_64_RELATIVE && (vaddr_t)e->relocs.items[i].addend == a)
			return true;
	return false;
}

/* Do all objects near `a` stay at the same distance, so that it means the same whichever is meant? */
static bool in_calm_waters(const struct planner *x, vaddr_t a, vaddr_t home)
{
	const struct state_section *s = layout__section(x, a);
	const struct static_object *o = x->objects.items;
	size_t lo = 0, hi = x->objects.n;
	if (a - s->start < BOUNDARY || s->end - a < BOUNDARY)
		return false;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (o[mid].at + o[mid].size + BOUNDARY <= a)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < x->objects.n && o[lo].at < a + BOUNDARY; lo++)
		if (layout__home(x, o[lo].at) - o[lo].at != home - a)
			return false;
	return true;
}

/* Within a section that is mapped object by object. What is accessed lies in the object that holds the address. An
 * address that is taken may mean the end of the object in front, or lie so many elements before the first one of an
 * array behind: something else must say what it means. */
static vaddr_t home_in_object(const struct planner *x, const struct ref *r, const struct ref *old)
{
	const struct static_object *o = statics__object_at(x, r->target);
	vaddr_t old_home = old ? layout__meant_by(x, old) : 0;
	if (r->kind != REF_ADDRESS)
		return o ? layout__home(x, r->target) : 0;
	vaddr_t home = layout__decide(x, r->target, old && in_same_code(x, r) ? old->target : 0);
	bool meant = home && (home == old_home || is_proven(x, r->target) || in_calm_waters(x, r->target, home));
	if (!meant && o && o->at == r->target)
		meant = has_pointer(x, r->target);
	return meant ? home : 0;
}

static vaddr_t home_in_section(const struct planner *x, const struct ref *r, const struct ref *old)
{
	const struct state_section *s = layout__section(x, r->target);
	const struct exact *exact = exact_at(x, r->site);
	vaddr_t old_home = old && in_same_code(x, r) ? layout__meant_by(x, old) : 0;
	if (exact) {
		const struct state_section *meant = layout__section(x, exact->base);
		bool whole = meant && meant->start == exact->base && meant->home && !meant->by_object;
		return whole ? layout__home_of_live(x, meant->live + (r->target - meant->start)) : 0;
	}
	if (!s->home || s->got)
		return old_home;
	vaddr_t home = layout__home(x, r->target);
	bool proven = is_proven(x, r->target) && !statics__object_before(x, r->target);
	if (r->kind == REF_ADDRESS && at_moving_edge(x, s, r->target) && home != old_home && !proven)
		return old_home;
	return home;
}

/* Unchanged instructions refer to another place than in the old build. That is a changed reference, and no change
 * of layout, where one function of unchanged code, certainly the same, uses both places as the old build does, and
 * no other disagrees. */
static bool is_changed_reference(const struct planner *x, const struct ref *r, vaddr_t home, vaddr_t old_home)
{
	const struct match *m = x->p->match;
	const struct function *here = code__function_at(m->b, r->insn);
	bool both = false;
	for (size_t f = 0; f < m->b->functions.n; f++) {
		const struct function *fn = &m->b->functions.items[f];
		bool first = false, second = false;
		if (!m->same_code[f] || fn == here)
			continue;
		for (uint32_t i = fn->first_ref; i < fn->first_ref + fn->n_refs; i++) {
			const struct ref *q = &m->b->refs.items[i];
			if (m->ref_b_to_a[i] < 0 || q->kind == REF_CALL || q->kind == REF_JUMP)
				continue;
			vaddr_t now = layout__home(x, q->target);
			vaddr_t was = layout__meant_by(x, &m->a->refs.items[m->ref_b_to_a[i]]);
			if (now != was && (now == home || now == old_home || was == home || was == old_home))
				return false;
			first = first || (now == was && now == home);
			second = second || (now == was && now == old_home);
		}
		both = both || (first && second && m->how[f] >= MATCH_CONTENT);
	}
	return both;
}

/* Both compare the ends of an empty table with each other, which lies wherever a section ends (crtstuff.c of gcc). Any
 * address serves, if it is the same each time. */
static bool is_in_tm_clones(const struct planner *x, const struct ref *r)
{
	const struct function *f = code__function_at(x->p->next_code, r->insn);
	return f && f->name && r->kind == REF_ADDRESS &&
	       (strcmp(f->name, "deregister_tm_clones") == 0 || strcmp(f->name, "register_tm_clones") == 0);
}

static void rebind_state(struct planner *x, const struct ref *r)
{
	enum { LOOKED_AT = 8 }; /* where more disagree, the layout changed */
	const struct state_section *s = layout__section(x, r->target);
	const struct ref *old = old_ref(x, r);
	if (s->got && r->target < s->end && !is_in_tm_clones(x, r)) {
		rebind_got(x, r);
		return;
	}
	vaddr_t home = s->by_object ? home_in_object(x, r, old) : home_in_section(x, r, old);
	vaddr_t old_home = old ? layout__meant_by(x, old) : 0;
	if (old_home && in_same_code(x, r) && is_in_tm_clones(x, r))
		home = old_home;
	FREE_CLEANUP char *where = home && (!old || old_home == home) ? NULL : code__describe(x->p->next_code, r->insn);
	if (!home) {
		planner__refuse(x, "boundary", "%s refers to 0x%lx at the edge of %s; what it means cannot be decided",
				where, r->target, s->name);
		return;
	}
	if (old && in_same_code(x, r) && old_home != home) {
		bool changed = r->kind == REF_MEMORY && old_home && x->disagreements++ < LOOKED_AT &&
			       is_changed_reference(x, r, home, old_home);
		if (!changed) {
			planner__refuse(x, "state-layout",
					"unchanged code in %s refers to other data than in the old build (%s+0x%lx)",
					where, s->name, r->target - s->start);
			return;
		}
		planner__remark(x, "%s uses another variable than in the old build (%s+0x%lx)", where, s->name,
				r->target - s->start);
	}
	if (old && !in_same_code(x, r) && old_home && old_home != home && !s->by_object && !s->refreshed &&
	    may_have_moved(x, s, r, old, old_home)) {
		planner__refuse(x, "state-layout",
				"%s uses other data than in the old build (%s+0x%lx), and nothing shows that it is "
				"another variable",
				where, s->name, r->target - s->start);
		return;
	}
	add_patch(x, r->site, r->end, home);
}

/* The loaded library's own PLT entry for the IFUNC that next's entry at `at` is for; where there are no stubs, its
 * address is the function's. */
static vaddr_t plt_entry(const struct planner *x, vaddr_t at)
{
	enum { STEP = 8 }; /* entries are of 8 or 16 bytes (psABI 5.2) */
	const struct elf_reloc *r = code__plt_reloc(x->p->next_code, at);
	vaddr_t got =
	    r->type == R_X86_64_IRELATIVE ? ifunc_got(x, elf_file__behind_stub(x->p->next, (vaddr_t)r->addend)) : 0;
	for (size_t i = 0; got && i < x->vapi_code->functions.n; i++) {
		const struct function *f = &x->vapi_code->functions.items[i];
		for (vaddr_t a = f->start; f->plt && a < f->end; a += STEP) {
			const struct elf_reloc *o = code__plt_reloc(x->vapi_code, a);
			if (o && o->where == got)
				return a;
		}
	}
	return 0;
}

/* Bytes among the code that no unwind entry covers. */
static const struct gap *gap_at(const struct code *c, vaddr_t a)
{
	for (size_t i = 0; i < c->data.n; i++)
		if (a - c->data.items[i].start < c->data.items[i].end - c->data.items[i].start)
			return &c->data.items[i];
	return NULL;
}

/* If they are code: does it call, or jump to, a function that changed? (Intel SDM volume 2: E8, E9, 0F 80 to 8F.) */
static bool leads_to_changed(const struct planner *x, const struct gap *g)
{
	const struct code *c = x->p->next_code;
	for (vaddr_t a = g->start; a + 5 <= g->end; a++) {
		const uint8_t *p = elf_file__at(c->elf, a, 5);
		int32_t distance;
		if (!p || !((p[0] & 0xfe) == 0xe8 || (p[0] & 0xf0) == 0x80))
			continue;
		memcpy(&distance, p + 1, 4);
		const struct function *f = code__function_starting(c, a + 5 + (vaddr_t)(int64_t)distance);
		if (f && !f->plt && !x->p->match->same_code[f - c->functions.items])
			return true;
	}
	return false;
}

/* If they are code from `next` on: does an operand lead to constants that changed? */
static bool leads_to_changed_constants(const struct planner *x, const struct gap *g, vaddr_t next, vaddr_t shift)
{
	enum { LOOKED_AT = 16 };
	const struct elf_file *e = x->p->next;
	struct insn i;
	bool found = false;
	for (vaddr_t a = next; a < g->end; a += i.len) {
		const uint8_t *p = elf_file__at(e, a, g->end - a);
		if (!p || !insn__decode(p, g->end - a, a, &i))
			return false; /* they are none */
		const struct elf_section *s = i.has_target && !i.is_branch ? elf_file__section_at(e, i.target) : NULL;
		if (s && s->data && !(s->h.sh_flags & (SHF_WRITE | SHF_EXECINSTR))) {
			const uint8_t *was = elf_file__at(x->p->live, i.target - shift, LOOKED_AT);
			const uint8_t *now = elf_file__at(e, i.target, LOOKED_AT);
			found = found || !was || !now || memcmp(was, now, LOOKED_AT) != 0;
		}
		if (i.flow == FLOW_STOP || i.flow == FLOW_JUMP)
			break;
	}
	return found;
}

/* Tables, mostly; code of assembly may look like that. */
static bool same_data_in_code(const struct planner *x, vaddr_t live, vaddr_t next)
{
	const struct gap *a = gap_at(x->p->live_code, live), *b = gap_at(x->p->next_code, next);
	if (!b)
		return true;                      /* a PLT, or no code at all */
	if (!a || a->end - live != b->end - next) /* what is in front may be padding */
		return false;
	const uint8_t *pa = elf_file__at(x->p->live, live, a->end - live);
	const uint8_t *pb = elf_file__at(x->p->next, next, b->end - next);
	return pa && pb && memcmp(pa, pb, a->end - live) == 0 && !leads_to_changed(x, b) &&
	       !leads_to_changed_constants(x, b, next, next - live);
}

/* Where the same code takes an address, it means the same function: what functions are alike in is no proof. */
static bool is_other_function(const struct planner *x, vaddr_t live, vaddr_t next)
{
	const struct function *a = code__function_starting(x->p->live_code, live);
	const struct function *b = code__function_starting(x->p->next_code, next);
	return a && b && !a->plt && !b->plt && match__successor(x->p->match, live) != next;
}

static void rebind_code_address(struct planner *x, const struct ref *r)
{
	const struct code *c = x->p->next_code;
	vaddr_t target = elf_file__behind_stub(c->elf, r->target);
	const struct function *f = code__function_at(c, target);
	const struct vapi_slot *slot = elf_file__slot_at(c->elf, r->target);
	const struct elf_reloc *ifunc = code__plt_reloc(c, target);
	vaddr_t own_ifunc = 0, own_entry;
	if (slot && (slot->flags & VAPI_SLOT_IFUNC))
		own_ifunc = ifunc_stub(x, slot->function);
	else if (ifunc && ifunc->type == R_X86_64_IRELATIVE)
		own_ifunc = ifunc_stub(x, elf_file__behind_stub(c->elf, (vaddr_t)ifunc->addend));
	own_entry = x->vapi_code && ifunc ? plt_entry(x, r->target) : 0;
	const struct ref *old = old_ref(x, r);
	vaddr_t was = old ? elf_file__behind_stub(x->p->live, old->target) : 0;
	if (own_ifunc || own_entry) {
		add_patch(x, r->site, r->end, own_ifunc ? own_ifunc : own_entry);
	} else if (!x->p->vapi->plain && code__is_trampoline(c, target)) { /* the kernel keeps it */
		add_patch(x, r->site, r->end, x->p->vapi->vapi.text + ARCH_PAD_SIGRETURN);
	} else if (!f && was && !same_data_in_code(x, was, target)) {
		planner__refuse(
		    x, "code-unknown",
		    "the address of bytes among the code, at 0x%lx of the new build, is taken; they changed, "
		    "or lead to what changed, and may be code",
		    target);
	} else if (was && in_same_code(x, r) && is_other_function(x, was, target)) {
		FREE_CLEANUP char *where = code__describe(c, r->insn), *what = code__describe(c, target);
		planner__refuse(x, "function-identity",
				"unchanged code in %s takes the address of %s, which took over from another function",
				where, what);
	} else if (f && f->start == target && !f->plt && !f->signal_frame) {
		vaddr_t stub = rebind__stub(x, target);
		if (stub)
			add_patch(x, r->site, r->end, stub);
	} else if (f && f != code__function_at(c, r->insn) && !f->signal_frame) {
		FREE_CLEANUP char *where = code__describe(c, r->insn), *what = code__describe(c, target);
		planner__refuse(x, "code-labels", "%s takes the address of %s, which is no function", where, what);
	}
}

/* The place of live that corresponds to a word of next's data, or 0. */
static vaddr_t place_in_live(const struct planner *x, vaddr_t next)
{
	const struct state_section *s = layout__section(x, next);
	if (s && s->by_object) {
		const struct static_object *o = statics__object_at(x, next);
		return o && o->live ? o->live + (next - o->at) : 0;
	}
	return s && s->live ? s->live + (next - s->start) : 0;
}

/* The relocation of live for the word that one of next is for, or NULL. */
static const struct elf_reloc *reloc_in_live(const struct planner *x, const struct elf_reloc *r)
{
	vaddr_t there = place_in_live(x, r->where);
	return there ? elf_file__reloc_at(x->p->live, there) : NULL;
}

/* First of all, so that a constant has one address for all who take it, whether it is known what the old build has in
 * their place or not. */
static void decide_constants(struct planner *x)
{
	for (size_t i = 0; i < x->p->next_code->refs.n; i++) {
		const struct ref *r = &x->p->next_code->refs.items[i], *old = old_ref(x, r);
		if (r->kind == REF_ADDRESS && old)
			(void)constants__home(x, r->target, old->target);
	}
	for (size_t i = 0; i < x->p->next->relocs.n; i++) {
		const struct elf_reloc *r = &x->p->next->relocs.items[i], *old = reloc_in_live(x, r);
		if (r->type == R_X86_64_RELATIVE && old && old->type == R_X86_64_RELATIVE)
			(void)constants__home(x, (vaddr_t)r->addend, (vaddr_t)old->addend);
	}
	constants__settle(x);
}

static void rebind_constant(struct planner *x, const struct ref *r)
{
	const struct ref *old = old_ref(x, r);
	vaddr_t home = constants__home(x, r->target, old ? old->target : 0);
	if (home) {
		add_patch(x, r->site, r->end, home);
		x->p->counts.kept_constants++;
	}
}

static void rebind_ref(struct planner *x, const struct ref *r)
{
	const struct elf_file *e = x->p->next;
	vaddr_t behind = elf_file__behind_stub(e, r->target);
	if (r->kind == REF_CALL || r->kind == REF_JUMP) {
		if (!elf_file__is_code(e, r->target))
			planner__refuse(x, "code-unknown", "0x%lx calls or jumps to 0x%lx, which is no code", r->insn,
					r->target);
		return;
	}
	if (r->size != 4) {
		planner__refuse(x, "code-unknown", "0x%lx refers to data in a form that is not known", r->insn);
		return;
	}
	if (elf_file__is_code(e, behind)) {
		if (r->kind == REF_ADDRESS)
			rebind_code_address(x, r);
	} else if (layout__section(x, r->target) &&
		   (!elf_file__segment(e, r->target) || elf_file__is_data(e, r->target))) {
		rebind_state(x, r);
	} else if (elf_file__is_data(e, r->target) || !elf_file__segment(e, r->target)) {
		FREE_CLEANUP char *where = code__describe(x->p->next_code, r->insn);
		planner__refuse(x, "boundary", "%s refers to 0x%lx, which is in no section", where, r->target);
	} else if (r->kind == REF_ADDRESS) {
		rebind_constant(x, r);
	}
}

/* ---- unwind tables ---- */

static void rebind_unwind_word(struct planner *x, vaddr_t at)
{
	const uint8_t *p = elf_file__at(x->p->next, at, 4);
	int32_t disp;
	if (!p) {
		planner__refuse(x, "unwind", "the unwind table refers to a place outside the file");
		return;
	}
	memcpy(&disp, p, 4);
	vaddr_t target = at + (vaddr_t)(int64_t)disp;
	const struct state_section *s = layout__section(x, target);
	if (!s) {
		if (elf_file__is_data(x->p->next, target))
			planner__refuse(x, "unwind", "the unwind table refers to data in no section");
		return;
	}
	struct got_home g = {.home = s->got ? 0 : layout__home(x, target)};
	if (s->got)
		g = got_home(x, target);
	if (g.home)
		add_patch(x, at, at, g.home);
	else if (g.own)
		add_own_got_patch(x, at, at, g.own);
	else
		planner__refuse(x, "unwind", "the unwind table refers to data at 0x%lx that has no counterpart",
				target);
}

static void rebind_unwind(struct planner *x)
{
	fde_list fdes = {0};
	vaddr_list words = {0};
	ERR_CLEANUP struct err *e = fdes__read(x->p->next, &fdes);
	if (e)
		planner__refuse(x, "unwind", "%s", err__text(e));
	for (size_t i = 0; i < fdes.n; i++) {
		const struct fde *f = &fdes.items[i];
		struct unwind_row row = {f->start, f->at};
		vec__push(&x->p->unwind, row);
		bool seen = false;
		for (size_t k = 0; k < words.n && !seen; k++)
			seen = words.items[k] == f->personality_at;
		if (f->personality_at && !seen) {
			if ((f->personality_enc & 0x0f) == DW_EH_PE_sdata4 &&
			    (f->personality_enc & 0x70) == DW_EH_PE_pcrel)
				vec__push(&words, f->personality_at);
			else
				planner__refuse(x, "unwind",
						"a personality routine is referred to in a way that is not supported");
		}
	}
	for (size_t i = 0; i < fdes.n; i++)
		if (fdes.items[i].lsda && !lsda__references(x->p->next, fdes.items[i].lsda, &words))
			planner__refuse(x, "unwind", "the exception table of the function at 0x%lx is not understood",
					fdes.items[i].start);
	for (size_t i = 0; i < words.n; i++) {
		bool again = false;
		for (size_t k = 0; k < i && !again; k++)
			again = words.items[k] == words.items[i];
		if (!again)
			rebind_unwind_word(x, words.items[i]);
	}
	vec__free(&words);
	vec__free(&fdes);
}

/* ---- read-only data ---- */

/* What the word that a RELATIVE relocation of next fills is to hold; false, and a refusal, when nobody knows. */
static bool relative_value(struct planner *x, const struct elf_reloc *r, vaddr_t *value, bool *in_image)
{
	struct plan *p = x->p;
	vaddr_t to = elf_file__behind_stub(p->next, (vaddr_t)r->addend);
	const struct elf_reloc *old = reloc_in_live(x, r);
	vaddr_t was = old && old->type == R_X86_64_RELATIVE ? (vaddr_t)old->addend : 0;
	*in_image = false;
	if (code__function_starting(p->next_code, to)) {
		*value = rebind__stub(x, to);
		return *value != 0;
	}
	if (elf_file__is_code(p->next, to)) {
		planner__refuse(x, "code-labels", "a pointer in read-only data leads to 0x%lx, within a function", to);
		return false;
	}
	if (layout__section(x, to) && elf_file__is_data(p->next, to)) {
		*value = layout__decide(x, to, was);
		if (!*value)
			planner__refuse(x, "boundary",
					"a pointer in read-only data leads to 0x%lx; what it means cannot be decided",
					to);
		return *value != 0;
	}
	*value = constants__home(x, to, was);
	*in_image = !*value;
	if (!*value)
		*value = to;
	return true;
}

static void refresh_words(struct planner *x)
{
	struct plan *p = x->p;
	for (size_t i = 0; i < p->next->relocs.n; i++) {
		const struct elf_reloc *r = &p->next->relocs.items[i];
		const struct elf_section *s = elf_file__section_at(p->next, r->where);
		if (r->type != R_X86_64_RELATIVE || !s || strncmp(s->name, ".data.rel.ro", 12) != 0)
			continue;
		struct relro_word w = {.where = layout__home(x, r->where)};
		if (w.where && w.where < HOME_OWN && relative_value(x, r, &w.value, &w.in_image))
			vec__push(&p->words, w);
	}
}

/* A word of the image's own data that the loader would fill. */
static void settle_own_word(struct planner *x, const struct elf_reloc *r, struct new_got *w)
{
	const struct elf_file *next = x->p->next;
	const struct elf_symbol *s = &next->symbols[r->symbol];
	if (r->type == R_X86_64_RELATIVE) {
		w->relative = relative_value(x, r, &w->value, &w->in_image);
	} else if (r->type == R_X86_64_64 && (s->s.st_shndx == SHN_UNDEF || exported_by(x->p->vapi, s))) {
		*w = (struct new_got){.kind = NEW_GOT_SYMBOL,
				      .name = s->name,
				      .version = s->version,
				      .weak = ELF64_ST_BIND(s->s.st_info) == STB_WEAK,
				      .value = (uint64_t)r->addend};
	} else {
		planner__refuse(x, "state-object", "a new object has a kind of pointer at 0x%lx that is not supported",
				r->where);
	}
}

static void settle_own_words(struct planner *x)
{
	for (size_t i = 0; i < x->objects.n; i++) {
		const struct static_object *o = &x->objects.items[i];
		for (uint64_t k = 0; !o->live && o->home >= HOME_OWN && k < o->size; k += 8) {
			const struct elf_reloc *r = elf_file__reloc_at(x->p->next, o->at + k);
			if (r)
				settle_own_word(x, r, &x->p->own_words.items[(o->home - HOME_OWN + k) / 8]);
		}
	}
}

/* ---- all of it ---- */

/* The image's own GOT lies on a page behind the image, its own data behind that. */
static void settle_own_got(struct planner *x, uint64_t image_end)
{
	struct plan *p = x->p;
	p->image_len = image_end;
	if (p->new_got.n) {
		p->got_at = image_end;
		p->image_len += align_up(p->new_got.n * 8, LLU_PAGE);
	}
	if (p->own_words.n) {
		p->own_at = p->image_len;
		p->image_len += align_up(p->own_words.n * 8, LLU_PAGE);
	}
}

void rebind__all(struct planner *x)
{
	struct plan *p = x->p;
	read_exact(x);
	check_exact(x);
	list_vapi_got(x);
	constants__list_targets(x);
	list_proven(x);
	decide_constants(x);
	for (size_t i = 0; i < p->next_code->refs.n; i++)
		rebind_ref(x, &p->next_code->refs.items[i]);
	rebind_unwind(x);
	refresh_words(x);
	settle_own_words(x);
	uint64_t end = 0;
	for (size_t i = 0; i < p->next->n_phdrs; i++) {
		const Elf64_Phdr *h = &p->next->phdrs[i];
		if (h->p_type == PT_LOAD && !(h->p_flags & PF_W) && h->p_vaddr < elf_file__end(p->next) &&
		    h->p_vaddr + h->p_memsz > end)
			end = h->p_vaddr + h->p_memsz;
	}
	settle_own_got(x, align_up(end, LLU_PAGE));
	p->counts.rebound = p->patches.n;
	free(x->exact);
	free(x->got_homes);
	vec__free(&x->vapi_got);
	vec__free(&x->proven);
	vec__free(&x->proven_homes);
}
