/* Split: program headers, section headers, and the file that is put together from all parts. */
#include <string.h>

#include "image/split_parts.h"

/* ---- headers ---- */

static void add_phdr(Elf64_Phdr *list, size_t *n, const Elf64_Phdr *p)
{
	list[(*n)++] = *p;
}

void split__write_phdrs(struct split *s)
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

/* ---- the file ---- */

void split__assemble(struct split *s, uint8_t **out, size_t *out_size)
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
