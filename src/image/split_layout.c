/* Split: room for more program headers, and where everything that is appended will lie. */
#include <string.h>

#include "image/split_parts.h"

/* ---- room for more program headers ---- */

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
struct err *split__make_room(struct split *s)
{
	const struct elf_file *in = s->in;
	vaddr_t phdrs_end = in->ehdr.e_phoff + in->n_phdrs * sizeof(Elf64_Phdr);
	uint64_t offset;
	if (!elf_file__offset(in, 0, phdrs_end, &offset) || offset != 0)
		return split__refuse(s, "its program headers do not lie at its start");
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
			return split__refuse(s, "no room for more program headers");
		struct moved m = {(size_t)(x - in->sections), x->h.sh_addr, 0};
		vec__push(&s->moved, m);
	}
	if (s->notes_from)
		s->notes_shift = (int64_t)(align_up(need, 8) - align_down(s->notes_from, 8));
	return NULL;
}

/* ---- layout ---- */

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
struct err *split__lay_out(struct split *s, const struct split_options *opt, fde_list *fdes)
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
	s->rela_count += split__rela_entries(s);
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
		return split__refuse(s, "it would not fit into 2 GiB of address space");
	return NULL;
}
