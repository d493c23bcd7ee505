/* See split.h. The order of work: choose the slots, lay out what is appended, change IN's bytes in
 * a copy, fill in the appended segments, write section headers. */
#include "image/split.h"

#include <string.h>

#include "image/match.h"
#include "image/split_parts.h"

struct err *split__refuse(const struct split *s, const char *why)
{
	return err__new(ERR_REFUSED, 0, s->in->path, NULL, "cannot be split: %s", why);
}

/* ---- growing pieces ---- */

vaddr_t blob__end(const struct blob *b)
{
	return b->base + b->n;
}

vaddr_t blob__add(struct blob *b, const void *data, size_t n, size_t align)
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

uint8_t *blob__at(const struct blob *b, vaddr_t a)
{
	return b->bytes + (a - b->base);
}

/* Where IN's byte at `a` lies in the copy; the relocation and symbol tables were checked on reading. */
uint8_t *split__copy_at(struct split *s, vaddr_t a)
{
	uint64_t offset;
	return elf_file__offset(s->in, a, 1, &offset) ? s->copy + offset : NULL;
}

size_t split__rela_entries(const struct split *s)
{
	const Elf64_Dyn *size = elf_file__dyn(s->in, DT_RELASZ);
	return size && elf_file__dyn(s->in, DT_RELA) ? size->d_un.d_val / sizeof(Elf64_Rela) : 0;
}

/* ---- changing IN's bytes ---- */

static void redirect_symbols(struct split *s)
{
	const Elf64_Dyn *symtab = elf_file__dyn(s->in, DT_SYMTAB);
	for (uint32_t i = 0; i < s->v.n_used; i++) {
		const struct vapi_slot *slot = &s->slots[i];
		if (!(slot->flags & VAPI_SLOT_EXPORT))
			continue;
		uint8_t *p = split__copy_at(s, symtab->d_un.d_ptr + slot->symbol * sizeof(Elf64_Sym));
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
			stub = split__ifunc_stub(s, (vaddr_t)ifunc->addend);
		if (r->kind == REF_ADDRESS && s->v.trampoline && r->target == s->v.trampoline)
			stub = s->v.text + ARCH_PAD_SIGRETURN;
		if (!stub)
			continue;
		int32_t disp = (int32_t)(stub - r->end);
		memcpy(split__copy_at(s, r->site), &disp, 4);
	}
}

/* Where the addend of a relocation lies in the copy. */
static uint8_t *addend_at(struct split *s, const struct elf_reloc *r)
{
	if (r->table == ELF_RELR)
		return split__copy_at(s, r->where);
	int64_t tag = r->table == ELF_RELA ? DT_RELA : DT_JMPREL;
	return split__copy_at(s, elf_file__dyn(s->in, tag)->d_un.d_ptr + r->index * sizeof(Elf64_Rela) +
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
		memcpy(split__copy_at(s, r->where), &stub, 8);
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

static vaddr_t moved_address(const struct split *s, vaddr_t a)
{
	for (size_t i = 0; i < s->moved.n; i++)
		if (s->moved.items[i].from == a)
			return s->moved.items[i].to;
	return a;
}

/* Of a library that says something when it is run as a program. */
static void redirect_entry(struct split *s, const struct canonicals *c)
{
	const vaddr_t entry = elf_file__entry(s->in);
	vaddr_t stub = entry ? canonicals__stub(c, &s->v, entry) : 0;
	if (stub)
		memcpy(s->copy + offsetof(Elf64_Ehdr, e_entry), &stub, sizeof(stub));
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
	if (count || split__rela_entries(s) == 0)
		ok = ok && set_dyn(&d, DT_RELACOUNT, relative + (count ? count->d_un.d_val : 0));
	if (ok)
		memcpy(split__copy_at(s, s->in->dyn_addr), d.dyn, (d.n + 1) * sizeof(Elf64_Dyn));
	free(d.dyn);
	return ok ? NULL : split__refuse(s, "no room in its dynamic section for more entries");
}

/* ---- all of it ---- */

static struct err *make(struct split *s, const struct split_options *opt, fde_list *fdes, uint8_t **out,
			size_t *out_size)
{
	TRY(fdes__read(s->in, fdes));
	TRY(split__make_slots(s, opt->like));
	TRY(split__make_room(s));
	TRY(split__lay_out(s, opt, fdes));
	struct canonicals c = canonicals__make(s);
	redirect_symbols(s);
	redirect_addresses_in_code(s, &c);
	redirect_relocations(s, &c);
	redirect_lazy_slots(s);
	redirect_entry(s, &c);
	vaddr_t next_init;
	struct err *err = edit_dynamic(s, &c, &next_init);
	free(c.items);
	if (err)
		return err;
	split__fill_text(s, next_init);
	split__fill_r(s, fdes);
	split__shift_notes(s);
	split__write_phdrs(s);
	split__assemble(s, out, out_size);
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

/* In a damaged file sections may lie over one another: then what was changed in one changed another. */
static struct err *check_output(const struct elf_file *in, const uint8_t *out, size_t size)
{
	ELF_CLEANUP struct elf_file *e = NULL;
	ERR_CLEANUP struct err *unreadable = elf_file__read_memory(out, size, in->path, &e);
	bool same = !unreadable && e->split && strcmp(e->soname, in->soname) == 0 && e->n_symbols == in->n_symbols &&
		    build_id__equal(e->build_id, e->build_id_len, in->build_id, in->build_id_len);
	for (size_t i = 0; same && i < in->n_symbols; i++)
		same = e->symbols[i].function == in->symbols[i].function &&
		       strcmp(e->symbols[i].name, in->symbols[i].name) == 0;
	return same ? NULL
		    : err__new(ERR_REFUSED, 0, in->path, NULL, "cannot be split: its parts lie over one another");
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
	if (!err && (err = check_output(in, *out, *out_size))) {
		free(*out);
		*out = NULL;
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
