/* Split: the contents of what is appended: unwind entries, relocations, stubs and pads. */
#include <dwarf.h>
#include <string.h>

#include "image/split_parts.h"

/* ---- unwind entries of pads and stubs ---- */

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

/* Returns where it is. `augmentation`: "zR" or "zRS" (LSB core, "The Common Information Entry Format"; S: gcc's, of
 * what a signal handler returns to). */
static size_t add_cie(struct blob *b, const char *augmentation, struct arch_cfi ops)
{
	size_t at = b->n;
	const uint8_t head[] = {0, 0, 0, 0, 0, 0, 0, 0, 1};
	const uint8_t tail[] = {1, (uint8_t)(arch_cfi__data_alignment() & 0x7f), arch_cfi__return_register(), 1,
				DW_EH_PE_pcrel | DW_EH_PE_sdata4};
	add_cfi(b, head, sizeof(head));
	add_cfi(b, augmentation, strlen(augmentation) + 1);
	add_cfi(b, tail, sizeof(tail));
	add_cfi(b, ops.ops, ops.len);
	finish_cfi(b, at);
	return at;
}

static void add_fde(struct blob *b, size_t cie_at, vaddr_t start, vaddr_t end, struct arch_cfi cfi, unwind_rows *rows)
{
	if (start == end)
		return;
	size_t at = b->n;
	struct unwind_row row = {start, b->base + at};
	vec__push(rows, row);
	uint32_t cie = (uint32_t)(at + 4 - cie_at), len = (uint32_t)(end - start);
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

/* What is returned to is looked up one byte in front of it: so the parking pad has that one as well, and the sigreturn
 * pad, as in glibc. */
static size_t write_eh_frame(const struct vapi_note *v, vaddr_t at, uint8_t *out, unwind_rows *rows)
{
	struct blob b = {out, 0, at};
	uint8_t park_ops[ARCH_CFI_PARK_MAX], sigreturn_ops[ARCH_CFI_SIGRETURN_MAX];
	vaddr_t park = v->text + ARCH_PAD_PARK, sigreturn = v->text + ARCH_PAD_SIGRETURN;
	const struct arch_cfi none = {NULL, 0};
	const struct arch_cfi parking = {park_ops,
					 arch_cfi__park(park_ops, (int64_t)(v->scratch + ARCH_PARK_RECORD - park))};
	const struct arch_cfi returning = {sigreturn_ops, arch_cfi__sigreturn(sigreturn_ops)};
	size_t plain = add_cie(&b, "zR", arch_cfi__entry()), signal = add_cie(&b, "zRS", returning);
	add_fde(&b, plain, v->text, sigreturn - 1, none, rows);
	add_fde(&b, signal, sigreturn - 1, v->text + ARCH_PAD_EXIT, none, rows);
	add_fde(&b, plain, v->text + ARCH_PAD_EXIT, park - 1, none, rows);
	add_fde(&b, plain, park - 1, v->text + ARCH_PAD_PARK_END, parking, rows);
	add_fde(&b, plain, v->stubs, v->lazy_head, none, rows);
	if (v->n_lazy) {
		add_fde(&b, plain, v->lazy_head, v->lazy_head + ARCH_STUB_SIZE, arch_cfi__lazy_head(), rows);
		add_fde(&b, plain, v->lazy_head + ARCH_STUB_SIZE, v->ifunc_returns, arch_cfi__lazy_stub(), rows);
	}
	add_fde(&b, plain, v->ifunc_returns, v->text_end, none, rows);
	memset(out + b.n, 0, 4); /* a length of zero ends the section */
	return b.n + 4;
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
		if (!ifunc && split__rela_entries(s)) { /* IN's own between the two: IRELATIVE come last */
			size_t n = split__rela_entries(s) * sizeof(Elf64_Rela);
			memcpy(p, split__copy_at(s, elf_file__dyn(s->in, DT_RELA)->d_un.d_ptr), n);
			p += n;
		}
	}
}

void split__fill_text(struct split *s, vaddr_t next_init)
{
	const struct vapi_note *v = &s->v;
	struct arch_pads_args args = {v->table, v->table_len, next_init, v->scratch + ARCH_PARK_RECORD};
	arch_pads__write(blob__at(&s->rx, v->text), v->text, &args);
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
					 split__ifunc_stub(s, (vaddr_t)s->irelative.items[i].addend));
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

void split__fill_r(struct split *s, const fde_list *fdes)
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
		memcpy(blob__at(&s->r, m->to), split__copy_at(s, m->from), size);
		memset(split__copy_at(s, m->from), 0, size);
	}
}

void split__shift_notes(struct split *s)
{
	if (!s->notes_from)
		return;
	size_t n = s->notes_end - s->notes_from;
	FREE_CLEANUP uint8_t *notes = xmemdup(split__copy_at(s, s->notes_from), n);
	memset(split__copy_at(s, s->notes_from), 0, n);
	memcpy(split__copy_at(s, s->notes_from) + s->notes_shift, notes, n);
}
