/* Call frame information of one ELF file: how the caller's registers are found from a function's (DWARF 5, 6.4; LSB
 * core, "Exception Frames").
 *
 * Only .eh_frame is read, as all that runs has it in its own file. Everything comes from the file, whose bytes are
 * hostile until checked: what does not make sense is as good as not there. All is read into memory when the
 * handle is made; looking up a row reads no file.
 */
#ifndef LLU_FREEZE_CFI_H
#define LLU_FREEZE_CFI_H

#include "base/types.h"
#include "inject/arch.h"

struct cfi;

enum cfi_kind {
	CFI_UNSPECIFIED, /* nothing is said: kept by the calling convention, or lost */
	CFI_UNDEFINED,   /* not known any more; of the return address: there is no caller */
	CFI_SAME,        /* as in this frame */
	CFI_OFFSET,      /* saved at CFA + n */
	CFI_VAL_OFFSET,  /* is CFA + n */
	CFI_REGISTER,    /* is in register n */
	CFI_EXPRESSION,  /* saved at what the expression says */
	CFI_VAL_EXPRESSION,
};

struct cfi_rule {
	enum cfi_kind kind;
	int64_t n;
	const uint8_t *expr; /* lives as long as the handle */
	size_t len;
};

/* What holds at one address. */
struct cfi_row {
	struct cfi_rule cfa; /* CFI_REGISTER: the register `cfa_register` + n; or CFI_VAL_EXPRESSION */
	unsigned cfa_register;
	struct cfi_rule reg[ARCH_DWARF_REGS]; /* by DWARF number; the last is the return address */
	bool signal_frame;                    /* the caller was interrupted, it called nothing */
	bool handles;                         /* has language-specific data: catches or cleans up */
};

/* From an open file, or (`vdso`) its bytes in memory. NULL when there is nothing that can be used. */
struct cfi *cfi__read(int fd);
struct cfi *cfi__read_memory(const void *bytes, size_t len);
void cfi__free(struct cfi *c);

/* The address, as the file has it, of the code at `offset` into the file; false when none of it is executable. */
bool cfi__address(const struct cfi *c, uint64_t offset, vaddr_t *out);
/* The row for the instruction at `pc`, an address of the file. False: nothing is known. */
bool cfi__row(const struct cfi *c, vaddr_t pc, struct cfi_row *out);
/* Do both say the same? */
bool cfi_row__equal(const struct cfi_row *a, const struct cfi_row *b);

/* What an expression is evaluated over. */
struct cfi_frame {
	uint64_t reg[ARCH_DWARF_REGS];
	uint32_t known; /* bit by bit: which of them are known */
	bool (*read)(void *arg, taddr_t at, uint64_t *out);
	void *arg;
};
/* Evaluates an expression with `first` on its stack (if not NULL). False: it cannot be evaluated. */
bool cfi__evaluate(const struct cfi_frame *f, const uint8_t *expr, size_t len, const uint64_t *first, uint64_t *out);

#endif
