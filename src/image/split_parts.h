/* Shared by the files that make a split library (split.c, split_slots.c, split_layout.c, split_fill.c,
 * split_headers.c); not for others. */
#ifndef LLU_IMAGE_SPLIT_PARTS_H
#define LLU_IMAGE_SPLIT_PARTS_H

#include "image/split.h"
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

enum { NEW_PHDRS = 5 };          /* four PT_LOAD, one PT_NOTE */
enum { LLU_EH_FRAME_MAX = 768 }; /* bytes of unwind entries for pads and stubs, at most */

struct err *split__refuse(const struct split *s, const char *why);

vaddr_t blob__end(const struct blob *b);
/* Adds `n` bytes (zeros when `data` is NULL) at the next multiple of `align`; where they will lie. */
vaddr_t blob__add(struct blob *b, const void *data, size_t n, size_t align);
uint8_t *blob__at(const struct blob *b, vaddr_t a);

/* Where IN's byte at `a` lies in the copy; the relocation and symbol tables were checked on reading. */
uint8_t *split__copy_at(struct split *s, vaddr_t a);
/* Entries of IN's own .rela.dyn. */
size_t split__rela_entries(const struct split *s);

/* split_slots.c: which functions get a slot, and which stub stands for a function. */
MUST_CHECK struct err *split__make_slots(struct split *s, const struct elf_file *like);
struct canonicals {
	struct canonical *items;
	size_t n;
};
struct canonicals canonicals__make(const struct split *s);
/* The stub of a function, or 0. */
vaddr_t canonicals__stub(const struct canonicals *c, const struct vapi_note *v, vaddr_t function);
vaddr_t split__ifunc_stub(const struct split *s, vaddr_t resolver);

/* split_layout.c: room for program headers, and every address. */
MUST_CHECK struct err *split__make_room(struct split *s);
MUST_CHECK struct err *split__lay_out(struct split *s, const struct split_options *opt, fde_list *fdes);

/* split_fill.c: the contents of what is appended. */
void split__fill_text(struct split *s, vaddr_t next_init);
void split__fill_r(struct split *s, const fde_list *fdes);
void split__shift_notes(struct split *s);

/* split_headers.c: program headers, section headers, and the whole file. */
void split__write_phdrs(struct split *s);
void split__assemble(struct split *s, uint8_t **out, size_t *out_size);

#endif
