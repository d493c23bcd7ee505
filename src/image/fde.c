/* Unwind entries of a library's own .eh_frame (LSB core, "Exception Frames"; DWARF 4, 6.4.1).
 * libdw walks the entries; pointers are decoded here, because libdw keeps that to itself. */
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <string.h>

#include "image/code.h"

enum { PE_MASK = 0x0f, PE_APPLICATION = 0x70 };

struct reader {
	const struct elf_file *elf;
	const struct elf_section *section;
};

static struct err *bad(const struct reader *r, const char *why)
{
	return err__new(ERR_UNREADABLE, 0, r->elf->path, NULL, "unwind table: %s", why);
}

/* Reads an encoded pointer at *p (up to `end`); *p moves behind it. A null pointer stays null
 * whatever its base. False: out of bounds, or an encoding that shared libraries do not use. */
static bool read_encoded(const struct reader *r, uint8_t enc, const uint8_t **p, const uint8_t *end, bool no_base,
			 vaddr_t *out)
{
	static const uint8_t sizes[16] = {
	    [DW_EH_PE_absptr] = 8, [DW_EH_PE_udata4] = 4, [DW_EH_PE_udata8] = 8, [DW_EH_PE_sdata4] = 4,
	    [DW_EH_PE_sdata8] = 8, [DW_EH_PE_udata2] = 2, [DW_EH_PE_sdata2] = 2,
	};
	size_t size = sizes[enc & PE_MASK];
	if (size == 0 || (size_t)(end - *p) < size)
		return false;
	uint64_t v = 0;
	memcpy(&v, *p, size);
	if ((enc & PE_MASK) == DW_EH_PE_sdata4)
		v = (uint64_t)(int64_t)(int32_t)v;
	if ((enc & PE_MASK) == DW_EH_PE_sdata2)
		v = (uint64_t)(int64_t)(int16_t)v;
	vaddr_t here = r->section->h.sh_addr + (vaddr_t)(*p - r->section->data);
	*p += size;
	if (!no_base && v != 0) {
		if ((enc & PE_APPLICATION) == DW_EH_PE_pcrel)
			v += here;
		else if ((enc & PE_APPLICATION) != DW_EH_PE_absptr)
			return false;
	}
	*out = v;
	return true;
}

struct cie {
	uint8_t fde_enc, lsda_enc;
	bool has_augmentation, signal_frame;
	vaddr_t personality_at;
	uint8_t personality_enc;
	uint64_t rules;
};

/* Instructions, but for the DW_CFA_nop that fill them up. */
static uint64_t hash_rules(uint64_t h, const uint8_t *p, const uint8_t *end)
{
	while (end > p && end[-1] == DW_CFA_nop)
		end--;
	uint64_t n = (uint64_t)(end - p);
	return hash__bytes(hash__bytes(h, &n, sizeof(n)), p, n);
}

static uint64_t rules_of_cie(const Dwarf_CIE *c)
{
	const uint64_t units[] = {c->code_alignment_factor, (uint64_t)c->data_alignment_factor,
				  c->return_address_register};
	return hash_rules(hash__bytes(HASH_START, units, sizeof(units)), c->initial_instructions,
			  c->initial_instructions_end);
}

static struct err *read_cie(const struct reader *r, const Dwarf_CIE *c, struct cie *out)
{
	*out = (struct cie){.fde_enc = DW_EH_PE_absptr, .lsda_enc = DW_EH_PE_omit, .rules = rules_of_cie(c)};
	const char *a = c->augmentation;
	if (!a || *a == 0)
		return NULL;
	if (*a != 'z')
		return bad(r, "an augmentation that is not known");
	out->has_augmentation = true;
	const uint8_t *p = c->augmentation_data, *end = p + c->augmentation_data_size;
	for (a++; *a; a++) {
		vaddr_t personality;
		switch (*a) {
		case 'R':
			if (p == end)
				return bad(r, "a truncated entry");
			out->fde_enc = *p++;
			break;
		case 'L':
			if (p == end)
				return bad(r, "a truncated entry");
			out->lsda_enc = *p++;
			break;
		case 'P':
			if (p == end)
				return bad(r, "a truncated entry");
			out->personality_enc = *p++;
			out->personality_at = r->section->h.sh_addr + (vaddr_t)(p - r->section->data);
			if (!read_encoded(r, out->personality_enc & (uint8_t)~DW_EH_PE_indirect, &p, end, false,
					  &personality))
				return bad(r, "a pointer encoding that is not known");
			break;
		case 'S':
			out->signal_frame = true;
			break;
		case 'B':
			break; /* AArch64 pointer authentication; harmless */
		default:
			return bad(r, "an augmentation that is not known");
		}
	}
	return NULL;
}

/* libdw hands out pointers into the section's own bytes, so lengths are checked against it. */
static struct err *read_fde(const struct reader *r, const Dwarf_FDE *f, const struct cie *cie, vaddr_t at,
			    fde_list *out)
{
	const uint8_t *p = f->start, *end = f->end;
	struct fde x = {
	    .at = at,
	    .signal_frame = cie->signal_frame,
	    .personality_at = cie->personality_at,
	    .personality_enc = cie->personality_enc,
	};
	vaddr_t len;
	if (!read_encoded(r, cie->fde_enc, &p, end, false, &x.start) ||
	    !read_encoded(r, cie->fde_enc & PE_MASK, &p, end, true, &len))
		return bad(r, "a pointer encoding that is not known");
	if (cie->has_augmentation) {
		uint64_t n = 0;
		for (int shift = 0;; shift += 7) {
			if (p == end || shift > 28)
				return bad(r, "a truncated entry");
			n |= (uint64_t)(*p & 0x7f) << shift;
			if (!(*p++ & 0x80))
				break;
		}
		if (n > (size_t)(end - p))
			return bad(r, "a truncated entry");
		const uint8_t *lsda = p;
		p += n;
		if (cie->lsda_enc != DW_EH_PE_omit && n != 0 &&
		    !read_encoded(r, cie->lsda_enc, &lsda, p, false, &x.lsda))
			return bad(r, "a pointer encoding that is not known");
	}
	x.rules = hash_rules(cie->rules, p, end);
	if (len == 0 || x.start == 0)
		return NULL; /* the linker leaves such entries for discarded functions */
	x.end = x.start + len;
	const Elf64_Phdr *seg = elf_file__segment(r->elf, x.start);
	if (!seg || !(seg->p_flags & PF_X) || len > seg->p_vaddr + seg->p_filesz - x.start)
		return bad(r, "an entry for what is no code");
	vec__push(out, x);
	return NULL;
}

static int by_start(const void *a, const void *b)
{
	const struct fde *x = a, *y = b;
	return (x->start > y->start) - (x->start < y->start);
}

struct err *fdes__read(const struct elf_file *elf, fde_list *out)
{
	struct reader r = {elf, elf_file__section(elf, ".eh_frame")};
	if (!r.section || !r.section->data)
		return NULL;
	Elf_Data data = {.d_buf = (void *)r.section->data, .d_size = r.section->h.sh_size, .d_version = EV_CURRENT};
	struct err *err = NULL;
	VEC(struct cie) cies = {0};
	VEC(Dwarf_Off) cie_at = {0};
	Dwarf_Off offset = 0, next;
	Dwarf_CFI_Entry entry;
	int got;
	while (!err && (got = dwarf_next_cfi(elf->data, &data, true, offset, &next, &entry)) == 0) {
		if (dwarf_cfi_cie_p(&entry)) {
			struct cie c;
			err = read_cie(&r, &entry.cie, &c);
			if (!err) {
				vec__push(&cies, c);
				vec__push(&cie_at, offset);
			}
		} else {
			size_t k = cie_at.n;
			while (k > 0 && cie_at.items[k - 1] != entry.fde.CIE_pointer)
				k--;
			err = k == 0 ? bad(&r, "an entry without its common part")
				     : read_fde(&r, &entry.fde, &cies.items[k - 1], r.section->h.sh_addr + offset, out);
		}
		offset = next;
	}
	if (!err && got < 0)
		err = bad(&r, dwarf_errmsg(-1));
	vec__free(&cies);
	vec__free(&cie_at);
	if (!err && out->n)
		qsort(out->items, out->n, sizeof(out->items[0]), by_start);
	for (size_t i = 1; !err && i < out->n; i++)
		if (out->items[i].start < out->items[i - 1].end)
			err = bad(&r, "entries overlap");
	return err;
}
