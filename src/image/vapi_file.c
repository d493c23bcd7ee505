/* See vapi_file.h. */
#include "image/vapi_file.h"

#include <string.h>

enum { R, RX, EH, N_PHDRS };

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
	uint64_t eh = vapi->vapi.eh_frame_hdr;
	if (eh)
		phdrs[EH] = (Elf64_Phdr){.p_type = PT_GNU_EH_FRAME,
					 .p_flags = PF_R,
					 .p_offset = r_at + (eh - r->p_vaddr),
					 .p_vaddr = eh,
					 .p_paddr = eh,
					 .p_filesz = vapi->vapi.eh_frame_hdr_cap,
					 .p_memsz = vapi->vapi.eh_frame_hdr_cap,
					 .p_align = 4};
	memcpy(&h, vapi->data, sizeof(h));
	h.e_phoff = sizeof(h);
	h.e_phnum = eh ? N_PHDRS : N_PHDRS - 1;
	h.e_shoff = 0;
	h.e_shnum = h.e_shstrndx = 0;
	memcpy(out, &h, sizeof(h));
	memcpy(out + sizeof(h), phdrs, sizeof(phdrs));
	return out;
}
