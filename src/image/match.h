/* Which function of one build is which function of another.
 *
 * Builds are mostly stripped, so names settle only the exports. The rest is found by content
 * (instructions modulo references), by references of functions already matched (the k-th call of
 * the one corresponds to the k-th call of the other), by pointers at corresponding places of the
 * data, and last by order between matched neighbours.
 */
#ifndef LLU_IMAGE_MATCH_H
#define LLU_IMAGE_MATCH_H

#include "image/code.h"

enum match_how {
	MATCH_NONE,
	MATCH_ORDER,     /* only its place between matched neighbours speaks for it */
	MATCH_ALIGNED,   /* changed functions refer to both where their instructions seem to correspond */
	MATCH_CONTENT,   /* same instructions, and nobody else has them */
	MATCH_REFERENCE, /* data, or functions that differ in constants at most, refer to both at the same place */
	MATCH_NAME,      /* a symbol */
};

struct match {
	const struct code *a, *b; /* old, new; borrowed */
	int32_t *a_to_b;          /* by index into functions; -1: none */
	int32_t *b_to_a;
	uint8_t *how;        /* enum match_how, by index into b's functions */
	bool *same_code;     /* same instructions modulo references, by index into b's functions */
	int32_t *ref_b_to_a; /* by index into b's refs: the corresponding reference of a, or -1 */
};

/* Never fails. Both must outlive the result; the caller frees it with match__free(). */
struct match *match__make(const struct code *a, const struct code *b);
void match__free(struct match *m);

/* The function of b that corresponds to the one of a that starts at `function`; 0 if none. */
vaddr_t match__successor(const struct match *m, vaddr_t function);
/* The other way round. */
vaddr_t match__predecessor(const struct match *m, vaddr_t function);

/* Calls `fn` for the instructions of two functions that correspond: the same but for relative values, displacements and
 * immediates (INSN_SHAPE), and for their width (INSN_FORM). */
typedef void match_pair_fn(void *context, vaddr_t insn_a, vaddr_t insn_b);
void match__align(const struct code *a, const struct function *fa, const struct code *b, const struct function *fb,
		  enum insn_part part, match_pair_fn *fn, void *context);

/* The relocation of the GOT slot that a PLT entry at `at` jumps through; NULL when it is no PLT entry. */
const struct elf_reloc *code__plt_reloc(const struct code *c, vaddr_t at);
/* The import that a PLT entry at `at` leads to: index into .dynsym, or 0 when it is no PLT entry of
 * an import. */
uint32_t code__plt_import(const struct code *c, vaddr_t at);
/* The import that a reference leads to, by its PLT or its GOT, or NULL. */
const struct elf_symbol *code__import(const struct code *c, const struct ref *r);

#endif
