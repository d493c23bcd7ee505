/* See split.h. The order of work: choose the slots, lay out what is appended, change IN's bytes in
 * a copy, fill in the appended segments, write section headers. */
#include "image/split.h"

#include <dwarf.h>
#include <string.h>

#include "image/match.h"
#include "image/unwind_table.h"

/* A piece of the output that will lie at `base`. */
struct blob {
	uint8_t *bytes;
	size_t n;
	vaddr_t base;
};

struct moved {
	size_t section; /* index */
	vaddr_t from, to;
};

struct split {
	const struct elf_file *in;
	const struct code *code;
	uint8_t *copy; /* IN's bytes, being changed */
	struct vapi_note v;
	struct vapi_slot *slots;         /* v.n_slots */
	VEC(struct elf_reloc) irelative; /* in address order */
	struct blob r, rx, rw;
	uint64_t append_at; /* file offset of R */
	VEC(struct moved) moved;
	int64_t notes_shift;
	vaddr_t notes_from, notes_end; /* notes in [from, end) are shifted */
	vaddr_t note, rela, llu_eh_frame;
	size_t rela_count, llu_eh_frame_len, eh_rows;
};

static struct err *refuse(const struct split *s, const char *why)
{
	return err__new(ERR_REFUSED, 0, s->in->path, NULL, "cannot be split: %s", why);
}

/* ---- growing pieces ---- */

static vaddr_t blob__end(const struct blob *b)
{
	return b->base + b->n;
}

static vaddr_t blob__add(struct blob *b, const void *data, size_t n, size_t align)
{
	size_t at = align_up(b->n, align);
	b->bytes = xreallocarray(b->bytes, at + n, 1);
	memset(b->bytes + b->n, 0, at - b->n);
	if (data)
		memcpy(b->bytes + at, data, n);
	else
		memset(b->bytes + at, 0, n);
	b->n = at + n;
	return b->base + at;
}

static uint8_t *blob__at(const struct blob *b, vaddr_t a)
{
	return b->bytes + (a - b->base);
}

/* Where IN's byte at `a` lies in the copy; the relocation and symbol tables were checked on reading. */
static uint8_t *copy_at(struct split *s, vaddr_t a)
{
	uint64_t offset;
	return elf_file__offset(s->in, a, 1, &offset) ? s->copy + offset : NULL;
}

/* ---- which functions get a slot ---- */

bool split__is_function_export(const struct elf_file *e, const struct elf_symbol *s)
{
	uint8_t type = ELF64_ST_TYPE(s->s.st_info), bind = ELF64_ST_BIND(s->s.st_info);
	return s->s.st_shndx != SHN_UNDEF && s->s.st_shndx < SHN_LORESERVE &&
	       (type == STT_FUNC || type == STT_GNU_IFUNC) &&
	       (bind == STB_GLOBAL || bind == STB_WEAK || bind == STB_GNU_UNIQUE) && elf_file__is_code(e, s->function);
}

static void take(const struct code *code, vaddr_list *out, vaddr_t a)
{
	const struct vapi_slot *slot = elf_file__slot_at(code->elf, a);
	if (slot && (slot->flags & VAPI_SLOT_IFUNC))
		return; /* what escapes is the variant that the slot holds */
	const struct function *f = code__function_starting(code, elf_file__behind_stub(code->elf, a));
	if (f && !f->plt && !f->signal_frame)
		vec__push(out, f->start);
}

static int by_address(const void *a, const void *b)
{
	vaddr_t x = *(const vaddr_t *)a, y = *(const vaddr_t *)b;
	return (x > y) - (x < y);
}

void split__taken_functions(const struct code *code, vaddr_list *out)
{
	const struct elf_file *e = code->elf;
	for (size_t i = 0; i < code->refs.n; i++)
		if (code->refs.items[i].kind == REF_ADDRESS)
			take(code, out, code->refs.items[i].target);
	for (size_t i = 0; i < e->relocs.n; i++)
		if (e->relocs.items[i].type == R_X86_64_RELATIVE)
			take(code, out, (vaddr_t)e->relocs.items[i].addend);
	const Elf64_Dyn *fini = elf_file__dyn(e, DT_FINI);
	if (fini)
		take(code, out, fini->d_un.d_ptr);
	if (out->n)
		qsort(out->items, out->n, sizeof(out->items[0]), by_address);
	size_t n = 0;
	for (size_t i = 0; i < out->n; i++)
		if (n == 0 || out->items[n - 1] != out->items[i])
			out->items[n++] = out->items[i];
	out->n = n;
}

typedef VEC(struct vapi_slot) slot_list;

static bool has_slot(const slot_list *l, vaddr_t function, bool ifunc)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].function == function && ((l->items[i].flags & VAPI_SLOT_IFUNC) != 0) == ifunc)
			return true;
	return false;
}

static bool listed(const vaddr_list *l, vaddr_t a)
{
	return l->n && bsearch(&a, l->items, l->n, sizeof(a), by_address) != NULL;
}

static void choose_slots(struct split *s, slot_list *out)
{
	const struct elf_file *in = s->in;
	vaddr_list exported = {0}, taken = {0};
	for (size_t i = 0; i < in->n_symbols; i++) {
		const struct elf_symbol *sym = &in->symbols[i];
		if (!split__is_function_export(in, sym))
			continue;
		bool ifunc = ELF64_ST_TYPE(sym->s.st_info) == STT_GNU_IFUNC;
		struct vapi_slot slot = {sym->function, (uint32_t)i, VAPI_SLOT_EXPORT | (ifunc ? VAPI_SLOT_IFUNC : 0)};
		vec__push(out, slot);
		if (!ifunc)
			vec__push(&exported, sym->function);
	}
	if (exported.n)
		qsort(exported.items, exported.n, sizeof(vaddr_t), by_address);
	split__taken_functions(s->code, &taken);
	for (size_t i = 0; i < taken.n; i++)
		if (!listed(&exported, taken.items[i])) {
			struct vapi_slot slot = {taken.items[i], 0, 0};
			vec__push(out, slot);
		}
	for (size_t i = 0; i < s->irelative.n; i++) {
		vaddr_t resolver = (vaddr_t)s->irelative.items[i].addend;
		if (!has_slot(out, resolver, true)) {
			struct vapi_slot slot = {resolver, 0, VAPI_SLOT_IFUNC};
			vec__push(out, slot);
		}
	}
	vec__free(&exported);
	vec__free(&taken);
}

static bool same_export(const struct elf_file *a, const struct vapi_slot *x, const struct elf_file *b,
			const struct vapi_slot *y)
{
	if (!(x->flags & VAPI_SLOT_EXPORT) || !(y->flags & VAPI_SLOT_EXPORT))
		return false;
	const struct elf_symbol *s = &a->symbols[x->symbol], *t = &b->symbols[y->symbol];
	return strcmp(s->name, t->name) == 0 && strcmp(s->version, t->version) == 0;
}

/* Puts the slots in the order of `like`: its exports by name and version, its internal functions by
 * what they match here. A slot whose function is gone stays, spare. */
static struct err *order_like(struct split *s, const struct elf_file *like, slot_list *slots)
{
	if (!like->split)
		return err__new(ERR_REFUSED, 0, like->path, "give a library made by llusplit to --like",
				"not a split library");
	struct code *old_code;
	TRY(code__analyse(like, &old_code));
	struct match *match = match__make(old_code, s->code);
	slot_list ordered = {0};
	for (size_t i = 0; i < like->vapi.n_used; i++) {
		const struct vapi_slot *old = &like->slots[i];
		struct vapi_slot chosen = {0, 0, VAPI_SLOT_SPARE};
		vaddr_t successor = old->flags & VAPI_SLOT_EXPORT ? 0 : match__successor(match, old->function);
		for (size_t k = 0; k < slots->n; k++) {
			struct vapi_slot *x = &slots->items[k];
			bool internal = successor && !(x->flags & (VAPI_SLOT_EXPORT | VAPI_SLOT_SPARE)) &&
					x->function == successor &&
					(x->flags & VAPI_SLOT_IFUNC) == (old->flags & VAPI_SLOT_IFUNC);
			if (!internal && !same_export(like, old, s->in, x))
				continue;
			chosen = *x;
			x->flags = VAPI_SLOT_SPARE; /* taken */
			break;
		}
		vec__push(&ordered, chosen);
	}
	for (size_t k = 0; k < slots->n; k++)
		if (!(slots->items[k].flags & VAPI_SLOT_SPARE))
			vec__push(&ordered, slots->items[k]);
	match__free(match);
	code__free(old_code);
	vec__free(slots);
	slots->items = ordered.items;
	slots->n = ordered.n;
	slots->cap = ordered.cap;
	return NULL;
}

/* Spare slots are for functions whose address later builds take and this one does not. */
static size_t spare_for(size_t used)
{
	return 64 + used / 8;
}

static struct err *make_slots(struct split *s, const struct elf_file *like)
{
	for (size_t i = 0; i < s->in->relocs.n; i++)
		if (s->in->relocs.items[i].type == R_X86_64_IRELATIVE)
			vec__push(&s->irelative, s->in->relocs.items[i]);
	slot_list slots = {0};
	choose_slots(s, &slots);
	struct err *err = like ? order_like(s, like, &slots) : NULL;
	if (err) {
		vec__free(&slots);
		return err;
	}
	s->v.n_used = (uint32_t)slots.n;
	s->v.n_slots = (uint32_t)(slots.n + spare_for(slots.n));
	s->slots = xcalloc(s->v.n_slots, sizeof(*s->slots));
	if (slots.n)
		memcpy(s->slots, slots.items, slots.n * sizeof(*s->slots));
	for (size_t i = slots.n; i < s->v.n_slots; i++)
		s->slots[i].flags = VAPI_SLOT_SPARE;
	vec__free(&slots);
	return NULL;
}

/* The stub that stands for a function: its first export, else its internal one; 0 for none. */
struct canonical {
	vaddr_t function;
	uint32_t slot;
};

static int by_function(const void *a, const void *b)
{
	const struct canonical *x = a, *y = b;
	if (x->function != y->function)
		return x->function < y->function ? -1 : 1;
	return (x->slot > y->slot) - (x->slot < y->slot);
}

struct canonicals {
	struct canonical *items;
	size_t n;
};

static struct canonicals canonicals__make(const struct split *s)
{
	struct canonicals c = {xcalloc(s->v.n_used, sizeof(struct canonical)), 0};
	for (uint32_t i = 0; i < s->v.n_used; i++)
		if (!(s->slots[i].flags & (VAPI_SLOT_IFUNC | VAPI_SLOT_SPARE)))
			c.items[c.n++] = (struct canonical){s->slots[i].function, i};
	qsort(c.items, c.n, sizeof(c.items[0]), by_function);
	size_t n = 0; /* the lowest slot of each function stands for it */
	for (size_t i = 0; i < c.n; i++)
		if (n == 0 || c.items[n - 1].function != c.items[i].function)
			c.items[n++] = c.items[i];
	c.n = n;
	return c;
}

static vaddr_t canonicals__stub(const struct canonicals *c, const struct vapi_note *v, vaddr_t function)
{
	size_t lo = 0, hi = c->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->items[mid].function < function)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < c->n && c->items[lo].function == function ? vapi__stub(v, c->items[lo].slot) : 0;
}

static vaddr_t ifunc_stub(const struct split *s, vaddr_t resolver)
{
	for (uint32_t i = 0; i < s->v.n_used; i++)
		if ((s->slots[i].flags & VAPI_SLOT_IFUNC) && s->slots[i].function == resolver)
			return vapi__stub(&s->v, i);
	return 0;
}

/* ---- room for more program headers ---- */

enum { NEW_PHDRS = 5 }; /* four PT_LOAD, one PT_NOTE */

static bool is_movable(const struct elf_section *s)
{
	switch (s->h.sh_type) {
	case SHT_GNU_HASH:
	case SHT_HASH:
	case SHT_DYNSYM:
	case SHT_STRTAB:
	case SHT_GNU_versym:
	case SHT_GNU_verdef:
	case SHT_GNU_verneed:
	case SHT_RELA:
		return true; /* found through the dynamic section alone */
	default:
		return false;
	}
}

/* The allocated section with the lowest address at or above `a`. */
static const struct elf_section *next_section(const struct elf_file *e, vaddr_t a)
{
	const struct elf_section *best = NULL;
	for (size_t i = 1; i < e->n_sections; i++) {
		const struct elf_section *s = &e->sections[i];
		if ((s->h.sh_flags & SHF_ALLOC) && s->h.sh_size && s->h.sh_addr >= a &&
		    (!best || s->h.sh_addr < best->h.sh_addr))
			best = s;
	}
	return best;
}

/* Program headers grow in place, so that tools that take them to follow the ELF header (binutils
 * among them) stay content: the notes behind them are shifted, the tables behind those move to R. */
static struct err *make_room(struct split *s)
{
	const struct elf_file *in = s->in;
	vaddr_t phdrs_end = in->ehdr.e_phoff + in->n_phdrs * sizeof(Elf64_Phdr);
	uint64_t offset;
	if (!elf_file__offset(in, 0, phdrs_end, &offset) || offset != 0)
		return refuse(s, "its program headers do not lie at its start");
	vaddr_t need = phdrs_end + NEW_PHDRS * sizeof(Elf64_Phdr), at = phdrs_end;
	bool notes = true;
	for (const struct elf_section *x = next_section(in, at); x; x = next_section(in, at)) {
		if (x->h.sh_addr >= align_up(need, 8) + 8 + (s->notes_end - s->notes_from))
			break;
		at = x->h.sh_addr + x->h.sh_size;
		if (x->h.sh_type == SHT_NOTE && notes) {
			if (!s->notes_from)
				s->notes_from = x->h.sh_addr;
			s->notes_end = at;
			continue;
		}
		notes = false;
		if (!is_movable(x))
			return refuse(s, "no room for more program headers");
		struct moved m = {(size_t)(x - in->sections), x->h.sh_addr, 0};
		vec__push(&s->moved, m);
	}
	if (s->notes_from)
		s->notes_shift = (int64_t)(align_up(need, 8) - align_down(s->notes_from, 8));
	return NULL;
}

static vaddr_t moved_address(const struct split *s, vaddr_t a)
{
	for (size_t i = 0; i < s->moved.n; i++)
		if (s->moved.items[i].from == a)
			return s->moved.items[i].to;
	return a;
}

/* ---- layout ---- */

/* CIE and FDEs for pads, stubs, lazy stubs and head. */
static void add_cfi(struct blob *b, const void *p, size_t n)
{
	if (n) /* a stub adds nothing to its CIE, and memcpy takes no NULL */
		memcpy(b->bytes + b->n, p, n);
	b->n += n;
}

static void finish_cfi(struct blob *b, size_t start)
{
	while ((b->n - start) % 8 != 4) /* the length field itself is not counted */
		b->bytes[b->n++] = DW_CFA_nop;
	while ((b->n - start) % 8 != 0)
		b->bytes[b->n++] = DW_CFA_nop;
	uint32_t len = (uint32_t)(b->n - start - 4);
	memcpy(b->bytes + start, &len, 4);
}

static void add_fde(struct blob *b, vaddr_t start, vaddr_t end, struct arch_cfi cfi, unwind_rows *rows)
{
	if (start == end)
		return;
	size_t at = b->n;
	struct unwind_row row = {start, b->base + at};
	vec__push(rows, row);
	uint32_t cie = (uint32_t)at + 4, len = (uint32_t)(end - start);
	int32_t pc = (int32_t)(start - (b->base + at + 8));
	uint8_t augmentation = 0;
	b->n += 4;
	add_cfi(b, &cie, 4);
	add_cfi(b, &pc, 4);
	add_cfi(b, &len, 4);
	add_cfi(b, &augmentation, 1);
	add_cfi(b, cfi.ops, cfi.len);
	finish_cfi(b, at);
}

enum { LLU_EH_FRAME_MAX = 512 };

static size_t write_eh_frame(const struct vapi_note *v, vaddr_t at, uint8_t *out, unwind_rows *rows)
{
	struct blob b = {out, 0, at};
	struct arch_cfi entry = arch_cfi__entry();
	const uint8_t head[] = {0,
				0,
				0,
				0,
				0,
				0,
				0,
				0,
				1,
				'z',
				'R',
				0,
				1,
				(uint8_t)(arch_cfi__data_alignment() & 0x7f),
				arch_cfi__return_register(),
				1,
				DW_EH_PE_pcrel | DW_EH_PE_sdata4};
	add_cfi(&b, head, sizeof(head));
	add_cfi(&b, entry.ops, entry.len);
	finish_cfi(&b, 0);
	add_fde(&b, v->text, v->lazy_head, (struct arch_cfi){NULL, 0}, rows);
	if (v->n_lazy) {
		add_fde(&b, v->lazy_head, v->lazy_head + ARCH_STUB_SIZE, arch_cfi__lazy_head(), rows);
		add_fde(&b, v->lazy_head + ARCH_STUB_SIZE, v->ifunc_returns, arch_cfi__lazy_stub(), rows);
	}
	add_fde(&b, v->ifunc_returns, v->text_end, (struct arch_cfi){NULL, 0}, rows);
	memset(out + b.n, 0, 4); /* a length of zero ends the section */
	return b.n + 4;
}

static size_t rela_entries(const struct split *s)
{
	const Elf64_Dyn *size = elf_file__dyn(s->in, DT_RELASZ);
	return size && elf_file__dyn(s->in, DT_RELA) ? size->d_un.d_val / sizeof(Elf64_Rela) : 0;
}

static uint64_t image_size(const struct elf_file *in)
{
	vaddr_t end = 0;
	for (size_t i = 0; i < in->n_phdrs; i++)
		if (in->phdrs[i].p_type == PT_LOAD && !(in->phdrs[i].p_flags & PF_W) &&
		    in->phdrs[i].p_vaddr + in->phdrs[i].p_memsz > end)
			end = in->phdrs[i].p_vaddr + in->phdrs[i].p_memsz;
	return align_up(end, LLU_PAGE);
}

/* Decides every address; contents of R that depend on nothing else are added on the way. */
static struct err *lay_out(struct split *s, const struct split_options *opt, fde_list *fdes)
{
	const struct elf_file *in = s->in;
	struct vapi_note *v = &s->v;
	v->version = VAPI_VERSION;
	v->end = elf_file__end(in);
	s->append_at = align_up(in->size, LLU_PAGE);

	s->r.base = v->end;
	s->note = blob__add(&s->r, NULL, sizeof(Elf64_Nhdr) + sizeof(VAPI_NOTE_NAME) + sizeof(*v), 8);
	for (size_t i = 0; i < s->moved.n; i++) {
		const struct elf_section *x = &in->sections[s->moved.items[i].section];
		s->moved.items[i].to = blob__add(&s->r, NULL, x->h.sh_size, 8);
	}
	for (uint32_t i = 0; i < v->n_used; i++)
		s->rela_count += !(s->slots[i].flags & VAPI_SLOT_SPARE);
	s->rela_count += rela_entries(s);
	s->rela = blob__add(&s->r, NULL, s->rela_count * sizeof(Elf64_Rela), 8);
	v->slots = blob__add(&s->r, NULL, v->n_slots * sizeof(struct vapi_slot), 8);
	s->llu_eh_frame = blob__add(&s->r, NULL, LLU_EH_FRAME_MAX, 8);
	if (elf_file__section(in, ".eh_frame") && elf_file__section(in, ".eh_frame_hdr")) {
		/* room for IN and as many images of its size as fit the window */
		s->eh_rows = 7 * fdes->n + 512;
		v->eh_frame_hdr_cap = align_up(unwind_table__size(s->eh_rows), LLU_PAGE);
		v->eh_frame_hdr = blob__add(&s->r, NULL, v->eh_frame_hdr_cap, LLU_PAGE);
	}
	blob__add(&s->r, NULL, 0, LLU_PAGE);

	bool lazy = !elf_file__binds_now(in);
	for (size_t i = 0; lazy && i < in->relocs.n; i++)
		if (in->relocs.items[i].table == ELF_JMPREL && in->relocs.items[i].type == R_X86_64_JUMP_SLOT)
			v->n_lazy++;
	s->rx.base = blob__end(&s->r);
	v->text = s->rx.base;
	v->stubs = v->text + ARCH_PADS_SIZE;
	v->lazy_head = v->stubs + (uint64_t)v->n_slots * ARCH_STUB_SIZE;
	v->ifunc_returns = v->lazy_head + (v->n_lazy ? (v->n_lazy + 1) * (uint64_t)ARCH_STUB_SIZE : 0);
	v->text_end = v->ifunc_returns + s->irelative.n * ARCH_STUB_SIZE;
	blob__add(&s->rx, NULL, v->text_end - v->text, 1);
	blob__add(&s->rx, NULL, 0, LLU_PAGE);

	s->rw.base = blob__end(&s->rx);
	v->table_len = align_up(v->n_slots * 8ULL, LLU_PAGE);
	v->table = blob__add(&s->rw, NULL, v->table_len, LLU_PAGE);
	v->header = blob__add(&s->rw, NULL, LLU_PAGE, LLU_PAGE);
	v->scratch = blob__end(&s->rw);
	v->scratch_len = VAPI_SCRATCH_SIZE;
	v->window = v->scratch + v->scratch_len;
	unsigned percent = opt->window_percent ? opt->window_percent : SPLIT_WINDOW_PERCENT;
	v->window_len = align_up(image_size(in) / 100 * percent, LLU_PAGE) + 16UL * LLU_PAGE;
	if (v->window + v->window_len > INT32_MAX)
		return refuse(s, "it would not fit into 2 GiB of address space");
	return NULL;
}

/* ---- changing IN's bytes ---- */

static void redirect_symbols(struct split *s)
{
	const Elf64_Dyn *symtab = elf_file__dyn(s->in, DT_SYMTAB);
	for (uint32_t i = 0; i < s->v.n_used; i++) {
		const struct vapi_slot *slot = &s->slots[i];
		if (!(slot->flags & VAPI_SLOT_EXPORT))
			continue;
		uint8_t *p = copy_at(s, symtab->d_un.d_ptr + slot->symbol * sizeof(Elf64_Sym));
		Elf64_Sym sym;
		memcpy(&sym, p, sizeof(sym));
		sym.st_value = vapi__stub(&s->v, i);
		sym.st_size = ARCH_STUB_SIZE;
		sym.st_info = ELF64_ST_INFO(ELF64_ST_BIND(sym.st_info), STT_FUNC);
		memcpy(p, &sym, sizeof(sym));
	}
}

static void redirect_addresses_in_code(struct split *s, const struct canonicals *c)
{
	for (size_t i = 0; i < s->code->refs.n; i++) {
		const struct ref *r = &s->code->refs.items[i];
		vaddr_t stub = r->kind == REF_ADDRESS ? canonicals__stub(c, &s->v, r->target) : 0;
		/* the address of an IFUNC of the library's own is that of its PLT entry */
		const struct elf_reloc *ifunc = r->kind == REF_ADDRESS ? code__plt_reloc(s->code, r->target) : NULL;
		if (ifunc && ifunc->type == R_X86_64_IRELATIVE)
			stub = ifunc_stub(s, (vaddr_t)ifunc->addend);
		if (!stub)
			continue;
		int32_t disp = (int32_t)(stub - r->end);
		memcpy(copy_at(s, r->site), &disp, 4);
	}
}

/* Where the addend of a relocation lies in the copy. */
static uint8_t *addend_at(struct split *s, const struct elf_reloc *r)
{
	if (r->table == ELF_RELR)
		return copy_at(s, r->where);
	int64_t tag = r->table == ELF_RELA ? DT_RELA : DT_JMPREL;
	return copy_at(s, elf_file__dyn(s->in, tag)->d_un.d_ptr + r->index * sizeof(Elf64_Rela) +
			      offsetof(Elf64_Rela, r_addend));
}

static void redirect_relocations(struct split *s, const struct canonicals *c)
{
	size_t ifunc = 0;
	for (size_t i = 0; i < s->in->relocs.n; i++) {
		const struct elf_reloc *r = &s->in->relocs.items[i];
		vaddr_t to = 0;
		if (r->type == R_X86_64_RELATIVE)
			to = canonicals__stub(c, &s->v, (vaddr_t)r->addend);
		if (r->type == R_X86_64_IRELATIVE)
			to = s->v.ifunc_returns + ARCH_STUB_SIZE * ifunc++;
		if (to)
			memcpy(addend_at(s, r), &to, 8);
	}
}

/* What an unresolved JUMP_SLOT holds: the dynamic loader adds the load bias (glibc,
 * sysdeps/x86_64/dl-machine.h, elf_machine_lazy_rel), and the first call goes there. */
static void redirect_lazy_slots(struct split *s)
{
	size_t k = 0;
	if (!s->v.n_lazy)
		return;
	for (size_t i = 0; i < s->in->relocs.n; i++) {
		const struct elf_reloc *r = &s->in->relocs.items[i];
		if (r->table != ELF_JMPREL || r->type != R_X86_64_JUMP_SLOT)
			continue;
		vaddr_t stub = s->v.lazy_head + ARCH_STUB_SIZE * ++k;
		memcpy(copy_at(s, r->where), &stub, 8);
	}
}

/* ---- the dynamic section ---- */

struct dyn_edit {
	Elf64_Dyn *dyn;
	size_t n, room;
};

static bool set_dyn(struct dyn_edit *d, int64_t tag, uint64_t value)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->dyn[i].d_tag == tag) {
			d->dyn[i].d_un.d_val = value;
			return true;
		}
	if (d->room == 0)
		return false;
	d->room--;
	d->dyn[d->n++] = (Elf64_Dyn){.d_tag = tag, .d_un.d_val = value};
	d->dyn[d->n].d_tag = DT_NULL;
	return true;
}

static bool points_to_a_section(int64_t tag)
{
	switch (tag) {
	case DT_HASH:
	case DT_GNU_HASH:
	case DT_SYMTAB:
	case DT_STRTAB:
	case DT_VERSYM:
	case DT_VERDEF:
	case DT_VERNEED:
	case DT_RELA:
	case DT_JMPREL:
		return true;
	default:
		return false;
	}
}

static struct err *edit_dynamic(struct split *s, const struct canonicals *c, vaddr_t *next_init)
{
	struct dyn_edit d = {xcalloc(s->in->n_dyn + s->in->dyn_room + 1, sizeof(Elf64_Dyn)), s->in->n_dyn,
			     s->in->dyn_room};
	memcpy(d.dyn, s->in->dyn, s->in->n_dyn * sizeof(Elf64_Dyn));
	for (size_t i = 0; i < d.n; i++) {
		if (points_to_a_section(d.dyn[i].d_tag))
			d.dyn[i].d_un.d_ptr = moved_address(s, d.dyn[i].d_un.d_ptr);
		if (d.dyn[i].d_tag == DT_FINI) {
			vaddr_t stub = canonicals__stub(c, &s->v, d.dyn[i].d_un.d_ptr);
			if (stub)
				d.dyn[i].d_un.d_ptr = stub;
		}
	}
	const Elf64_Dyn *init = elf_file__dyn(s->in, DT_INIT), *count = elf_file__dyn(s->in, DT_RELACOUNT);
	uint64_t relative = 0;
	for (uint32_t i = 0; i < s->v.n_used; i++)
		relative += !(s->slots[i].flags & (VAPI_SLOT_SPARE | VAPI_SLOT_IFUNC));
	*next_init = init ? init->d_un.d_ptr : 0;
	bool ok = set_dyn(&d, DT_RELA, s->rela) && set_dyn(&d, DT_RELASZ, s->rela_count * sizeof(Elf64_Rela)) &&
		  set_dyn(&d, DT_RELAENT, sizeof(Elf64_Rela)) && set_dyn(&d, DT_INIT, s->v.text + ARCH_PAD_INIT);
	if (count || rela_entries(s) == 0)
		ok = ok && set_dyn(&d, DT_RELACOUNT, relative + (count ? count->d_un.d_val : 0));
	if (ok)
		memcpy(copy_at(s, s->in->dyn_addr), d.dyn, (d.n + 1) * sizeof(Elf64_Dyn));
	free(d.dyn);
	return ok ? NULL : refuse(s, "no room in its dynamic section for more entries");
}

/* ---- filling in what is appended ---- */

static void fill_rela(struct split *s)
{
	uint8_t *p = blob__at(&s->r, s->rela);
	for (int ifunc = 0; ifunc <= 1; ifunc++) {
		for (uint32_t i = 0; i < s->v.n_used; i++) {
			const struct vapi_slot *slot = &s->slots[i];
			if ((slot->flags & VAPI_SLOT_SPARE) || ((slot->flags & VAPI_SLOT_IFUNC) != 0) != ifunc)
				continue;
			Elf64_Rela r = {vapi__table_slot(&s->v, i),
					ELF64_R_INFO(0, ifunc ? R_X86_64_IRELATIVE : R_X86_64_RELATIVE),
					(Elf64_Sxword)slot->function};
			memcpy(p, &r, sizeof(r));
			p += sizeof(r);
			if (!ifunc) /* also in place, for those who read the file */
				memcpy(blob__at(&s->rw, r.r_offset), &slot->function, 8);
		}
		if (!ifunc && rela_entries(s)) { /* IN's own between the two: IRELATIVE come last */
			size_t n = rela_entries(s) * sizeof(Elf64_Rela);
			memcpy(p, copy_at(s, elf_file__dyn(s->in, DT_RELA)->d_un.d_ptr), n);
			p += n;
		}
	}
}

static void fill_text(struct split *s, vaddr_t next_init)
{
	const struct vapi_note *v = &s->v;
	struct arch_init_args init = {v->table, v->table_len, next_init};
	arch_pads__write(blob__at(&s->rx, v->text), v->text, &init);
	for (uint32_t i = 0; i < v->n_slots; i++)
		arch_stub__write(blob__at(&s->rx, vapi__stub(v, i)), vapi__stub(v, i), vapi__table_slot(v, i));
	const Elf64_Dyn *got = elf_file__dyn(s->in, DT_PLTGOT);
	if (v->n_lazy && got)
		arch_lazy_head__write(blob__at(&s->rx, v->lazy_head), v->lazy_head, got->d_un.d_ptr);
	size_t k = 0;
	for (size_t i = 0; v->n_lazy && i < s->in->relocs.n; i++) {
		const struct elf_reloc *r = &s->in->relocs.items[i];
		if (r->table != ELF_JMPREL || r->type != R_X86_64_JUMP_SLOT)
			continue;
		vaddr_t at = v->lazy_head + ARCH_STUB_SIZE * ++k;
		arch_lazy_stub__write(blob__at(&s->rx, at), at, r->index, v->lazy_head);
	}
	for (size_t i = 0; i < s->irelative.n; i++) {
		vaddr_t at = v->ifunc_returns + ARCH_STUB_SIZE * i;
		arch_ifunc_return__write(blob__at(&s->rx, at), at,
					 ifunc_stub(s, (vaddr_t)s->irelative.items[i].addend));
	}
}

static void fill_unwind(struct split *s, const fde_list *fdes)
{
	unwind_rows rows = {0};
	s->llu_eh_frame_len = write_eh_frame(&s->v, s->llu_eh_frame, blob__at(&s->r, s->llu_eh_frame), &rows);
	for (size_t i = 0; i < fdes->n; i++) {
		struct unwind_row row = {fdes->items[i].start, fdes->items[i].at};
		vec__push(&rows, row);
	}
	if (s->v.eh_frame_hdr)
		unwind_table__write(blob__at(&s->r, s->v.eh_frame_hdr), s->v.eh_frame_hdr,
				    elf_file__section(s->in, ".eh_frame")->h.sh_addr, &rows);
	vec__free(&rows);
}

static void fill_r(struct split *s, const fde_list *fdes)
{
	uint8_t *p = blob__at(&s->r, s->note);
	Elf64_Nhdr n = {sizeof(VAPI_NOTE_NAME), sizeof(s->v), VAPI_NOTE_TYPE};
	memcpy(p, &n, sizeof(n));
	memcpy(p + sizeof(n), VAPI_NOTE_NAME, sizeof(VAPI_NOTE_NAME));
	memcpy(p + sizeof(n) + sizeof(VAPI_NOTE_NAME), &s->v, sizeof(s->v));
	fill_rela(s);
	memcpy(blob__at(&s->r, s->v.slots), s->slots, s->v.n_slots * sizeof(*s->slots));
	fill_unwind(s, fdes);
	for (size_t i = 0; i < s->moved.n; i++) { /* last: they were changed in the copy before */
		const struct moved *m = &s->moved.items[i];
		size_t size = s->in->sections[m->section].h.sh_size;
		memcpy(blob__at(&s->r, m->to), copy_at(s, m->from), size);
		memset(copy_at(s, m->from), 0, size);
	}
}

static void shift_notes(struct split *s)
{
	if (!s->notes_from)
		return;
	size_t n = s->notes_end - s->notes_from;
	FREE_CLEANUP uint8_t *notes = xmemdup(copy_at(s, s->notes_from), n);
	memset(copy_at(s, s->notes_from), 0, n);
	memcpy(copy_at(s, s->notes_from) + s->notes_shift, notes, n);
}

/* ---- headers ---- */

static void add_phdr(Elf64_Phdr *list, size_t *n, const Elf64_Phdr *p)
{
	list[(*n)++] = *p;
}

static void write_phdrs(struct split *s)
{
	const struct elf_file *in = s->in;
	const struct vapi_note *v = &s->v;
	Elf64_Phdr list[256 + NEW_PHDRS];
	size_t n = 0, last_load = 0;
	for (size_t i = 0; i < in->n_phdrs; i++)
		if (in->phdrs[i].p_type == PT_LOAD)
			last_load = i;
	uint64_t r_at = s->append_at, rx_at = r_at + s->r.n, rw_at = rx_at + s->rx.n;
	for (size_t i = 0; i < in->n_phdrs; i++) {
		Elf64_Phdr p = in->phdrs[i];
		if (p.p_type == PT_PHDR)
			p.p_filesz = p.p_memsz = (in->n_phdrs + NEW_PHDRS) * sizeof(Elf64_Phdr);
		bool note = p.p_type == PT_NOTE || p.p_type == PT_GNU_PROPERTY;
		if (note && p.p_vaddr >= s->notes_from && p.p_vaddr < s->notes_end) {
			p.p_offset += (uint64_t)s->notes_shift;
			p.p_vaddr += (uint64_t)s->notes_shift;
			p.p_paddr += (uint64_t)s->notes_shift;
		}
		if (p.p_type == PT_GNU_EH_FRAME && v->eh_frame_hdr) {
			p.p_offset = r_at + (v->eh_frame_hdr - v->end);
			p.p_vaddr = p.p_paddr = v->eh_frame_hdr;
			p.p_filesz = p.p_memsz = v->eh_frame_hdr_cap;
		}
		add_phdr(list, &n, &p);
		if (i != last_load)
			continue;
		add_phdr(list, &n, &(Elf64_Phdr){PT_LOAD, PF_R, r_at, s->r.base, s->r.base, s->r.n, s->r.n, LLU_PAGE});
		add_phdr(
		    list, &n,
		    &(Elf64_Phdr){PT_LOAD, PF_R | PF_X, rx_at, s->rx.base, s->rx.base, s->rx.n, s->rx.n, LLU_PAGE});
		add_phdr(list, &n,
			 &(Elf64_Phdr){PT_LOAD, PF_R | PF_W, rw_at, s->rw.base, s->rw.base, s->rw.n,
				       s->rw.n + v->scratch_len, LLU_PAGE});
		add_phdr(list, &n,
			 &(Elf64_Phdr){PT_LOAD, 0, rw_at + s->rw.n, v->window, v->window, 0, v->window_len, LLU_PAGE});
	}
	uint64_t note_at = r_at + (s->note - v->end);
	uint64_t note_len = sizeof(Elf64_Nhdr) + sizeof(VAPI_NOTE_NAME) + sizeof(*v);
	add_phdr(list, &n, &(Elf64_Phdr){PT_NOTE, PF_R, note_at, s->note, s->note, note_len, note_len, 4});
	memcpy(s->copy + in->ehdr.e_phoff, list, n * sizeof(Elf64_Phdr));
	uint16_t count = (uint16_t)n;
	memcpy(s->copy + offsetof(Elf64_Ehdr, e_phnum), &count, sizeof(count));
}

struct sections {
	VEC(Elf64_Shdr) list;
	struct blob names;
};

static void add_section(struct sections *x, const char *name, Elf64_Shdr h)
{
	h.sh_name = (uint32_t)blob__add(&x->names, name, strlen(name) + 1, 1);
	vec__push(&x->list, h);
}

static Elf64_Shdr alloc_section(const struct split *s, uint32_t type, uint64_t flags, vaddr_t at, uint64_t size,
				uint64_t align)
{
	return (Elf64_Shdr){.sh_type = type,
			    .sh_flags = SHF_ALLOC | flags,
			    .sh_addr = at,
			    .sh_offset = s->append_at + (at - s->v.end),
			    .sh_size = size,
			    .sh_addralign = align};
}

static void list_sections(struct split *s, struct sections *x)
{
	const struct elf_file *in = s->in;
	const struct vapi_note *v = &s->v;
	bool had_rela = false;
	uint32_t dynsym = 0;
	for (size_t i = 0; i < in->n_sections; i++) {
		Elf64_Shdr h = in->sections[i].h;
		if (h.sh_type == SHT_DYNSYM)
			dynsym = (uint32_t)i;
		for (size_t k = 0; k < s->moved.n; k++)
			if (s->moved.items[k].section == i) {
				h.sh_addr = s->moved.items[k].to;
				h.sh_offset = s->append_at + (h.sh_addr - v->end);
			}
		if (h.sh_type == SHT_NOTE && (h.sh_flags & SHF_ALLOC) && h.sh_addr >= s->notes_from &&
		    h.sh_addr < s->notes_end) {
			h.sh_addr += (uint64_t)s->notes_shift;
			h.sh_offset += (uint64_t)s->notes_shift;
		}
		const Elf64_Dyn *rela = elf_file__dyn(in, DT_RELA);
		if (h.sh_type == SHT_RELA && (h.sh_flags & SHF_ALLOC) && rela &&
		    in->sections[i].h.sh_addr == rela->d_un.d_ptr) {
			h.sh_addr = s->rela;
			h.sh_offset = s->append_at + (s->rela - v->end);
			h.sh_size = s->rela_count * sizeof(Elf64_Rela);
			had_rela = true;
		}
		add_section(x, i ? in->sections[i].name : "", h);
	}
	add_section(
	    x, ".note.llu",
	    alloc_section(s, SHT_NOTE, 0, s->note, sizeof(Elf64_Nhdr) + sizeof(VAPI_NOTE_NAME) + sizeof(*v), 4));
	if (!had_rela) {
		Elf64_Shdr h = alloc_section(s, SHT_RELA, 0, s->rela, s->rela_count * sizeof(Elf64_Rela), 8);
		h.sh_link = dynsym;
		h.sh_entsize = sizeof(Elf64_Rela);
		add_section(x, ".rela.dyn", h);
	}
	add_section(x, ".llu.slots",
		    alloc_section(s, SHT_PROGBITS, 0, v->slots, v->n_slots * sizeof(struct vapi_slot), 8));
	add_section(x, ".llu.eh_frame", alloc_section(s, SHT_PROGBITS, 0, s->llu_eh_frame, s->llu_eh_frame_len, 8));
	if (v->eh_frame_hdr)
		add_section(x, ".llu.eh_frame_hdr",
			    alloc_section(s, SHT_PROGBITS, 0, v->eh_frame_hdr, v->eh_frame_hdr_cap, LLU_PAGE));
	add_section(x, ".llu.text",
		    alloc_section(s, SHT_PROGBITS, SHF_EXECINSTR, v->text, v->text_end - v->text, ARCH_STUB_SIZE));
	add_section(x, ".llu.table", alloc_section(s, SHT_PROGBITS, SHF_WRITE, v->table, v->table_len, LLU_PAGE));
	add_section(x, ".llu.header", alloc_section(s, SHT_PROGBITS, SHF_WRITE, v->header, LLU_PAGE, LLU_PAGE));
	Elf64_Shdr scratch = alloc_section(s, SHT_NOBITS, SHF_WRITE, v->scratch, v->scratch_len, LLU_PAGE);
	add_section(x, ".llu.scratch", scratch);
	Elf64_Shdr window = alloc_section(s, SHT_NOBITS, 0, v->window, v->window_len, LLU_PAGE);
	window.sh_offset = scratch.sh_offset; /* where the file's segments end */
	add_section(x, ".llu.window", window);
}

/* Section that holds an address, for symbols. */
static uint16_t section_index(const struct elf_file *e, vaddr_t a)
{
	const struct elf_section *s = elf_file__section_at(e, a);
	return s ? (uint16_t)(s - e->sections) : SHN_ABS;
}

/* A stripped library's exports would no longer name its code: add local symbols that do, so that gdb
 * and perf show names in the Implementation as well. */
static void add_symtab(struct split *s, struct sections *x, struct blob *tail, uint64_t tail_at)
{
	const struct elf_file *in = s->in;
	for (size_t i = 1; i < in->n_sections; i++)
		if (in->sections[i].h.sh_type == SHT_SYMTAB)
			return;
	struct blob syms = {0}, names = {0};
	blob__add(&syms, NULL, sizeof(Elf64_Sym), 8);
	blob__add(&names, NULL, 1, 1);
	for (uint32_t i = 0; i < s->v.n_used; i++) {
		if (!(s->slots[i].flags & VAPI_SLOT_EXPORT))
			continue;
		const struct elf_symbol *sym = &in->symbols[s->slots[i].symbol];
		Elf64_Sym n = {.st_name = (uint32_t)blob__add(&names, sym->name, strlen(sym->name) + 1, 1),
			       .st_info = ELF64_ST_INFO(STB_LOCAL, STT_FUNC),
			       .st_shndx = section_index(in, sym->function),
			       .st_value = sym->function,
			       .st_size = sym->s.st_size};
		blob__add(&syms, &n, sizeof(n), 1);
	}
	uint64_t at = tail_at + blob__add(tail, syms.bytes, syms.n, 8);
	Elf64_Shdr h = {.sh_type = SHT_SYMTAB,
			.sh_offset = at,
			.sh_size = syms.n,
			.sh_link = (uint32_t)x->list.n + 1,
			.sh_info = (uint32_t)(syms.n / sizeof(Elf64_Sym)),
			.sh_addralign = 8,
			.sh_entsize = sizeof(Elf64_Sym)};
	add_section(x, ".symtab", h);
	at = tail_at + blob__add(tail, names.bytes, names.n, 1);
	add_section(x, ".strtab",
		    (Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_offset = at, .sh_size = names.n, .sh_addralign = 1});
	free(syms.bytes);
	free(names.bytes);
}

/* ---- all of it ---- */

static void assemble(struct split *s, uint8_t **out, size_t *out_size)
{
	struct sections x = {0};
	struct blob tail = {0};
	uint64_t tail_at = s->append_at + s->r.n + s->rx.n + s->rw.n;
	list_sections(s, &x);
	add_symtab(s, &x, &tail, tail_at);
	Elf64_Shdr names = {.sh_type = SHT_STRTAB, .sh_addralign = 1};
	names.sh_name = (uint32_t)blob__add(&x.names, ".shstrtab", sizeof(".shstrtab"), 1);
	names.sh_size = x.names.n;
	names.sh_offset = tail_at + blob__add(&tail, x.names.bytes, x.names.n, 1);
	/* the old name table would have the same name and no use */
	size_t old = s->in->ehdr.e_shstrndx;
	x.list.items[old] = names;
	uint64_t headers_at = tail_at + blob__add(&tail, x.list.items, x.list.n * sizeof(Elf64_Shdr), 8);
	memcpy(s->copy + offsetof(Elf64_Ehdr, e_shoff), &headers_at, 8);
	uint16_t n = (uint16_t)x.list.n;
	memcpy(s->copy + offsetof(Elf64_Ehdr, e_shnum), &n, 2);

	*out_size = tail_at + tail.n;
	*out = xcalloc(*out_size, 1);
	memcpy(*out, s->copy, s->in->size);
	memcpy(*out + s->append_at, s->r.bytes, s->r.n);
	memcpy(*out + s->append_at + s->r.n, s->rx.bytes, s->rx.n);
	memcpy(*out + s->append_at + s->r.n + s->rx.n, s->rw.bytes, s->rw.n);
	memcpy(*out + tail_at, tail.bytes, tail.n);
	vec__free(&x.list);
	free(x.names.bytes);
	free(tail.bytes);
}

static struct err *make(struct split *s, const struct split_options *opt, fde_list *fdes, uint8_t **out,
			size_t *out_size)
{
	TRY(fdes__read(s->in, fdes));
	TRY(make_slots(s, opt->like));
	TRY(make_room(s));
	TRY(lay_out(s, opt, fdes));
	struct canonicals c = canonicals__make(s);
	redirect_symbols(s);
	redirect_addresses_in_code(s, &c);
	redirect_relocations(s, &c);
	redirect_lazy_slots(s);
	vaddr_t next_init;
	struct err *err = edit_dynamic(s, &c, &next_init);
	free(c.items);
	if (err)
		return err;
	fill_text(s, next_init);
	fill_r(s, fdes);
	shift_notes(s);
	write_phdrs(s);
	assemble(s, out, out_size);
	return NULL;
}

static struct err *check_input(const struct elf_file *in, const struct code *code)
{
	if (in->split)
		return err__new(ERR_REFUSED, 0, in->path, "split the original library instead",
				"is a split library already");
	if (in->program)
		return err__new(ERR_REFUSED, 0, in->path, NULL, "cannot be split: a program, not a shared library");
	if (code->doubts.n)
		return err__new(ERR_REFUSED, 0, in->path, NULL, "cannot be split: %s%s", code->doubts.items[0],
				code->doubts.n > 1 ? " (and more)" : "");
	if (in->n_sections > 0xff00 - 16 || in->n_phdrs + NEW_PHDRS > 256)
		return err__new(ERR_REFUSED, 0, in->path, NULL, "cannot be split: too many sections or segments");
	return NULL;
}

struct err *split__make(const struct elf_file *in, const struct split_options *opt, uint8_t **out, size_t *out_size)
{
	struct code *code;
	TRY(code__analyse(in, &code));
	struct split s = {.in = in, .code = code};
	fde_list fdes = {0};
	struct err *err = check_input(in, code);
	if (!err) {
		s.copy = xmemdup(in->data, in->size);
		err = make(&s, opt, &fdes, out, out_size);
	}
	vec__free(&fdes);
	vec__free(&s.moved);
	vec__free(&s.irelative);
	free(s.slots);
	free(s.copy);
	free(s.r.bytes);
	free(s.rx.bytes);
	free(s.rw.bytes);
	code__free(code);
	return err;
}
