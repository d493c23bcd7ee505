/* Call frame information, read and run (see cfi.h).
 *
 *     .eh_frame     CIE | FDE | FDE | ... | CIE | FDE ...   a length of 0 ends it
 *     CIE           what many functions have in common: alignments, encodings, first instructions
 *     FDE           one stretch of code: where it is, instructions that say how the rules change with the address
 *
 * A split library has a second section of this kind for its VAPI, so every section whose name ends so is read.
 */
#include "freeze/cfi.h"

#include <dwarf.h>
#include <gelf.h>
#include <stdlib.h>

#include "base/vec.h"
#include "freeze/cfi_read.h"

enum { SAVED_MAX = 16, SECTION_MAX = 256 << 20, FRAMES_MAX = 4 << 20 };

/* A section in memory. */
struct chunk {
	uint8_t *bytes;
	size_t len;
	vaddr_t at;
};

struct cie {
	const uint8_t *start; /* to know it by */
	struct bytes ops;
	uint64_t code_align;
	int64_t data_align;
	uint64_t return_register;
	uint8_t code_encoding, data_encoding; /* DW_EH_PE_* of addresses in FDEs */
	bool augmented, signal_frame;
};

struct fde {
	vaddr_t start, end;
	struct bytes ops;
	uint32_t cie; /* index */
	bool handles;
};

struct segment {
	uint64_t offset, len; /* in the file */
	vaddr_t at;
};

struct cfi {
	VEC(struct chunk) chunks;
	VEC(struct segment) code;
	VEC(struct cie) cies;
	VEC(struct fde) fdes; /* by start */
};

/* --- entries --- */

/* An encoded value; `at` is where `b->p` lies in the file's addresses. False: of a kind that is not known. */
static bool encoded(struct bytes *b, vaddr_t at, uint8_t encoding, uint64_t *raw, uint64_t *value)
{
	switch (encoding & 0x0f) {
	case DW_EH_PE_absptr:
	case DW_EH_PE_udata8:
	case DW_EH_PE_sdata8:
		*raw = bytes__fixed(b, 8);
		break;
	case DW_EH_PE_udata4:
		*raw = bytes__fixed(b, 4);
		break;
	case DW_EH_PE_sdata4:
		*raw = (uint64_t)(int32_t)bytes__fixed(b, 4);
		break;
	case DW_EH_PE_udata2:
		*raw = bytes__fixed(b, 2);
		break;
	case DW_EH_PE_sdata2:
		*raw = (uint64_t)(int16_t)bytes__fixed(b, 2);
		break;
	case DW_EH_PE_uleb128:
		*raw = bytes__uleb(b);
		break;
	case DW_EH_PE_sleb128:
		*raw = (uint64_t)bytes__sleb(b);
		break;
	default:
		return false;
	}
	*value = *raw + ((encoding & 0x70) == DW_EH_PE_pcrel ? at : 0);
	return !b->bad;
}

static vaddr_t address_of(const struct chunk *c, const uint8_t *p)
{
	return c->at + (vaddr_t)(p - c->bytes);
}

/* The letters behind 'z' say what is in the augmentation data. */
static bool read_augmentation(struct bytes *b, const char *letters, struct cie *out)
{
	uint64_t raw;
	uint64_t value;
	for (; *letters; letters++) {
		switch (*letters) {
		case 'R':
			out->code_encoding = (uint8_t)bytes__fixed(b, 1);
			break;
		case 'L':
			out->data_encoding = (uint8_t)bytes__fixed(b, 1);
			break;
		case 'P': {
			uint8_t encoding = (uint8_t)bytes__fixed(b, 1);
			if (!encoded(b, 0, encoding, &raw, &value))
				return false;
			break;
		}
		case 'S':
			out->signal_frame = true;
			break;
		default:
			return false;
		}
	}
	return !b->bad;
}

static bool read_cie(struct bytes b, const uint8_t *start, struct cie *out)
{
	*out = (struct cie){.start = start, .data_encoding = DW_EH_PE_omit};
	uint64_t version = bytes__fixed(&b, 1);
	const char *letters = (const char *)b.p;
	while (bytes__fixed(&b, 1))
		;
	if (b.bad || (version != 1 && version != 3) || (*letters && *letters != 'z'))
		return false;
	out->code_align = bytes__uleb(&b);
	out->data_align = bytes__sleb(&b);
	out->return_register = version == 1 ? bytes__fixed(&b, 1) : bytes__uleb(&b);
	if (*letters == 'z') {
		uint64_t len = bytes__uleb(&b);
		if (b.bad || len > (size_t)(b.end - b.p))
			return false;
		struct bytes augmentation = {b.p, b.p + len, false};
		if (!read_augmentation(&augmentation, letters + 1, out))
			return false;
		out->augmented = true;
		b.p += len;
	}
	out->ops = b;
	return !b.bad;
}

/* The CIE at `start`, which FDEs share; false when it makes no sense. */
static bool find_cie(struct cfi *c, const struct chunk *chunk, const uint8_t *start, uint32_t *out)
{
	for (size_t i = c->cies.n; i-- > 0;)
		if (c->cies.items[i].start == start) {
			*out = (uint32_t)i;
			return true;
		}
	struct cie cie;
	struct bytes b = {start, chunk->bytes + chunk->len, false};
	uint64_t len = bytes__fixed(&b, 4);
	if (b.bad || len < 4 || len > (size_t)(b.end - b.p))
		return false;
	b.end = b.p + len;
	if (bytes__fixed(&b, 4) != 0 || !read_cie(b, start, &cie))
		return false;
	*out = (uint32_t)c->cies.n;
	vec__push(&c->cies, cie);
	return true;
}

static void read_fde(struct cfi *c, const struct chunk *chunk, struct bytes b, const uint8_t *cie_start)
{
	struct fde f = {0};
	uint64_t raw = 0;
	uint64_t len = 0;
	if (!find_cie(c, chunk, cie_start, &f.cie))
		return;
	const struct cie *cie = &c->cies.items[f.cie];
	uint8_t encoding = cie->code_encoding;
	if ((encoding & 0x70) > DW_EH_PE_pcrel || (encoding & DW_EH_PE_indirect) ||
	    !encoded(&b, address_of(chunk, b.p), encoding, &raw, &f.start) ||
	    !encoded(&b, 0, encoding & 0x0f, &raw, &len))
		return;
	if (cie->augmented) {
		uint64_t n = bytes__uleb(&b);
		if (b.bad || n > (size_t)(b.end - b.p))
			return;
		struct bytes augmentation = {b.p, b.p + n, false};
		uint64_t value = 0;
		if (cie->data_encoding != DW_EH_PE_omit) {
			if (!encoded(&augmentation, 0, cie->data_encoding & 0x0f, &raw, &value))
				return;
			f.handles = raw != 0;
		}
		b.p += n;
	}
	f.end = f.start + len;
	f.ops = b;
	if (!b.bad && f.end > f.start && c->fdes.n < FRAMES_MAX)
		vec__push(&c->fdes, f);
}

static void read_entries(struct cfi *c, const struct chunk *chunk)
{
	struct bytes b = {chunk->bytes, chunk->bytes + chunk->len, false};
	for (;;) {
		uint64_t len = bytes__fixed(&b, 4); /* 0xffffffff (64-bit DWARF) is too long as well */
		if (b.bad || len < 4 || len > (size_t)(b.end - b.p))
			return;
		struct bytes entry = {b.p, b.p + len, false};
		b.p += len;
		const uint8_t *here = entry.p;
		uint64_t distance = bytes__fixed(&entry, 4);
		if (distance && distance <= (size_t)(here - chunk->bytes))
			read_fde(c, chunk, entry, here - distance);
	}
}

/* --- the file --- */

static int by_start(const void *a, const void *b)
{
	const struct fde *x = a;
	const struct fde *y = b;
	return (x->start > y->start) - (x->start < y->start);
}

static bool ends_in(const char *name, const char *end)
{
	size_t n = strlen(name);
	size_t m = strlen(end);
	return n >= m && strcmp(name + n - m, end) == 0;
}

static void add_chunk(struct cfi *c, const void *bytes, size_t len, vaddr_t at)
{
	if (!bytes || !len || len > SECTION_MAX)
		return;
	vec__push(&c->chunks, (struct chunk){xmemdup(bytes, len), len, at});
}

static void add_sections(struct cfi *c, Elf *elf)
{
	size_t names = 0;
	if (elf_getshdrstrndx(elf, &names) != 0)
		return;
	for (Elf_Scn *s = elf_nextscn(elf, NULL); s; s = elf_nextscn(elf, s)) {
		GElf_Shdr h;
		if (!gelf_getshdr(s, &h) || !(h.sh_flags & SHF_ALLOC) || h.sh_type == SHT_NOBITS ||
		    h.sh_size > SECTION_MAX)
			continue;
		const char *name = elf_strptr(elf, names, h.sh_name);
		Elf_Data *d = name && ends_in(name, "eh_frame") ? elf_rawdata(s, NULL) : NULL;
		if (d)
			add_chunk(c, d->d_buf, d->d_size, h.sh_addr);
	}
}

/* The segment that holds `at`: its bytes from there on. */
static void add_from(struct cfi *c, Elf *elf, size_t n, vaddr_t at)
{
	for (size_t i = 0; i < n; i++) {
		GElf_Phdr p;
		if (!gelf_getphdr(elf, (int)i, &p) || p.p_type != PT_LOAD || at < p.p_vaddr ||
		    at - p.p_vaddr >= p.p_filesz || p.p_filesz > SECTION_MAX)
			continue;
		uint64_t skip = at - p.p_vaddr;
		Elf_Data *d =
		    elf_getdata_rawchunk(elf, (int64_t)(p.p_offset + skip), (size_t)(p.p_filesz - skip), ELF_T_BYTE);
		if (d)
			add_chunk(c, d->d_buf, d->d_size, at);
		return;
	}
}

/* Files without section headers: .eh_frame_hdr says where .eh_frame is. */
static void add_by_header(struct cfi *c, Elf *elf, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		GElf_Phdr p;
		if (!gelf_getphdr(elf, (int)i, &p) || p.p_type != PT_GNU_EH_FRAME || p.p_filesz < 8)
			continue;
		Elf_Data *d = elf_getdata_rawchunk(elf, (int64_t)p.p_offset, 12, ELF_T_BYTE);
		if (!d || d->d_size < 12)
			return;
		const uint8_t *h = d->d_buf;
		struct bytes b = {h + 4, h + 12, false};
		uint64_t raw = 0;
		vaddr_t at = 0;
		if (h[0] == 1 && (h[1] & 0x70) == DW_EH_PE_pcrel && encoded(&b, p.p_vaddr + 4, h[1], &raw, &at))
			add_from(c, elf, n, at);
		return;
	}
}

static struct cfi *read_elf(Elf *elf)
{
	size_t n = 0;
	if (!elf || elf_kind(elf) != ELF_K_ELF || gelf_getclass(elf) != ELFCLASS64 || elf_getphdrnum(elf, &n) != 0)
		return NULL;
	struct cfi *c = xcalloc(1, sizeof(*c));
	for (size_t i = 0; i < n; i++) {
		GElf_Phdr p;
		if (gelf_getphdr(elf, (int)i, &p) && p.p_type == PT_LOAD && (p.p_flags & PF_X))
			vec__push(&c->code, (struct segment){p.p_offset, p.p_filesz, p.p_vaddr});
	}
	add_sections(c, elf);
	if (c->chunks.n == 0)
		add_by_header(c, elf, n);
	for (size_t i = 0; i < c->chunks.n; i++)
		read_entries(c, &c->chunks.items[i]);
	if (c->fdes.n)
		qsort(c->fdes.items, c->fdes.n, sizeof(c->fdes.items[0]), by_start);
	return c;
}

struct cfi *cfi__read(int fd)
{
	elf_version(EV_CURRENT);
	Elf *elf = elf_begin(fd, ELF_C_READ, NULL);
	struct cfi *c = read_elf(elf);
	elf_end(elf);
	return c;
}

struct cfi *cfi__read_memory(const void *bytes, size_t len)
{
	elf_version(EV_CURRENT);
	FREE_CLEANUP char *copy = xmemdup(bytes, len);
	Elf *elf = elf_memory(copy, len);
	struct cfi *c = read_elf(elf);
	elf_end(elf);
	return c;
}

void cfi__free(struct cfi *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->chunks.n; i++)
		free(c->chunks.items[i].bytes);
	vec__free(&c->chunks);
	vec__free(&c->code);
	vec__free(&c->cies);
	vec__free(&c->fdes);
	free(c);
}

bool cfi__address(const struct cfi *c, uint64_t offset, vaddr_t *out)
{
	for (size_t i = 0; i < c->code.n; i++) {
		const struct segment *s = &c->code.items[i];
		if (offset - s->offset < s->len) {
			*out = s->at + (offset - s->offset);
			return true;
		}
	}
	return false;
}

/* --- rows --- */

struct program {
	const struct cie *cie;
	struct cfi_row row, initial;
	struct cfi_row saved[SAVED_MAX];
	size_t n_saved;
	vaddr_t loc;
	bool bad;
};

static void set(struct program *m, uint64_t reg, struct cfi_rule rule)
{
	if (reg < ARCH_DWARF_REGS) /* vector registers and the like are of no use here */
		m->row.reg[reg] = rule;
}

static struct cfi_rule expression(struct program *m, struct bytes *b, enum cfi_kind kind)
{
	uint64_t len = bytes__uleb(b);
	struct cfi_rule r = {.kind = kind, .expr = b->p, .len = len};
	if (b->bad || len > (size_t)(b->end - b->p)) {
		m->bad = true;
		return (struct cfi_rule){0};
	}
	b->p += len;
	return r;
}

static void def_cfa(struct program *m, uint64_t reg, int64_t offset)
{
	m->bad = m->bad || reg >= ARCH_DWARF_REGS;
	m->row.cfa = (struct cfi_rule){.kind = CFI_REGISTER, .n = offset};
	m->row.cfa_register = (unsigned)reg;
}

/* Changes only one of the two; there must be two to begin with. */
static void change_cfa(struct program *m, uint64_t reg, int64_t offset)
{
	m->bad = m->bad || m->row.cfa.kind != CFI_REGISTER;
	def_cfa(m, reg, offset);
}

static void save(struct program *m)
{
	if (m->n_saved == SAVED_MAX)
		m->bad = true;
	else
		m->saved[m->n_saved++] = m->row;
}

static void restore_saved(struct program *m)
{
	if (m->n_saved == 0)
		m->bad = true;
	else
		m->row = m->saved[--m->n_saved];
}

static void restore(struct program *m, uint64_t reg)
{
	if (reg < ARCH_DWARF_REGS)
		m->row.reg[reg] = m->initial.reg[reg];
}

/* An operand, and one times the data alignment. Unsigned, so that nonsense only wraps around. */
static int64_t factored(const struct program *m, uint64_t n)
{
	return (int64_t)(n * (uint64_t)m->cie->data_align);
}

static bool about_the_cfa(struct program *m, struct bytes *b, uint8_t op)
{
	uint64_t reg;
	switch (op) {
	case DW_CFA_def_cfa:
		reg = bytes__uleb(b);
		def_cfa(m, reg, (int64_t)bytes__uleb(b));
		return true;
	case DW_CFA_def_cfa_sf:
		reg = bytes__uleb(b);
		def_cfa(m, reg, factored(m, (uint64_t)bytes__sleb(b)));
		return true;
	case DW_CFA_def_cfa_register:
		change_cfa(m, bytes__uleb(b), m->row.cfa.n);
		return true;
	case DW_CFA_def_cfa_offset:
		change_cfa(m, m->row.cfa_register, (int64_t)bytes__uleb(b));
		return true;
	case DW_CFA_def_cfa_offset_sf:
		change_cfa(m, m->row.cfa_register, factored(m, (uint64_t)bytes__sleb(b)));
		return true;
	case DW_CFA_def_cfa_expression:
		m->row.cfa = expression(m, b, CFI_VAL_EXPRESSION);
		return true;
	default:
		return false;
	}
}

static bool about_a_register(struct program *m, struct bytes *b, uint8_t op)
{
	switch (op) {
	case DW_CFA_offset_extended:
	case DW_CFA_offset_extended_sf:
	case DW_CFA_val_offset:
	case DW_CFA_val_offset_sf:
	case DW_CFA_undefined:
	case DW_CFA_same_value:
	case DW_CFA_restore_extended:
	case DW_CFA_register:
	case DW_CFA_expression:
	case DW_CFA_val_expression:
		break;
	default:
		return false;
	}
	uint64_t reg = bytes__uleb(b);
	struct cfi_rule r = {.kind = CFI_UNDEFINED};
	switch (op) {
	case DW_CFA_offset_extended:
		r = (struct cfi_rule){.kind = CFI_OFFSET, .n = factored(m, bytes__uleb(b))};
		break;
	case DW_CFA_offset_extended_sf:
		r = (struct cfi_rule){.kind = CFI_OFFSET, .n = factored(m, (uint64_t)bytes__sleb(b))};
		break;
	case DW_CFA_val_offset:
		r = (struct cfi_rule){.kind = CFI_VAL_OFFSET, .n = factored(m, bytes__uleb(b))};
		break;
	case DW_CFA_val_offset_sf:
		r = (struct cfi_rule){.kind = CFI_VAL_OFFSET, .n = factored(m, (uint64_t)bytes__sleb(b))};
		break;
	case DW_CFA_same_value:
		r.kind = CFI_SAME;
		break;
	case DW_CFA_register:
		r = (struct cfi_rule){.kind = CFI_REGISTER, .n = (int64_t)bytes__uleb(b)};
		break;
	case DW_CFA_expression:
		r = expression(m, b, CFI_EXPRESSION);
		break;
	case DW_CFA_val_expression:
		r = expression(m, b, CFI_VAL_EXPRESSION);
		break;
	case DW_CFA_restore_extended:
		restore(m, reg);
		return true;
	default:
		break;
	}
	set(m, reg, r);
	return true;
}

/* How far the address moves on, if `op` says so. */
static bool advance(const struct program *m, struct bytes *b, uint8_t op, uint64_t *by)
{
	uint64_t n;
	if ((op & 0xc0) == DW_CFA_advance_loc)
		n = op & 0x3f;
	else if (op == DW_CFA_advance_loc1)
		n = bytes__fixed(b, 1);
	else if (op == DW_CFA_advance_loc2)
		n = bytes__fixed(b, 2);
	else if (op == DW_CFA_advance_loc4)
		n = bytes__fixed(b, 4);
	else
		return false;
	*by = n * m->cie->code_align;
	return true;
}

/* Runs until the rules for `pc` are there, or to the end. */
static void run(struct program *m, struct bytes b, vaddr_t pc)
{
	while (!m->bad && b.p < b.end) {
		uint8_t op = (uint8_t)bytes__fixed(&b, 1);
		uint64_t by = 0;
		if (advance(m, &b, op, &by)) {
			if (b.bad || m->loc + by > pc)
				break;
			m->loc += by;
		} else if ((op & 0xc0) == DW_CFA_offset) {
			set(m, op & 0x3f, (struct cfi_rule){.kind = CFI_OFFSET, .n = factored(m, bytes__uleb(&b))});
		} else if ((op & 0xc0) == DW_CFA_restore) {
			restore(m, op & 0x3f);
		} else if (op == DW_CFA_remember_state) {
			save(m);
		} else if (op == DW_CFA_restore_state) {
			restore_saved(m);
		} else if (op == DW_CFA_GNU_args_size) {
			(void)bytes__uleb(&b);
		} else if (op != DW_CFA_nop && !about_the_cfa(m, &b, op) && !about_a_register(m, &b, op)) {
			m->bad = true;
		}
		m->bad = m->bad || b.bad;
	}
	m->bad = m->bad || b.bad;
}

static const struct fde *find(const struct cfi *c, vaddr_t pc)
{
	size_t lo = 0;
	size_t hi = c->fdes.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->fdes.items[mid].start <= pc)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == 0)
		return NULL;
	const struct fde *f = &c->fdes.items[lo - 1];
	/* two that start at one address: who knows which is meant */
	if (pc >= f->end || (lo > 1 && f[-1].start == f->start))
		return NULL;
	return f;
}

bool cfi__row(const struct cfi *c, vaddr_t pc, struct cfi_row *out)
{
	const struct fde *f = find(c, pc);
	if (!f)
		return false;
	const struct cie *cie = &c->cies.items[f->cie];
	if (cie->return_register != ARCH_DWARF_REGS - 1)
		return false;
	FREE_CLEANUP struct program *m = xcalloc(1, sizeof(*m));
	m->cie = cie;
	m->loc = f->start;
	run(m, cie->ops, UINT64_MAX);
	m->loc = f->start;
	m->initial = m->row;
	run(m, f->ops, pc);
	if (m->bad || m->row.cfa.kind == CFI_UNSPECIFIED)
		return false;
	*out = m->row;
	out->signal_frame = cie->signal_frame;
	out->handles = f->handles;
	return true;
}

static bool rule_equal(const struct cfi_rule *a, const struct cfi_rule *b)
{
	return a->kind == b->kind && a->n == b->n && a->len == b->len &&
	       (a->len == 0 || memcmp(a->expr, b->expr, a->len) == 0);
}

bool cfi_row__equal(const struct cfi_row *a, const struct cfi_row *b)
{
	if (!rule_equal(&a->cfa, &b->cfa) || a->cfa_register != b->cfa_register || a->signal_frame != b->signal_frame ||
	    a->handles != b->handles)
		return false;
	for (size_t i = 0; i < ARCH_DWARF_REGS; i++)
		if (!rule_equal(&a->reg[i], &b->reg[i]))
			return false;
	return true;
}
