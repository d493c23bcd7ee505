/* Reading an ELF shared library; see elf_file.h. libelf finds headers and sections; whatever they
 * say is checked against the file here before anybody uses it. */
#include "image/elf_file.h"

#include "image/elf_notes.h"

#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <nettle/sha2.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 30 }; /* no shared library is larger; bounds what a hostile path makes us read */

static struct err *bad(const struct elf_file *e, const char *why)
{
	return err__new(ERR_UNREADABLE, 0, e->path, NULL, "%s", why);
}

static struct err *unsupported(const struct elf_file *e, const char *why)
{
	return err__new(ERR_REFUSED, 0, e->path, NULL, "%s", why);
}

static bool in_file(const struct elf_file *e, uint64_t offset, uint64_t len)
{
	return offset <= e->size && len <= e->size - offset;
}

/* ---- headers ---- */

static struct err *check_ident(struct elf_file *e)
{
	if (e->size < EI_NIDENT || memcmp(e->data, ELFMAG, SELFMAG) != 0)
		return bad(e, "not an ELF file");
	if (e->data[EI_CLASS] == ELFCLASS32)
		return unsupported(e, "a 32-bit ELF file; only 64-bit libraries are supported");
	if (e->data[EI_CLASS] != ELFCLASS64 || e->data[EI_DATA] != ELFDATA2LSB || e->data[EI_VERSION] != EV_CURRENT)
		return bad(e, "not a 64-bit little-endian ELF file of version 1");
	if (e->size < sizeof(Elf64_Ehdr))
		return bad(e, "truncated: shorter than an ELF header");
	memcpy(&e->ehdr, e->data, sizeof(e->ehdr));
	if (e->ehdr.e_machine != EM_X86_64)
		return unsupported(e, "made for another machine; only x86-64 is supported");
	if (e->ehdr.e_type != ET_DYN && e->ehdr.e_type != ET_EXEC)
		return unsupported(e, "neither a shared object nor a program");
	return NULL;
}

static struct err *read_phdrs(struct elf_file *e, Elf *elf)
{
	if (elf_getphdrnum(elf, &e->n_phdrs) != 0 || e->n_phdrs == 0)
		return bad(e, "truncated or without program headers");
	if (e->ehdr.e_phentsize != sizeof(Elf64_Phdr) || e->n_phdrs > 256 ||
	    !in_file(e, e->ehdr.e_phoff, e->n_phdrs * sizeof(Elf64_Phdr)))
		return bad(e, "truncated: program headers do not lie in the file");
	e->phdrs = xcalloc(e->n_phdrs, sizeof(*e->phdrs));
	memcpy(e->phdrs, e->data + e->ehdr.e_phoff, e->n_phdrs * sizeof(Elf64_Phdr));
	uint64_t last_end = 0;
	for (size_t i = 0; i < e->n_phdrs; i++) {
		const Elf64_Phdr *p = &e->phdrs[i];
		if (p->p_type != PT_LOAD)
			continue;
		if (!in_file(e, p->p_offset, p->p_filesz))
			return bad(e, "truncated: a segment does not lie in the file");
		if (p->p_filesz > p->p_memsz || p->p_memsz > INT32_MAX || p->p_vaddr > INT32_MAX)
			return bad(e, "a segment has an impossible size");
		if (p->p_vaddr < last_end)
			return bad(e, "segments overlap or are out of order");
		if (((p->p_vaddr - p->p_offset) & (LLU_PAGE - 1)) != 0 && p->p_filesz)
			return bad(e, "a segment cannot be mapped: offset and address differ within a page");
		last_end = p->p_vaddr + p->p_memsz;
	}
	if (last_end == 0)
		return bad(e, "no loadable segment");
	return NULL;
}

static struct err *read_sections(struct elf_file *e, Elf *elf)
{
	size_t names;
	if (elf_getshdrnum(elf, &e->n_sections) != 0)
		return bad(e, elf_errmsg(-1));
	if (e->n_sections <= 1)
		return unsupported(e, "no section headers: they are needed to know code from constants and data");
	if (e->ehdr.e_shentsize != sizeof(Elf64_Shdr) ||
	    !in_file(e, e->ehdr.e_shoff, e->n_sections * sizeof(Elf64_Shdr)) || elf_getshdrstrndx(elf, &names) != 0 ||
	    names >= e->n_sections)
		return bad(e, "truncated: section headers do not lie in the file");
	e->sections = xcalloc(e->n_sections, sizeof(*e->sections));
	for (size_t i = 0; i < e->n_sections; i++) {
		struct elf_section *s = &e->sections[i];
		memcpy(&s->h, e->data + e->ehdr.e_shoff + i * sizeof(Elf64_Shdr), sizeof(Elf64_Shdr));
		s->name = "";
		if (i == 0)
			continue;
		if (s->h.sh_type != SHT_NOBITS) {
			if (!in_file(e, s->h.sh_offset, s->h.sh_size))
				return bad(e, "truncated: a section does not lie in the file");
			s->data = s->h.sh_size ? e->data + s->h.sh_offset : NULL;
		}
		if ((s->h.sh_flags & SHF_ALLOC) && (s->h.sh_addr > INT32_MAX || s->h.sh_size > INT32_MAX))
			return bad(e, "a section has an impossible address or size");
		const char *name = elf_strptr(elf, names, s->h.sh_name);
		if (!name)
			return bad(e, "a section has no readable name");
		s->name = name;
	}
	return NULL;
}

/* A section's contents must be what the segments put at its address, or the two views of the file
 * disagree and neither can be trusted. */
static struct err *check_sections_match_segments(const struct elf_file *e)
{
	for (size_t i = 1; i < e->n_sections; i++) {
		const struct elf_section *s = &e->sections[i];
		if (!(s->h.sh_flags & SHF_ALLOC) || s->h.sh_size == 0 || s->h.sh_type == SHT_NOBITS)
			continue;
		uint64_t offset;
		if (!elf_file__offset(e, s->h.sh_addr, s->h.sh_size, &offset) || offset != s->h.sh_offset)
			return bad(e, "section headers and program headers disagree");
	}
	return NULL;
}

/* ---- the dynamic section and what it leads to ---- */

static struct err *read_dynamic(struct elf_file *e)
{
	const struct elf_section *s = elf_file__section(e, ".dynamic");
	const Elf64_Phdr *p = NULL;
	for (size_t i = 0; i < e->n_phdrs; i++)
		if (e->phdrs[i].p_type == PT_DYNAMIC)
			p = &e->phdrs[i];
	if (!p)
		return unsupported(e, "no dynamic section: a static file cannot be split or updated");
	if (!s || !s->data || s->h.sh_addr != p->p_vaddr || s->h.sh_offset != p->p_offset || s->h.sh_addr % 8)
		return bad(e, "dynamic segment and dynamic section disagree");
	size_t room = s->h.sh_size / sizeof(Elf64_Dyn);
	e->dyn = xmemdup(s->data, room * sizeof(Elf64_Dyn));
	e->dyn_addr = s->h.sh_addr;
	while (e->n_dyn < room && e->dyn[e->n_dyn].d_tag != DT_NULL)
		e->n_dyn++;
	if (e->n_dyn == room)
		return bad(e, "the dynamic section has no end");
	e->dyn_room = room - e->n_dyn - 1;
	return NULL;
}

/* The section that a dynamic tag points to: same address, given type. */
static const struct elf_section *tagged_section(const struct elf_file *e, int64_t tag, uint32_t type)
{
	const Elf64_Dyn *d = elf_file__dyn(e, tag);
	if (!d)
		return NULL;
	for (size_t i = 1; i < e->n_sections; i++) {
		const struct elf_section *s = &e->sections[i];
		if (s->h.sh_type == type && s->h.sh_addr == d->d_un.d_ptr && (s->h.sh_flags & SHF_ALLOC))
			return s;
	}
	return NULL;
}

/* A string of .dynstr, or NULL when it does not end inside the section. */
static const char *dynstr(const struct elf_section *s, uint64_t offset)
{
	if (!s->data || offset >= s->h.sh_size || !memchr(s->data + offset, 0, s->h.sh_size - offset))
		return NULL;
	return (const char *)s->data + offset;
}

static struct err *read_names(struct elf_file *e, const struct elf_section *strings)
{
	e->soname = "";
	bool interp = false;
	for (size_t i = 0; i < e->n_phdrs; i++)
		interp = interp || e->phdrs[i].p_type == PT_INTERP;
	for (size_t i = 0; i < e->n_dyn; i++) {
		if (e->dyn[i].d_tag != DT_NEEDED && e->dyn[i].d_tag != DT_SONAME)
			continue;
		const char *name = dynstr(strings, e->dyn[i].d_un.d_val);
		if (!name)
			return bad(e, "a name in the dynamic section lies outside the string table");
		if (e->dyn[i].d_tag == DT_SONAME)
			e->soname = name;
		else
			vec__push(&e->needed, name);
	}
	const Elf64_Dyn *flags_1 = elf_file__dyn(e, DT_FLAGS_1);
	e->program = e->ehdr.e_type == ET_EXEC || (flags_1 && (flags_1->d_un.d_val & DF_1_PIE)) ||
		     (interp && !*e->soname); /* libc.so.6 names an interpreter too */
	return NULL;
}

/* Version names by index, from .gnu.version_d and .gnu.version_r (LSB core, "Symbol Versioning"). */
struct versions {
	const char *name[0x8000];
};

static struct err *read_verdefs(const struct elf_file *e, const struct elf_section *strings, struct versions *v)
{
	const struct elf_section *s = tagged_section(e, DT_VERDEF, SHT_GNU_verdef);
	if (!elf_file__dyn(e, DT_VERDEF))
		return NULL;
	if (!s)
		return bad(e, "version definitions lie outside their section");
	uint64_t at = 0;
	for (;;) {
		Elf64_Verdef d;
		Elf64_Verdaux a;
		if (at > s->h.sh_size || s->h.sh_size - at < sizeof(d))
			return bad(e, "version definitions run out of their section");
		memcpy(&d, s->data + at, sizeof(d));
		if (d.vd_aux > s->h.sh_size - at || s->h.sh_size - at - d.vd_aux < sizeof(a))
			return bad(e, "version definitions run out of their section");
		memcpy(&a, s->data + at + d.vd_aux, sizeof(a));
		const char *name = dynstr(strings, a.vda_name);
		if (!name)
			return bad(e, "a version has no readable name");
		v->name[d.vd_ndx & 0x7fff] = name;
		if (d.vd_next == 0)
			return NULL;
		at += d.vd_next; /* grows each time, so this ends */
	}
}

static struct err *read_verneeds(const struct elf_file *e, const struct elf_section *strings, struct versions *v)
{
	const struct elf_section *s = tagged_section(e, DT_VERNEED, SHT_GNU_verneed);
	if (!elf_file__dyn(e, DT_VERNEED))
		return NULL;
	if (!s)
		return bad(e, "version needs lie outside their section");
	uint64_t at = 0;
	for (;;) {
		Elf64_Verneed n;
		if (at > s->h.sh_size || s->h.sh_size - at < sizeof(n))
			return bad(e, "version needs run out of their section");
		memcpy(&n, s->data + at, sizeof(n));
		uint64_t aux = at + n.vn_aux;
		for (unsigned i = 0; i < n.vn_cnt; i++) {
			Elf64_Vernaux a;
			if (aux > s->h.sh_size || s->h.sh_size - aux < sizeof(a))
				return bad(e, "version needs run out of their section");
			memcpy(&a, s->data + aux, sizeof(a));
			const char *name = dynstr(strings, a.vna_name);
			if (!name)
				return bad(e, "a version has no readable name");
			v->name[a.vna_other & 0x7fff] = name;
			if (a.vna_next == 0)
				break;
			aux += a.vna_next;
		}
		if (n.vn_next == 0)
			return NULL;
		at += n.vn_next;
	}
}

static struct err *read_symbols(struct elf_file *e)
{
	const struct elf_section *symtab = tagged_section(e, DT_SYMTAB, SHT_DYNSYM);
	const struct elf_section *strings = tagged_section(e, DT_STRTAB, SHT_STRTAB);
	if (!symtab || !strings || symtab->h.sh_entsize != sizeof(Elf64_Sym))
		return bad(e, "dynamic section and section headers disagree about the symbol table");
	TRY(read_names(e, strings));
	FREE_CLEANUP struct versions *versions = xcalloc(1, sizeof(*versions));
	TRY(read_verdefs(e, strings, versions));
	TRY(read_verneeds(e, strings, versions));
	const struct elf_section *versym = tagged_section(e, DT_VERSYM, SHT_GNU_versym);
	if (elf_file__dyn(e, DT_VERSYM) && !versym)
		return bad(e, "dynamic section and section headers disagree about symbol versions");

	e->n_symbols = symtab->h.sh_size / sizeof(Elf64_Sym);
	if (versym && versym->h.sh_size / 2 < e->n_symbols)
		return bad(e, "fewer symbol versions than symbols");
	e->symbols = xcalloc(e->n_symbols, sizeof(*e->symbols));
	for (size_t i = 0; i < e->n_symbols; i++) {
		struct elf_symbol *s = &e->symbols[i];
		memcpy(&s->s, symtab->data + i * sizeof(Elf64_Sym), sizeof(Elf64_Sym));
		s->name = dynstr(strings, s->s.st_name);
		if (!s->name)
			return bad(e, "a symbol has no readable name");
		s->version = "";
		if (versym) {
			uint16_t ndx;
			memcpy(&ndx, versym->data + 2 * i, 2);
			s->hidden_version = (ndx & 0x8000) != 0;
			ndx &= 0x7fff;
			if (ndx > VER_NDX_GLOBAL && !(s->version = versions->name[ndx]))
				return bad(e, "a symbol has a version that is not defined");
		}
		s->function = s->s.st_value;
	}
	return NULL;
}

static void add_reloc(struct elf_file *e, const Elf64_Rela *r, enum elf_reloc_table table, size_t index)
{
	vec__push(&e->relocs, (struct elf_reloc){
				  .where = r->r_offset,
				  .type = (uint32_t)ELF64_R_TYPE(r->r_info),
				  .symbol = (uint32_t)ELF64_R_SYM(r->r_info),
				  .addend = r->r_addend,
				  .table = table,
				  .index = (uint32_t)index,
			      });
}

/* The bytes [addr, addr + size) named by two dynamic tags. */
static struct err *tagged_table(const struct elf_file *e, int64_t tag, int64_t size_tag, const uint8_t **data,
				size_t *size)
{
	const Elf64_Dyn *d = elf_file__dyn(e, tag), *s = elf_file__dyn(e, size_tag);
	*data = NULL;
	*size = 0;
	if (!d || !s || s->d_un.d_val == 0)
		return NULL;
	*size = s->d_un.d_val;
	*data = elf_file__at(e, d->d_un.d_ptr, *size);
	return *data ? NULL : bad(e, "a relocation table does not lie in the file");
}

static struct err *read_rela(struct elf_file *e, int64_t tag, int64_t size_tag, enum elf_reloc_table table)
{
	const uint8_t *data;
	size_t size;
	TRY(tagged_table(e, tag, size_tag, &data, &size));
	for (size_t i = 0; i < size / sizeof(Elf64_Rela); i++) {
		Elf64_Rela r;
		memcpy(&r, data + i * sizeof(r), sizeof(r));
		if (ELF64_R_SYM(r.r_info) >= e->n_symbols)
			return bad(e, "a relocation refers to a symbol that is not there");
		if (ELF64_R_TYPE(r.r_info) == R_X86_64_NONE)
			continue;
		if (e->split && r.r_offset >= e->vapi.table && r.r_offset < e->vapi.table + e->vapi.table_len)
			continue; /* a slot of the VAPI: said by the slots */
		const Elf64_Phdr *p = elf_file__segment(e, r.r_offset);
		if (!p || p->p_vaddr + p->p_memsz - r.r_offset < 8)
			return bad(e, "a relocation lies outside the library");
		add_reloc(e, &r, table, i);
	}
	return NULL;
}

/* Packed relative relocations: an even word is an address, an odd one a bitmap of the 63 words
 * behind the last (gABI proposal "RELR relative relocation format"; glibc 2.36 elf/dynamic-link.h). */
static struct err *read_relr(struct elf_file *e)
{
	const uint8_t *data;
	size_t size;
	TRY(tagged_table(e, DT_RELR, DT_RELRSZ, &data, &size));
	uint64_t next = 0;
	for (size_t i = 0; i < size / 8; i++) {
		uint64_t word;
		memcpy(&word, data + 8 * i, 8);
		uint64_t bits = word & 1 ? word >> 1 : 1;
		uint64_t at = word & 1 ? next : word;
		for (; bits; bits >>= 1, at += 8) {
			if (!(bits & 1))
				continue;
			const uint8_t *in_place = elf_file__at(e, at, 8);
			if (!in_place)
				return bad(e, "a packed relocation lies outside the library");
			Elf64_Rela r = {.r_offset = at, .r_info = ELF64_R_INFO(0, R_X86_64_RELATIVE)};
			memcpy(&r.r_addend, in_place, 8);
			add_reloc(e, &r, ELF_RELR, i);
		}
		next = word & 1 ? next + 63UL * 8 : word + 8;
	}
	return NULL;
}

static int by_where(const void *a, const void *b)
{
	const struct elf_reloc *x = a, *y = b;
	return (x->where > y->where) - (x->where < y->where);
}

static struct err *read_relocs(struct elf_file *e)
{
	if (elf_file__dyn(e, DT_REL))
		return unsupported(e, "relocations without addends (DT_REL)");
	if (elf_file__dyn(e, DT_TEXTREL))
		return unsupported(e, "text relocations: code that the dynamic loader changes cannot be shared");
	const Elf64_Dyn *flags = elf_file__dyn(e, DT_FLAGS);
	if (flags && (flags->d_un.d_val & DF_TEXTREL))
		return unsupported(e, "text relocations: code that the dynamic loader changes cannot be shared");
	TRY(read_rela(e, DT_RELA, DT_RELASZ, ELF_RELA));
	TRY(read_relr(e));
	TRY(read_rela(e, DT_JMPREL, DT_PLTRELSZ, ELF_JMPREL));
	if (e->relocs.n)
		qsort(e->relocs.items, e->relocs.n, sizeof(e->relocs.items[0]), by_where);
	for (size_t i = 0; i < e->relocs.n; i++) {
		const struct elf_reloc *r = &e->relocs.items[i];
		if (!elf_file__is_data(e, r->where))
			return unsupported(e,
					   "text relocations: code that the dynamic loader changes cannot be shared");
		if (i > 0 && r->where - r[-1].where < 8 &&
		    !(r->type == R_X86_64_DTPMOD64 || r[-1].type == R_X86_64_DTPMOD64))
			return bad(e, "relocations overlap");
		/* lazy binding starts from what the file holds there */
		if (r->type == R_X86_64_JUMP_SLOT && !elf_file__at(e, r->where, 8))
			return bad(e, "a jump slot has no contents in the file");
	}
	return NULL;
}

static struct err *read_locals(struct elf_file *e)
{
	for (size_t i = 1; i < e->n_sections; i++) {
		const struct elf_section *s = &e->sections[i];
		if (s->h.sh_type != SHT_SYMTAB || s->h.sh_entsize != sizeof(Elf64_Sym) || !s->data)
			continue;
		if (s->h.sh_link >= e->n_sections)
			return bad(e, "the symbol table has no string table");
		const struct elf_section *strings = &e->sections[s->h.sh_link];
		for (size_t k = 1; k < s->h.sh_size / sizeof(Elf64_Sym); k++) {
			Elf64_Sym sym;
			memcpy(&sym, s->data + k * sizeof(sym), sizeof(sym));
			uint8_t type = ELF64_ST_TYPE(sym.st_info);
			const char *name = dynstr(strings, sym.st_name);
			if (!name || sym.st_shndx == SHN_UNDEF || sym.st_shndx >= SHN_LORESERVE || !*name)
				continue;
			if (type != STT_FUNC && type != STT_OBJECT && type != STT_GNU_IFUNC)
				continue;
			struct elf_local l = {name, elf_file__behind_stub(e, sym.st_value), sym.st_size, type,
					      ELF64_ST_BIND(sym.st_info)};
			vec__push(&e->locals, l);
		}
	}
	return NULL;
}

/* ---- a split library ---- */

/* A split library's exports point to stubs; remember the functions behind them. */
static struct err *look_behind_stubs(struct elf_file *e)
{
	for (uint32_t i = 0; e->split && i < e->vapi.n_slots; i++)
		if (e->slots[i].symbol >= e->n_symbols && (e->slots[i].flags & VAPI_SLOT_EXPORT))
			return bad(e, "a slot of the VAPI is for a symbol that does not exist");
	for (size_t i = 0; i < e->n_symbols; i++)
		e->symbols[i].function = elf_file__behind_stub(e, e->symbols[i].s.st_value);
	return NULL;
}

/* ---- opening ---- */

static struct err *parse(struct elf_file *e)
{
	TRY(check_ident(e));
	elf_version(EV_CURRENT);
	Elf *elf = elf_memory((char *)e->data, e->size);
	if (!elf)
		return bad(e, elf_errmsg(-1));
	struct err *err = read_phdrs(e, elf);
	if (!err)
		err = read_sections(e, elf);
	elf_end(elf);
	if (err)
		return err;
	TRY(check_sections_match_segments(e));
	TRY(read_dynamic(e));
	TRY(elf_notes__read(e));
	TRY(read_symbols(e));
	TRY(look_behind_stubs(e));
	TRY(read_relocs(e));
	return read_locals(e);
}

/* Made when first asked for; copies have their origin's. */
struct elf_digest {
	bool known;
	uint8_t bytes[ELF_DIGEST_LEN];
};

/* Takes over `data`, a mapping if `apart`. */
static struct err *from_bytes(uint8_t *data, size_t size, bool apart, const char *path, struct elf_file **out)
{
	struct elf_file *e = xcalloc(1, sizeof(*e));
	e->path = xstrdup(path);
	e->data = data;
	e->size = size;
	e->apart = apart;
	e->digest = xcalloc(1, sizeof(*e->digest));
	struct err *err = parse(e);
	if (err) {
		elf_file__free(e);
		return err;
	}
	*out = e;
	return NULL;
}

struct err *elf_file__read_memory(const void *data, size_t size, const char *path, struct elf_file **out)
{
	return from_bytes(xmemdup(data, size), size, false, path, out);
}

static struct err *check_size(int fd, const char *path, size_t *size)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return err__new(ERR_UNREADABLE, errno, path, NULL, "cannot look at the file");
	if (!S_ISREG(st.st_mode))
		return err__new(ERR_UNREADABLE, 0, path, NULL, "not a regular file");
	if (st.st_size > FILE_MAX)
		return err__new(ERR_REFUSED, 0, path, NULL, "larger than 1 GiB");
	*size = (size_t)st.st_size;
	return NULL;
}

static struct err *read_all(int fd, const char *path, uint8_t *data, size_t size)
{
	for (size_t have = 0; have < size;) {
		ssize_t n = pread(fd, data + have, size - have, (off_t)have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err__new(ERR_UNREADABLE, n < 0 ? errno : 0, path, NULL, "cannot read the file");
		have += (size_t)n;
	}
	return NULL;
}

struct err *elf_file__read_fd(int fd, const char *path, struct elf_file **out)
{
	size_t size = 0;
	TRY(check_size(fd, path, &size));
	uint8_t *data = xmalloc(size);
	struct err *e = read_all(fd, path, data, size);
	if (!e)
		return from_bytes(data, size, false, path, out);
	free(data);
	return e;
}

/* Of a shared mapping fork(2) copies no page table (mm/memory.c, vma_needs_copy). */
struct err *elf_file__read_apart(int fd, const char *path, struct elf_file **out)
{
	size_t size = 0;
	TRY(check_size(fd, path, &size));
	uint8_t *data = size ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
	if (data == MAP_FAILED)
		return elf_file__read_fd(fd, path, out);
	struct err *e = read_all(fd, path, data, size);
	if (!e && mprotect(data, size, PROT_READ) == 0)
		return from_bytes(data, size, true, path, out);
	munmap(data, size);
	return e ? e : elf_file__read_fd(fd, path, out);
}

struct err *elf_file__read(const char *path, struct elf_file **out)
{
	CLOSE_CLEANUP int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err__new(ERR_UNREADABLE, errno, path, NULL, "cannot open the file");
	return elf_file__read_fd(fd, path, out);
}

struct elf_file *elf_file__copy(struct elf_file *origin, const char *path)
{
	struct elf_file *e = xmemdup(origin, sizeof(*e));
	e->path = xstrdup(path);
	e->plain = NULL;
	e->origin = origin;
	e->copies = 0;
	origin->copies++;
	return e;
}

const uint8_t *elf_file__digest(const struct elf_file *e)
{
	struct sha256_ctx h;
	if (!e->digest->known) {
		sha256_init(&h);
		sha256_update(&h, e->size, e->data);
		sha256_digest(&h, sizeof(e->digest->bytes), e->digest->bytes);
		e->digest->known = true;
	}
	return e->digest->bytes;
}

static void free_contents(struct elf_file *e)
{
	if (e->apart)
		munmap(e->data, e->size);
	else
		free(e->data);
	free(e->digest);
	free(e->phdrs);
	free(e->sections);
	free(e->symbols);
	free(e->dyn);
	vec__free(&e->locals);
	vec__free(&e->relocs);
	vec__free(&e->needed);
}

void elf_file__free(struct elf_file *e)
{
	if (!e)
		return;
	if (e->copies) {
		e->copies--;
		return;
	}
	elf_file__free(e->plain);
	free(e->path);
	if (e->origin)
		elf_file__free(e->origin);
	else
		free_contents(e);
	free(e);
}

void elf_file__cleanup(struct elf_file **e)
{
	elf_file__free(*e);
}

/* ---- questions ---- */

bool elf_file__offset(const struct elf_file *e, vaddr_t a, size_t len, uint64_t *offset)
{
	for (size_t i = 0; i < e->n_phdrs; i++) {
		const Elf64_Phdr *p = &e->phdrs[i];
		if (p->p_type == PT_LOAD && a >= p->p_vaddr && a - p->p_vaddr <= p->p_filesz &&
		    len <= p->p_filesz - (a - p->p_vaddr) && p->p_filesz) {
			*offset = p->p_offset + (a - p->p_vaddr);
			return true;
		}
	}
	return false;
}

const uint8_t *elf_file__at(const struct elf_file *e, vaddr_t a, size_t len)
{
	uint64_t offset;
	return elf_file__offset(e, a, len, &offset) ? e->data + offset : NULL;
}

const Elf64_Dyn *elf_file__dyn(const struct elf_file *e, int64_t tag)
{
	for (size_t i = 0; i < e->n_dyn; i++)
		if (e->dyn[i].d_tag == tag)
			return &e->dyn[i];
	return NULL;
}

const Elf64_Phdr *elf_file__segment(const struct elf_file *e, vaddr_t a)
{
	if (e->split && a >= e->vapi.end)
		return NULL;
	for (size_t i = 0; i < e->n_phdrs; i++) {
		const Elf64_Phdr *p = &e->phdrs[i];
		if (p->p_type == PT_LOAD && a >= p->p_vaddr && a - p->p_vaddr < p->p_memsz)
			return p;
	}
	return NULL;
}

bool elf_file__is_code(const struct elf_file *e, vaddr_t a)
{
	const Elf64_Phdr *p = elf_file__segment(e, a);
	if (!p || !(p->p_flags & PF_X))
		return false;
	const struct elf_section *s = elf_file__section_at(e, a);
	return s && (s->h.sh_flags & SHF_EXECINSTR);
}

bool elf_file__is_data(const struct elf_file *e, vaddr_t a)
{
	const Elf64_Phdr *p = elf_file__segment(e, a);
	return p && (p->p_flags & PF_W);
}

const struct elf_section *elf_file__section_at(const struct elf_file *e, vaddr_t a)
{
	for (size_t i = 1; i < e->n_sections; i++) {
		const struct elf_section *s = &e->sections[i];
		bool tbss = (s->h.sh_flags & SHF_TLS) && s->h.sh_type == SHT_NOBITS;
		if ((s->h.sh_flags & SHF_ALLOC) && !tbss && a >= s->h.sh_addr && a - s->h.sh_addr < s->h.sh_size)
			return s;
	}
	return NULL;
}

const struct elf_section *elf_file__section(const struct elf_file *e, const char *name)
{
	for (size_t i = 1; i < e->n_sections; i++)
		if (strcmp(e->sections[i].name, name) == 0)
			return &e->sections[i];
	return NULL;
}

vaddr_t elf_file__end(const struct elf_file *e)
{
	if (e->split)
		return e->vapi.end;
	vaddr_t end = 0;
	for (size_t i = 0; i < e->n_phdrs; i++)
		if (e->phdrs[i].p_type == PT_LOAD && e->phdrs[i].p_vaddr + e->phdrs[i].p_memsz > end)
			end = e->phdrs[i].p_vaddr + e->phdrs[i].p_memsz;
	return align_up(end, LLU_PAGE);
}

vaddr_t elf_file__canonical(const struct elf_file *vapi, uint32_t slot)
{
	bool spare = slot >= vapi->vapi.n_used || (vapi->slots[slot].flags & VAPI_SLOT_SPARE);
	return vapi->plain && !spare ? vapi->slots[slot].function : vapi__stub(&vapi->vapi, slot);
}

vaddr_t elf_file__behind_stub(const struct elf_file *e, vaddr_t a)
{
	if (!e->split || !e->slots)
		return a;
	const struct vapi_note *v = &e->vapi;
	if (a >= v->ifunc_returns && a < v->text_end) {
		/* endbr64; lea stub(%rip),%rax; ret */
		const uint8_t *code = elf_file__at(e, align_down(a, ARCH_STUB_SIZE), ARCH_STUB_SIZE);
		int32_t disp;
		if (!code)
			return a;
		memcpy(&disp, code + 7, 4);
		a = align_down(a, ARCH_STUB_SIZE) + 11 + (vaddr_t)(int64_t)disp;
	}
	if (a == v->text + ARCH_PAD_SIGRETURN && v->trampoline)
		return v->trampoline;
	const struct vapi_slot *slot = elf_file__slot_at(e, a);
	return slot ? slot->function : a;
}

vaddr_t elf_file__entry(const struct elf_file *e)
{
	for (size_t i = 0; i < e->n_phdrs; i++)
		if (e->phdrs[i].p_type == PT_INTERP)
			return elf_file__behind_stub(e, e->ehdr.e_entry);
	return 0;
}

const struct vapi_slot *elf_file__slot_at(const struct elf_file *e, vaddr_t a)
{
	const struct vapi_note *v = &e->vapi;
	if (!e->split || !e->slots || a < v->stubs || a >= v->stubs + (uint64_t)v->n_slots * ARCH_STUB_SIZE ||
	    (a - v->stubs) % ARCH_STUB_SIZE)
		return NULL;
	return &e->slots[(a - v->stubs) / ARCH_STUB_SIZE];
}

const struct elf_reloc *elf_file__reloc_at(const struct elf_file *e, vaddr_t where)
{
	struct elf_reloc key = {.where = where};
	return e->relocs.n ? bsearch(&key, e->relocs.items, e->relocs.n, sizeof(key), by_where) : NULL;
}

bool elf_file__binds_now(const struct elf_file *e)
{
	const Elf64_Dyn *flags = elf_file__dyn(e, DT_FLAGS), *flags_1 = elf_file__dyn(e, DT_FLAGS_1);
	return elf_file__dyn(e, DT_BIND_NOW) || (flags && (flags->d_un.d_val & DF_BIND_NOW)) ||
	       (flags_1 && (flags_1->d_un.d_val & DF_1_NOW));
}
