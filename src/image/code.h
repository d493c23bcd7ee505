/* The machine code of a library: its functions, and every reference that leads out of one.
 *
 * A function here is what one unwind entry (FDE of .eh_frame) covers: a whole function, or the part
 * of one that the compiler put elsewhere (".cold"). Code under no FDE (crt files, PLTs, assembly)
 * is found by following control flow from known entries; such stretches become functions too.
 *
 * Never guess: every byte of an executable section is either decoded as part of a function, or
 * padding, or *proven free of references*: no 4-byte window of it that could be the displacement of
 * a RIP-relative operand, with any plausible end of the instruction behind it, leads to data or to
 * the entry of a function. What cannot be shown is kept in `doubts`, and whoever must rely on it
 * refuses.
 */
#ifndef LLU_IMAGE_CODE_H
#define LLU_IMAGE_CODE_H

#include "arch/decode.h"
#include "base/hash.h"
#include "image/elf_file.h"

enum ref_kind {
	REF_CALL,    /* direct call */
	REF_JUMP,    /* direct jump or branch out of the function */
	REF_ADDRESS, /* lea: an address is taken */
	REF_MEMORY,  /* an operand in memory: read, written, or called through */
};

/* A reference: some instruction of `function` mentions the address `target`. */
struct ref {
	vaddr_t insn; /* first byte of the instruction */
	vaddr_t site; /* the relative value */
	vaddr_t end;  /* what it is relative to: the end of the instruction */
	vaddr_t target;
	uint8_t kind; /* enum ref_kind */
	uint8_t size; /* bytes at `site` */
};

struct function {
	vaddr_t start, end;
	const char *name;   /* of a symbol at its start, or NULL */
	uint32_t first_ref; /* its references: refs[first_ref .. first_ref + n_refs) */
	uint32_t n_refs;
	uint64_t content;  /* hash of its instructions, but for relative values that lead out of it */
	bool fde;          /* bounds come from an FDE */
	bool signal_frame; /* CFI augmentation 'S': known by its address, not called */
	bool plt;          /* in a .plt section */
};

/* A stretch of executable bytes in no function. */
struct gap {
	vaddr_t start, end;
};

struct code {
	const struct elf_file *elf;     /* borrowed */
	VEC(struct function) functions; /* in address order, not overlapping */
	VEC(struct ref) refs;           /* in address order */
	VEC(struct gap) data;           /* bytes in executable sections that are no code: proven free of references */
	VEC(char *) doubts;             /* reasons why the code is not fully understood; owned */
};

/* Analyses the code. Errors: ERR_UNREADABLE for a damaged unwind table. Doubts are not errors.
 * `elf` must outlive the result; the caller frees it with code__free(). */
MUST_CHECK struct err *code__analyse(const struct elf_file *elf, struct code **out);
void code__free(struct code *c);
void code__cleanup(struct code **c);

/* The function that holds `a`, that starts at `a`, or NULL. */
const struct function *code__function_at(const struct code *c, vaddr_t a);
const struct function *code__function_starting(const struct code *c, vaddr_t a);
/* Is there a jump to where a register or a word says, as a switch makes it of a table? */
bool code__has_indirect_jump(const struct code *c, const struct function *f);
/* Is that where a signal handler returns to, with the instructions of glibc's (arch_code__sigreturn())? */
bool code__is_trampoline(const struct code *c, vaddr_t a);
/* A name for messages: the symbol, or "function at 0x1234" (with the offset when `a` is not its
 * start); the caller frees it. */
char *code__describe(const struct code *c, vaddr_t a);

/* One unwind entry. */
struct fde {
	vaddr_t start, end; /* what it covers */
	vaddr_t at;         /* where the entry lies */
	bool signal_frame;
	vaddr_t personality_at; /* where a pc-relative reference to the personality lies, or 0 */
	uint8_t personality_enc;
	vaddr_t lsda;   /* language-specific data, or 0 */
	uint64_t rules; /* hash of what it says of frames: instructions, and what they count in */
};

typedef VEC(struct fde) fde_list;
/* All entries of IN's own .eh_frame in address order; none if there is no such section. */
MUST_CHECK struct err *fdes__read(const struct elf_file *elf, fde_list *out);

enum insn_part {
	INSN_ALL,
	INSN_SHAPE, /* without displacements and immediates */
	INSN_FORM,  /* and without their width: [rbx], [rbx+8] and [rbx+0x80] are one form */
};
/* Hashes a part of an instruction on to `h`: without its relative value when that is masked. */
uint64_t insn__hash(uint64_t h, const uint8_t *p, const struct insn *i, bool mask_relative, enum insn_part part);

#endif
