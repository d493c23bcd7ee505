/* See vapi_file.h. */
#include "image/vapi_file.h"

#include <dwarf.h>
#include <string.h>

enum { R, RX, EH, N_PHDRS };
enum { EH_AT = sizeof(Elf64_Ehdr) + N_PHDRS * sizeof(Elf64_Phdr) }; /* in the first page */

/* The VAPI's segment with these permissions, or NULL. */
static const Elf64_Phdr *segment(const struct elf_file *vapi, uint32_t flags)
{
	for (size_t i = 0; i < vapi->n_phdrs; i++) {
		const Elf64_Phdr *p = &vapi->phdrs[i];
		if (p->p_type == PT_LOAD && p->p_vaddr >= vapi->vapi.end && p->p_flags == flags && p->p_filesz)
			return p;
	}
	return NULL;
}

/* Appends the segment's bytes at the next page of the file. */
static bool append(const struct elf_file *vapi, const Elf64_Phdr *from, uint8_t *out, uint64_t at, Elf64_Phdr *to)
{
	const uint8_t *bytes = elf_file__at(vapi, from->p_vaddr, from->p_filesz);
	if (!bytes)
		return false;
	*to = *from;
	to->p_offset = at;
	to->p_memsz = to->p_filesz;
	memcpy(out + at, bytes, from->p_filesz);
	return true;
}

/* .eh_frame_hdr without a table (LSB core, "The .eh_frame_hdr section"): where the unwind entries of stubs and pads
 * are. The library's own says where the library's are, which are not in the file. */
struct eh_frame_hdr {
	uint8_t version, eh_frame_ptr_enc, fde_count_enc, table_enc;
	int32_t eh_frame_ptr;
	uint32_t padding; /* readers look for a count */
};

static void point_to_entries(uint8_t *out, size_t at, vaddr_t here, vaddr_t entries, Elf64_Phdr *to)
{
	const struct eh_frame_hdr h = {.version = 1,
				       .eh_frame_ptr_enc = DW_EH_PE_pcrel | DW_EH_PE_sdata4,
				       .fde_count_enc = DW_EH_PE_omit,
				       .table_enc = DW_EH_PE_omit,
				       .eh_frame_ptr = (int32_t)(entries - (here + 4))};
	memcpy(out + at, &h, sizeof(h));
	*to = (Elf64_Phdr){.p_type = PT_GNU_EH_FRAME,
			   .p_flags = PF_R,
			   .p_offset = at,
			   .p_vaddr = here,
			   .p_paddr = here,
			   .p_filesz = sizeof(h),
			   .p_memsz = sizeof(h),
			   .p_align = 4};
}

uint8_t *vapi_file__make(const struct elf_file *vapi, size_t *size, uint64_t *text_at)
{
	const Elf64_Phdr *r = segment(vapi, PF_R), *rx = segment(vapi, PF_R | PF_X);
	Elf64_Phdr phdrs[N_PHDRS] = {0};
	Elf64_Ehdr h;
	if (!r || !rx || vapi->size < sizeof(h))
		return NULL;
	uint64_t r_at = LLU_PAGE;
	*text_at = r_at + align_up(r->p_filesz, LLU_PAGE);
	*size = *text_at + align_up(rx->p_filesz, LLU_PAGE);
	uint8_t *out = xcalloc(*size, 1);
	if (!append(vapi, r, out, r_at, &phdrs[R]) || !append(vapi, rx, out, *text_at, &phdrs[RX])) {
		free(out);
		return NULL;
	}
	const struct elf_section *entries = elf_file__section(vapi, ".llu.eh_frame");
	if (entries)
		point_to_entries(out, EH_AT, r->p_vaddr, entries->h.sh_addr, &phdrs[EH]);
	memcpy(&h, vapi->data, sizeof(h));
	h.e_phoff = sizeof(h);
	h.e_phnum = entries ? N_PHDRS : N_PHDRS - 1;
	h.e_shoff = 0;
	h.e_shnum = h.e_shstrndx = 0;
	memcpy(out, &h, sizeof(h));
	memcpy(out + sizeof(h), phdrs, sizeof(phdrs));
	return out;
}
